"""Dreams: bitwise the same however they are cut, distributed as the reference, interruptible."""

import dataclasses
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from backends import BACKENDS, COMBINATIONS, LEVELS, PRECISIONS
from random_models import dream_inputs, random_weights
from scipy import stats

from worldmodels_fast import ops, reference

SETTINGS = {"rollouts": 16, "seed": 3, "temperature": 1.15, "max_steps": 60}
LONG = {"rollouts": 1000, "max_steps": 100}


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
def test_bitwise_the_same_for_threads_splits_and_runs(doom_like, backend, precision):
    model = ops.pack_mdn_rnn(doom_like, backend=backend, precision=precision)
    spec, params, *initial = dream_inputs(24, doom_like)
    returns, lengths = ops.dream_rollout(model, spec, params, *initial, **SETTINGS, threads=1)
    assert lengths.shape == (24, 16)
    assert lengths.dtype == np.int32
    assert (returns == lengths).all()
    assert returns.dtype == np.float32
    assert len(np.unique(lengths)) > 15
    for threads in (1, 2, 3, 8):
        again, _ = ops.dream_rollout(model, spec, params, *initial, **SETTINGS, threads=threads)
        assert (again == returns).all()
    for size in (1, 5, 23):
        for first in range(0, 24, size):
            part = np.ascontiguousarray(params[first : first + size])
            again, _ = ops.dream_rollout(model, spec, part, *initial, **SETTINGS, threads=2)
            assert (again == returns[first : first + size]).all()


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
def test_returns_are_bitwise_the_same_for_threads_and_splits(rewarding, backend, precision):
    model = ops.pack_mdn_rnn(rewarding, backend=backend, precision=precision)
    spec, params, *initial = dream_inputs(24, rewarding)
    returns, lengths = ops.dream_rollout(model, spec, params, *initial, **SETTINGS, threads=1)
    assert returns.dtype == np.float32
    assert lengths.dtype == np.int32
    assert np.isfinite(returns).all()
    assert len(np.unique(lengths)) > 8
    assert len(np.unique(returns)) > 0.95 * returns.size
    for threads in (2, 3, 8):
        again, _ = ops.dream_rollout(model, spec, params, *initial, **SETTINGS, threads=threads)
        assert (again == returns).all()
    for size in (1, 5, 23):
        for first in range(0, 24, size):
            part = np.ascontiguousarray(params[first : first + size])
            again, _ = ops.dream_rollout(model, spec, part, *initial, **SETTINGS, threads=2)
            assert (again == returns[first : first + size]).all()
    order = np.random.default_rng(0).permutation(24)
    again, _ = ops.dream_rollout(model, spec, params[order], *initial, **SETTINGS, threads=2)
    assert (again == returns[order]).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", LEVELS)
@pytest.mark.parametrize("members", [1, 2, 3, 6])
def test_threads_that_share_each_step_change_nothing(rewarding, backend, members, precision):
    """A few rollouts: the threads multiply parts of the same step."""
    model = ops.pack_mdn_rnn(rewarding, backend=backend, precision=precision)
    inputs = dream_inputs(members, rewarding)
    settings = {**SETTINGS, "rollouts": 1, "max_steps": 300}
    for seed in range(8):
        settings["seed"] = seed
        alone = ops.dream_rollout(model, *inputs, **settings, threads=1)
        for threads in (2, 3, 4, 9):
            together = ops.dream_rollout(model, *inputs, **settings, threads=threads)
            for t, a in zip(together, alone, strict=True):
                assert (t == a).all()


def test_the_first_rollouts_do_not_depend_on_how_many_follow(doom_like):
    spec, params, *initial = dream_inputs(3, doom_like)
    _, many = ops.dream_rollout(doom_like, spec, params, *initial, **SETTINGS)
    _, few = ops.dream_rollout(doom_like, spec, params, *initial, **{**SETTINGS, "rollouts": 5})
    assert (few == many[:, :5]).all()


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@pytest.mark.parametrize(
    ("dims", "spec"),
    [
        ((6, 2, 20, 5, True), {}),
        ((9, 3, 21, 2, True), {"features": ("z", "h"), "hidden_units": 7}),
        ((3, 1, 5, 1, True), {"features": ("z",), "bias": False}),
    ],
)
def test_short_dreams_agree_with_the_reference_rollout_by_rollout(dims, spec, backend, precision):
    weights = random_weights(*dims, done_bias=-2.0)
    model = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    inputs = dream_inputs(4, weights, **spec)
    settings = {**SETTINGS, "max_steps": 12}
    for common_noise in (True, False):
        settings["common_noise"] = common_noise
        _, got = ops.dream_rollout(model, *inputs, **settings)
        _, expected = reference.dream_rollout(weights, *inputs, **settings, precision=precision)
        assert (got == expected).mean() > 0.95  # one flipped component moves a whole rollout
        assert len(np.unique(got)) > 2


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@pytest.mark.parametrize("done", [False, True])
def test_returns_of_short_dreams_agree_with_the_references(done, backend, precision):
    weights = random_weights(6, 2, 20, 5, done, done_bias=-2.0, reward=True)
    model = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    inputs = dream_inputs(4, weights)
    settings = {**SETTINGS, "max_steps": 12}
    got, lengths = ops.dream_rollout(model, *inputs, **settings)
    expected, steps = reference.dream_rollout(weights, *inputs, **settings, precision=precision)
    assert (lengths == steps).mean() > 0.95
    near = np.abs(got - expected) < {"fp32": 1e-3}.get(precision, 0.1)
    assert near.mean() > 0.9
    assert np.std(expected) > 1


def by_single_steps(model, spec, params, z, rollouts, temperature, seed, max_steps):
    """(returns, lengths) of a dream put together from the other kernels; noise is not common."""
    n = len(params) * rollouts
    z = np.repeat(z, n, axis=0)
    h, c = (np.zeros((n, model.hidden_dim), np.float32) for _ in range(2))
    returns, lengths = np.zeros(n, np.float32), np.zeros(n, np.int32)
    alive = np.ones(n, bool)
    for t in range(max_steps):
        action = ops.controller_forward(spec, params, z, h, c, backend=model.backend)
        restart = np.full(n, float(t == 0), np.float32) if model.predicts_done else None
        step = ops.mdn_rnn_step(model, z, action, h, c, restart)
        mixture = step.logmix, step.mu, step.logstd
        z = ops.mixture_sample(*mixture, temperature, seed=seed, step=t, backend=model.backend)
        h, c = step.h, step.c
        lengths[alive] += 1
        returns[alive] += np.float32(1) if step.reward is None else step.reward[alive]
        if step.done_logit is not None:
            alive &= step.done_logit <= 0
    shape = len(params), rollouts
    return returns.reshape(shape), lengths.reshape(shape)


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@pytest.mark.parametrize("temperature", [1e-30, 1.15, 1e30])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("reward", [False, True])
def test_a_dream_is_bitwise_its_single_steps(reward, done, temperature, backend, precision):
    weights = random_weights(6, 2, 40, 3, done, done_bias=-10.0, reward=reward)
    if done:
        weights.head_weight[0] *= 6  # so that rollouts end at different times
    model = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    spec, params, mu, _ = dream_inputs(5, weights)
    first = mu[:1], np.full((1, 6), -200.0, np.float32)  # exp(-100): z_0 is mu
    play = {"rollouts": 7, "temperature": temperature, "seed": 3, "max_steps": 25}
    returns, lengths = ops.dream_rollout(
        model, spec, params, *first, **play, common_noise=False, threads=2
    )
    expected = by_single_steps(model, spec, params, mu[:1], **play)
    assert (returns == expected[0]).all()
    assert (lengths == expected[1]).all()
    if temperature == 1.15:
        assert (len(np.unique(lengths)) > 2) == done
    assert reward or (returns == lengths).all()


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
def test_predicting_rewards_does_not_change_the_dream(rewarding, backend, precision):
    without = dataclasses.replace(
        rewarding,
        head_weight=np.delete(rewarding.head_weight, 1, axis=0),
        head_bias=np.delete(rewarding.head_bias, 1),
        predicts_reward=False,
    )
    inputs = dream_inputs(5, rewarding)
    results = [
        ops.dream_rollout(
            ops.pack_mdn_rnn(w, backend=backend, precision=precision), *inputs, **SETTINGS
        )
        for w in (rewarding, without)
    ]
    assert (results[0][1] == results[1][1]).all()
    assert (results[1][0] == results[1][1]).all()


@pytest.fixture(scope="module")
def reference_lengths(doom_like):
    inputs = dream_inputs(1, doom_like)
    settings = {**SETTINGS, **LONG, "seed": 4}
    return reference.dream_rollout(doom_like, *inputs, **settings)[1][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_are_distributed_as_the_references(doom_like, reference_lengths, backend):
    model = ops.pack_mdn_rnn(doom_like, backend=backend)
    inputs = dream_inputs(1, doom_like)
    settings = {**SETTINGS, **LONG}
    _, got = ops.dream_rollout(model, *inputs, **settings)
    assert stats.ks_2samp(got[0], reference_lengths).pvalue > 1e-3
    _, other_seed = ops.dream_rollout(model, *inputs, **{**settings, "seed": 5})
    assert (got != other_seed).any()
    assert stats.ks_2samp(got[0], other_seed[0]).pvalue > 1e-3


def test_every_rollout_ends_by_itself(doom_like):
    inputs = dream_inputs(2, doom_like)
    _, short = ops.dream_rollout(doom_like, *inputs, **{**SETTINGS, "max_steps": 10})
    _, long = ops.dream_rollout(doom_like, *inputs, **SETTINGS)
    assert (short == np.minimum(long, 10)).all()
    _, at_once = ops.dream_rollout(doom_like, *inputs, **SETTINGS, done_threshold=-np.inf)
    assert (at_once == 1).all()
    _, never = ops.dream_rollout(doom_like, *inputs, **SETTINGS, done_threshold=np.inf)
    assert (never == 60).all()


def with_constant_logit(weights, logit):
    """The same M, but an end is as likely in one step as in any other."""
    head_weight, head_bias = weights.head_weight.copy(), weights.head_bias.copy()
    head_weight[0], head_bias[0] = 0.0, logit
    return dataclasses.replace(weights, head_weight=head_weight, head_bias=head_bias)


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
def test_ends_are_drawn_as_in_the_reference(doom_like, backend, precision):
    weights = with_constant_logit(doom_like, -1.0)
    model = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    inputs = dream_inputs(3, weights)
    settings = {**SETTINGS, "done_threshold": 2.0, "done_temperature": 0.8}
    for common_noise in (True, False):
        settings["common_noise"] = common_noise
        _, got = ops.dream_rollout(model, *inputs, **settings)
        _, expected = reference.dream_rollout(weights, *inputs, **settings, precision=precision)
        assert (got == expected).all()  # nothing but the noise decides here
        assert len(np.unique(got)) > 8


def test_drawn_ends_come_as_often_as_the_logit_says(doom_like):
    weights = with_constant_logit(doom_like, np.log(10 * 0.05 / 0.95))  # trained with weight 10
    inputs = dream_inputs(1, weights)
    _, lengths = ops.dream_rollout(
        weights,
        *inputs,
        **{**SETTINGS, "rollouts": 4000, "max_steps": 1000},
        done_threshold=np.log(10),
        done_temperature=1.0,
    )
    law = stats.geom(0.05)
    edges = [0, *law.ppf(np.arange(0.1, 1, 0.1)), 1000]
    counts, _ = np.histogram(lengths, bins=np.asarray(edges) + 0.5)
    expected = lengths.size * np.diff(law.cdf(edges))
    expected *= lengths.size / expected.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_common_noise_gives_equal_members_equal_rollouts(doom_like):
    spec, params, *initial = dream_inputs(1, doom_like)
    twins = np.repeat(params, 3, axis=0)
    _, common = ops.dream_rollout(doom_like, spec, twins, *initial, **SETTINGS)
    assert (common[0] == common[1:]).all()
    _, own = ops.dream_rollout(doom_like, spec, twins, *initial, **SETTINGS, common_noise=False)
    assert (own[0] == common[0]).all()
    assert (own[0] != own[1]).any()


def test_without_a_done_head_all_steps_are_taken():
    weights = random_weights(32, 3, 40, 5, False)
    inputs = dream_inputs(3, weights, features=("z", "h"))
    returns, _ = ops.dream_rollout(weights, *inputs, **SETTINGS)
    assert (returns == 60).all()


def test_one_step_and_more_threads_than_rollouts():
    weights = random_weights(3, 1, 5, 2, True)
    inputs = dream_inputs(1, weights)
    settings = {**SETTINGS, "rollouts": 1, "max_steps": 1}
    _, lengths = ops.dream_rollout(weights, *inputs, **settings, threads=16)
    assert lengths.tolist() == [[1]]


def test_a_controller_that_overflows_ends_at_max_steps_or_before(doom_like):
    spec, params, *initial = dream_inputs(2, doom_like)
    wild = np.full_like(params, 3e38)
    _, lengths = ops.dream_rollout(doom_like, spec, wild, *initial, **SETTINGS)
    assert ((lengths >= 1) & (lengths <= 60)).all()


BAD_DREAMS = [
    ({"rollouts": 0}, ValueError, "rollouts: expected at least 1"),
    ({"max_steps": 0}, ValueError, "max_steps: expected at least 1"),
    ({"max_steps": 2**31}, ValueError, "max_steps"),
    ({"max_steps": 10.5}, TypeError, r"max_steps: expected an integer, got 10\.5"),
    ({"seed": -1}, ValueError, "seed: expected 0 <= seed"),
    ({"seed": 2**64}, ValueError, "seed"),
    ({"temperature": 0.0}, ValueError, "temperature: expected a finite number above 0"),
    ({"temperature": float("nan")}, ValueError, "temperature"),
    ({"done_threshold": float("nan")}, ValueError, "done_threshold: expected a number, got nan"),
    ({"done_temperature": -1.0}, ValueError, "done_temperature: expected a finite number from 0"),
    ({"threads": 0}, ValueError, "threads: expected at least 1"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_DREAMS)
def test_bad_settings(doom_like, bad, error, message):
    inputs = dream_inputs(1, doom_like)
    with pytest.raises(error, match=message):
        ops.dream_rollout(doom_like, *inputs, **{**SETTINGS, **bad})


def test_bad_arrays(doom_like):
    spec, params, mu, logvar = dream_inputs(2, doom_like)

    def dream(spec=spec, params=params, mu=mu, logvar=logvar):
        ops.dream_rollout(doom_like, spec, params, mu, logvar, **SETTINGS)

    nan = params.copy()
    nan[1, 2] = np.nan
    with pytest.raises(ValueError, match="params: expected finite numbers, got nan at flat index"):
        dream(params=nan)
    with pytest.raises(ValueError, match=r"params: .*got shape \(2, 5\)"):
        dream(params=params[:, :5].copy())
    with pytest.raises(ValueError, match=r"params: .*no axis of size 0"):
        dream(params=params[:0])
    with pytest.raises(ValueError, match=r"initial_mu: .*\(I, Z\) = \(any, 17\)"):
        dream(mu=mu[:, :3].copy())
    with pytest.raises(ValueError, match=r"initial_logvar: .*\(I, Z\) = \(7, 17\)"):
        dream(logvar=logvar[:3].copy())
    with pytest.raises(ValueError, match="initial_logvar: expected finite numbers"):
        dream(logvar=np.full_like(logvar, np.inf))
    with pytest.raises(ValueError, match="spec: expected the model's latent_dim 17"):
        dream(spec=ops.ControllerSpec(("z",), 4, 33, 1, bias=True))


# --- the process around it ------------------------------------------------------------------------

ENDLESS = """
    import os, signal, sys, time, threading
    import numpy as np
    from random_models import random_weights
    from test_dream_rollout import SETTINGS, dream_inputs
    from worldmodels_fast import ops

    weights = random_weights(32, 3, 256, 5, False)
    inputs = dream_inputs(64, weights, features=("z", "h"))
    def dream(threads, max_steps=2**31 - 1):
        ops.dream_rollout(weights, *inputs, **{**SETTINGS, "max_steps": max_steps}, threads=threads)
"""


def run_script(code, timeout=60):
    code = textwrap.dedent(ENDLESS) + textwrap.dedent(code)
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    helpers = os.path.join(root, "tests", "helpers")
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([os.path.dirname(__file__), helpers, root, inherited])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_is_answered_within_a_second(threads):
    out = run_script(
        f"""
        def send():
            time.sleep(0.5)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        for _ in range(3):  # the best of three: on a busy machine anything may take a second
            sent = []
            threading.Thread(target=send).start()
            try:
                dream({threads})
            except KeyboardInterrupt:
                print(time.perf_counter() - sent[0])
        dream({threads}, max_steps=2)  # and the next call works
        """
    )
    assert len(out.split()) == 3
    assert min(map(float, out.split())) < 1.0


def test_other_python_threads_run_meanwhile(doom_like):
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.wait(0.005):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    inputs = dream_inputs(24, doom_like)
    begin = time.perf_counter()
    while time.perf_counter() - begin < 0.3:
        ops.dream_rollout(doom_like, *inputs, **{**SETTINGS, "rollouts": 64})
    stop.set()
    thread.join()
    assert len(ticks) > 5


def test_dreams_in_several_python_threads_at_once(doom_like):
    model = ops.pack_mdn_rnn(doom_like)
    inputs = dream_inputs(4, doom_like)
    expected, _ = ops.dream_rollout(model, *inputs, **SETTINGS, threads=1)
    results = [None] * 6

    def dream(i):
        results[i], _ = ops.dream_rollout(model, *inputs, **SETTINGS, threads=2)

    threads = [threading.Thread(target=dream, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert (result == expected).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_dream():
    out = run_script(
        """
        dream(2, max_steps=3)  # the parent's pool exists now
        child = os.fork()
        if child == 0:
            dream(2, max_steps=3)
            os._exit(7)
        _, status = os.waitpid(child, 0)
        dream(2, max_steps=3)
        print(os.waitstatus_to_exitcode(status))
        """
    )
    assert out.split() == ["7"]

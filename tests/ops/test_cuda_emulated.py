"""CUDA's kernels, the very code, run by the CPU: tests/cuda/emulator.h stands in for a GPU."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from cuda_emulator import CSRC, Emulator, build, compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import normals, random_spec, random_weights

from worldmodels_fast import _core, ops, reference

PRECISIONS = ("fp32", "fp16")

# Largest absolute difference from float64 with the same rounding of operands, for numbers of the
# order of 1. The head's operand is the kernel's own h: it may round to the other side.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-4}

# Z, A, H, K, done, N
MODELS = [
    (5, 2, 7, 1, True, 3),
    (17, 1, 33, 3, False, 13),
    (15, 4, 70, 2, True, 37),
    (3, 1, 40, 20, True, 9),
    (1, 1, 1, 1, False, 1),
]


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    return Emulator(build(tmp_path_factory.mktemp("emulator")))


def half(x):
    """To half precision as csrc/cuda/run.h says."""
    return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)


def step_inputs(weights, n, seed=1):
    z = normals(seed, n, weights.latent_dim)
    action = normals(seed + 1, n, weights.action_dim)
    h = np.tanh(normals(seed + 2, n, weights.hidden_dim))
    c = normals(seed + 3, n, weights.hidden_dim)
    restart = (normals(seed + 4, n) > 0).astype(np.float32) if weights.predicts_done else None
    return z, action, h, c, restart


def expected_step(weights, precision, z, action, h, c, restart):
    """The reference, with its operands rounded beforehand."""
    if precision == "fp32":
        return reference.mdn_rnn_step(weights, z, action, h, c, restart)
    w = ops.MDNRNNWeights(**vars(weights))
    object.__setattr__(w, "weight_ih", half(w.weight_ih))
    object.__setattr__(w, "weight_hh", half(w.weight_hh))
    step = reference.mdn_rnn_step(w, half(z), half(action), half(h), c, restart)
    out = half(step.h).astype(np.float64) @ half(w.head_weight).T + w.head_bias
    first = int(w.predicts_done) + int(w.predicts_reward)
    mixture = out[:, first:].reshape(-1, w.latent_dim, 3, w.n_mixtures)
    logmix, mu, logstd = (mixture[:, :, i] for i in range(3))
    return step._replace(logmix=logmix, mu=mu, logstd=logstd)


def assert_same(got, expected):
    for g, e in zip(got, expected, strict=True):
        assert (g is None and e is None) or (g == e).all()


# --- numbers --------------------------------------------------------------------------------------


def test_halves_are_rounded_as_numpy_does_it(gpu):
    x = np.random.default_rng(0).integers(0, 2**32, 300_000, dtype=np.uint32).view(np.float32)
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        near = [every * np.float32(s) for s in (1.0, 1.00048828125, 0.99951171875)]
    for values in (x, *near):
        with np.errstate(all="ignore"):
            expected = np.clip(values, -65504, 65504).astype(np.float16)
        words, back = gpu.halves(values)
        nan = np.isnan(values)
        assert (np.isnan(back) == nan).all()
        assert (words[~nan] == expected.view(np.uint16)[~nan]).all()
        assert (back[~nan] == expected.astype(np.float32)[~nan]).all()


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "cos_2pi"])
def test_one_number_at_a_time_is_bitwise_the_vectors(gpu, name):
    x = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    if name == "cos_2pi":
        x = np.random.default_rng(1).uniform(0, 1, 200_000).astype(np.float32)
    expected, got = _core.vector_math(name, x, "generic"), gpu.math(name, x)
    nan = np.isnan(expected)
    assert (np.isnan(got) == nan).all()
    assert (got.view(np.uint32) == expected.view(np.uint32))[~nan].all()


# --- the step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("reward", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_step_parity(gpu, model, reward, precision):
    *dims, n = model
    weights = random_weights(*dims, reward=reward)
    inputs = step_inputs(weights, n)
    expected = expected_step(weights, precision, *inputs)
    got = gpu.step(weights, precision, *inputs)
    for name, g, e in zip(expected._fields, got, expected, strict=True):
        assert (g is None) == (e is None)
        if g is not None:
            exact = name in ("h", "c", "reward")
            assert np.abs(g - e).max() <= TOLERANCE["fp32" if exact else precision], name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_does_not_depend_on_the_others(gpu, precision):
    weights = random_weights(9, 2, 50, 3, True, reward=True)
    inputs = step_inputs(weights, 21)
    whole = gpu.step(weights, precision, *inputs)
    for tiles in (2, 4):
        assert_same(gpu.step(weights, precision, *inputs, tiles=tiles, seed=tiles), whole)
    order = np.random.default_rng(0).permutation(21)
    for rows in (slice(7, 8), slice(3, 20), order):
        part = [np.ascontiguousarray(x[rows]) for x in inputs]
        expected = [x[rows] for x in whole]
        assert_same(gpu.step(weights, precision, *part), expected)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 75),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(1, 20),
    st.sampled_from(PRECISIONS),
)
def test_step_parity_for_any_size(gpu, z, a, h, k, done, reward, n, precision):
    weights = random_weights(z, a, h, k, done, seed=z, reward=reward)
    inputs = step_inputs(weights, n)
    expected = expected_step(weights, precision, *inputs)
    for g, e in zip(gpu.step(weights, precision, *inputs), expected, strict=True):
        assert (g is None and e is None) or np.abs(g - e).max() <= TOLERANCE[precision]


def test_numbers_beyond_half_precision_are_cut_not_infinite(gpu):
    weights = random_weights(3, 1, 9, 2, True, reward=True)
    z, *rest = step_inputs(weights, 4)
    huge = z * np.float32(1e7)
    got = gpu.step(weights, "fp16", huge, *rest)
    assert all(np.isfinite(x).all() for x in got)
    limit = np.clip(huge, -65504, 65504)
    assert_same(got, gpu.step(weights, "fp16", limit, *rest))


# --- the sample -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-30, 0.1, 1.0, 1.3])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 1), (9, 33, 5), (3, 4, 21)], ids=str)
def test_samples_are_bitwise_those_of_the_cpu(gpu, shape, temperature):
    mixture = [2 * normals(i, *shape) for i in range(3)]
    settings = {"seed": 2**63 + 5, "rollout": 17, "step": 4}
    got = gpu.sample(*mixture, temperature, **settings)
    expected = ops.mixture_sample(*mixture, temperature, **settings)
    assert (got.view(np.uint32) == expected.view(np.uint32)).all()
    for threads in (32, 256):
        assert (gpu.sample(*mixture, temperature, **settings, threads=threads) == got).all()


# --- the controller -------------------------------------------------------------------------------

CONTROLLERS = [
    {"features": ("z", "h")},
    {"features": ("z", "c", "h"), "bias": False},
    {
        "features": ("c",),
        "scale": (2.0, 0.5),
        "shift": (0.1, 0.2),
        "low": (-0.5, 0),
        "high": (1, 0.4),
    },
    {"features": ("h", "z"), "hidden_units": 7},
    {"features": ("z",), "hidden_units": 40, "bias": False},
]


@pytest.mark.parametrize("spec", CONTROLLERS, ids=str)
def test_controller_parity(gpu, spec):
    weights = random_weights(35, 2, 270, 1, False)
    spec = random_spec(weights, **spec)
    params = 0.2 * normals(3, 3, spec.n_params)
    z, _, h, c, _ = step_inputs(weights, 15)
    got = gpu.controller(spec, params, z, h, c, seed=1)
    expected = reference.controller_forward(spec, params, z, h, c)
    assert np.abs(got - expected).max() < 1e-5
    one = gpu.controller(spec, params[1:2].copy(), z[7:8].copy(), h[7:8].copy(), c[7:8].copy())
    assert (one == got[7:8]).all()


# --- dreams ---------------------------------------------------------------------------------------

SETTINGS = {"rollouts": 5, "seed": 3, "temperature": 1.15, "max_steps": 12}

# Ways to run the same dream: 8 slots by default.
PLANS = [
    {},
    {"parts": 2, "schedule": 1, "groups": 2},
    {"tiles": 4, "parts": 2, "schedule": 2},
    {"tiles": 2, "shared_limit": 105_000},
    {"group": 2, "schedule": 3},
    {"group": 3, "parts": 4, "schedule": 4},
]


def dream_inputs(members, weights, **spec):
    spec = random_spec(weights, **spec)
    initial_mu = normals(6, 7, weights.latent_dim)
    return (
        spec,
        0.3 * normals(5, members, spec.n_params),
        initial_mu,
        np.full_like(initial_mu, -1.0),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("dims", "spec", "seed", "done_bias"),
    [
        ((6, 2, 70, 5, True), {}, 2, -2.0),
        ((9, 3, 21, 2, True), {"features": ("z", "h"), "hidden_units": 7}, 0, -3.0),
        ((3, 1, 5, 1, True), {"features": ("z",), "bias": False}, 0, -9.0),
        ((37, 1, 12, 5, True), {"features": ("h", "c")}, 0, -3.0),
    ],
    ids=str,
)
def test_dreams_agree_with_the_reference_however_they_are_run(
    gpu, dims, spec, seed, done_bias, precision
):
    weights = random_weights(*dims, seed=seed, done_bias=done_bias)  # rollouts differ in length
    inputs = dream_inputs(4, weights, **spec)
    for common_noise in (True, False):
        play = {**SETTINGS, "common_noise": common_noise}
        _, expected = reference.dream_rollout(weights, *inputs, **play)
        first = None
        for plan in PLANS if common_noise else PLANS[-1:]:
            if plan.get("group", 1) > (dims[2] + 31) // 32:
                plan = {**plan, "group": 1}
            got, _ = gpu.dream(weights, precision, *inputs, **play, **plan)
            if first is None:
                first = got
            assert (got == first).all(), plan
        # Rounding may flip a component, and that moves a whole rollout.
        assert (first == expected).mean() >= {"fp32": 0.95, "fp16": 0.7}[precision]
        assert len(np.unique(first)) > 3


def test_plans_differ_in_what_stays_in_shared_memory(gpu):
    """The tests above must meet all three: weights that stay, that pass through, and both."""
    weights = random_weights(6, 2, 70, 5, True)
    inputs = dream_inputs(1, weights)
    play = {**SETTINGS, "rollouts": 1, "max_steps": 2}
    kinds = set()
    lengths = set()
    for limit in (227 * 1024, 110_000, 86_000):
        got, plan = gpu.dream(weights, "fp16", *inputs, **play, shared_limit=limit)
        kinds.add((plan.resident == plan.stages, plan.resident == 0))
        lengths.add(int(got[0, 0]))
    assert kinds == {(True, False), (False, False), (False, True)}
    assert len(lengths) == 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("done", [False, True])
def test_returns_agree_with_the_reference_however_dreams_are_run(gpu, done, precision):
    weights = random_weights(6, 2, 70, 5, done, seed=2, done_bias=-2.0, reward=True)
    inputs = dream_inputs(4, weights)
    expected, steps = reference.dream_rollout(weights, *inputs, **SETTINGS)
    first = None
    for plan in PLANS:
        got, lengths, _ = gpu.rollout(weights, precision, *inputs, **SETTINGS, **plan)
        if first is None:
            first = got, lengths
        assert (got == first[0]).all(), plan
        assert (lengths == first[1]).all(), plan
    near = np.abs(first[0] - expected) < {"fp32": 1e-3, "fp16": 0.1}[precision]
    assert near.mean() >= {"fp32": 0.95, "fp16": 0.7}[precision]
    assert (len(np.unique(steps)) > 2) == done
    assert len(np.unique(first[0])) > 0.9 * first[0].size


def by_single_steps(gpu, weights, precision, spec, params, z, play):
    """The dream of one rollout per member from z on, put together from the other kernels."""
    n = len(params)
    lengths, returns = np.zeros(n, np.int32), np.zeros(n, np.float32)
    h, c = (np.zeros((n, weights.hidden_dim), np.float32) for _ in range(2))
    alive = np.ones(n, bool)
    for t in range(play["max_steps"]):
        action = gpu.controller(spec, params, z, h, c)
        restart = np.full(n, float(t == 0), np.float32) if weights.predicts_done else None
        step = gpu.step(weights, precision, z, action, h, c, restart)
        logmix, mu, logstd, done_logit, h, c, reward = step
        noise = {"seed": play["seed"], "step": t}
        # All members have rollout 0's noise.
        z = np.concatenate(
            [
                gpu.sample(*(x[i : i + 1] for x in (logmix, mu, logstd)), 1.15, **noise)
                for i in range(n)
            ]
        )
        lengths[alive] = t + 1
        returns[alive] += np.float32(1) if reward is None else reward[alive]
        if done_logit is not None:
            alive &= done_logit <= 0
    return returns, lengths


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("reward", [False, True])
def test_a_dream_is_bitwise_its_single_steps(gpu, reward, done, precision):
    weights = random_weights(6, 2, 40, 3, done, done_bias=-10.0, reward=reward)
    if done:
        weights.head_weight[0] *= 6  # so that members end at different times
    spec, params, mu, _ = dream_inputs(12, weights)
    play = {**SETTINGS, "rollouts": 1, "max_steps": 20}
    first = (mu[:1], np.full((1, 6), -200.0, np.float32))  # exp(-100): z_0 is mu
    returns, lengths, _ = gpu.rollout(weights, precision, spec, params, *first, **play, parts=2)
    z = np.repeat(mu[:1], 12, axis=0)
    expected = by_single_steps(gpu, weights, precision, spec, params, z, play)
    assert (returns[:, 0] == expected[0]).all()
    assert (lengths[:, 0] == expected[1]).all()
    assert (len(np.unique(lengths)) > 2) == done
    assert reward or (returns == lengths).all()


def test_returns_of_more_rollouts_than_slots(gpu):
    weights = random_weights(5, 1, 20, 2, True, done_bias=-2.0, reward=True)
    inputs = dream_inputs(3, weights)
    play = {**SETTINGS, "rollouts": 31}
    few_slots, lengths, _ = gpu.rollout(weights, "fp16", *inputs, **play)
    many_slots, *_ = gpu.rollout(weights, "fp16", *inputs, **play, tiles=4, parts=4, schedule=1)
    assert (few_slots == many_slots).all()
    assert len(np.unique(lengths)) > 3


def test_more_rollouts_than_slots_and_fewer(gpu):
    weights = random_weights(5, 1, 20, 2, True, done_bias=-2.0)
    inputs = dream_inputs(3, weights)
    play = {**SETTINGS, "rollouts": 31}
    few_slots, _ = gpu.dream(weights, "fp16", *inputs, **play)
    many_slots, _ = gpu.dream(weights, "fp16", *inputs, **play, tiles=4, parts=4, schedule=1)
    assert (few_slots == many_slots).all()
    assert len(np.unique(few_slots)) > 3
    spec, params, *initial = inputs
    alone, _ = gpu.dream(weights, "fp16", spec, params[1:2].copy(), *initial, **play)
    assert (alone[0] == few_slots[1]).all()
    one, _ = gpu.dream(weights, "fp16", *inputs, **{**play, "rollouts": 1}, groups=5, tiles=4)
    assert (one[:, 0] == few_slots[:, 0]).all()


def test_ends(gpu):
    weights = random_weights(5, 1, 20, 2, True, done_bias=-2.0)
    inputs = dream_inputs(2, weights)
    long, _ = gpu.dream(weights, "fp32", *inputs, **SETTINGS)
    short, _ = gpu.dream(weights, "fp32", *inputs, **{**SETTINGS, "max_steps": 3})
    assert (short == np.minimum(long, 3)).all()
    for threshold, length in ((-np.inf, 1), (np.inf, 12)):
        got, _ = gpu.dream(weights, "fp32", *inputs, **SETTINGS, done_threshold=threshold)
        assert (got == length).all()
    play = {**SETTINGS, "done_temperature": 2.0, "rollouts": 20}
    chance, _ = gpu.dream(weights, "fp32", *inputs, **play)
    _, expected = reference.dream_rollout(weights, *inputs, **play)
    assert (chance == expected).mean() > 0.95
    endless = random_weights(5, 1, 20, 2, False)
    got, _ = gpu.dream(endless, "fp16", *dream_inputs(2, endless), **SETTINGS)
    assert (got == 12).all()


def test_it_stops_when_told_to(gpu):
    weights = random_weights(3, 1, 5, 2, False)
    inputs = dream_inputs(2, weights)
    play = {**SETTINGS, "max_steps": 1_000_000}
    gpu.dream(weights, "fp16", *inputs, **play, stop=np.ones(1, np.int32), groups=2)


def test_a_controller_that_overflows_harms_only_itself(gpu):
    weights = random_weights(5, 1, 20, 2, True, done_bias=-2.0)
    spec, params, *initial = dream_inputs(3, weights)
    expected, _ = gpu.dream(weights, "fp16", spec, params, *initial, **SETTINGS)
    params[1] = 3e38
    got, _ = gpu.dream(weights, "fp16", spec, params, *initial, **SETTINGS)
    assert (got[[0, 2]] == expected[[0, 2]]).all()
    assert ((got >= 1) & (got <= 12)).all()


# --- plans ----------------------------------------------------------------------------------------

H100, A100, RTX3090 = (90, 132, 232_448), (80, 108, 166_912), (86, 82, 101_376)
PAPER = [(32, 3, 256, 5, False), (64, 1, 512, 5, True)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("device", [H100, A100, RTX3090], ids=str)
@pytest.mark.parametrize("dims", PAPER, ids=str)
def test_the_papers_models_fit(gpu, dims, device, precision):
    weights = random_weights(*dims)
    specs = [random_spec(weights)]
    if device != RTX3090:  # there 40 units do not fit beside Doom's model
        specs.append(random_spec(weights, hidden_units=40))
    for spec in specs:
        for total in (1, 16, 1024, 8192):
            microseconds, plan = gpu.plan(weights, precision, spec, total, 1000, device)
            assert microseconds > 0
            assert plan["slots"] == 8 * plan["tiles"] * plan["parts"]
            assert plan["bytes"] <= device[2]
            assert 1 <= plan["groups"] * plan["group"] <= device[1]
            assert plan["group"] == 1 or device[0] >= 90
    _, plan = gpu.plan(weights, precision, specs[0], 1024, 1000, device, group=1, slots=8)
    assert (plan["group"], plan["slots"]) == (1, 8)


def test_what_cannot_fit_is_said_so(gpu):
    weights = random_weights(64, 1, 2048, 5, True)
    _, plan = gpu.plan(weights, "fp32", random_spec(weights), 16, 10, RTX3090)
    assert plan["groups"] == 0


# --- what only a tool sees ------------------------------------------------------------------------

TOUR = """
    import sys
    import numpy as np
    from cuda_emulator import Emulator
    from random_models import random_spec, random_weights
    from test_cuda_emulated import SETTINGS, dream_inputs, step_inputs

    gpu = Emulator(sys.argv[1])
    play = {**SETTINGS, "max_steps": 4}
    for dims in ((25, 2, 70, 5, True), (3, 1, 5, 1, False)):
        # The larger one predicts both, the smaller one neither.
        weights = random_weights(*dims, done_bias=-1.0, reward=dims[4])
        for spec in ({}, {"features": ("z", "h"), "hidden_units": 7}):
            inputs = dream_inputs(4, weights, **spec)
            for precision in ("fp16", "fp32"):
                for plan in (
                    {"shared_limit": 125_000},
                    {"parts": 2, "shared_limit": 130_000},
                    {"tiles": 2, "parts": 2, "schedule": 1},
                    {"group": 3, "parts": 4, "schedule": 2},
                ):
                    if dims[2] < 64:
                        plan = {**plan, "group": 1}
                    gpu.dream(weights, precision, *inputs, **play, **plan)
        inputs = step_inputs(weights, 19)
        for precision in ("fp16", "fp32"):
            for tiles in (1, 4):
                step = gpu.step(weights, precision, *inputs, tiles=tiles)
        gpu.sample(*step[:3], 1.0)
        spec, (z, _, h, c, _) = random_spec(weights, hidden_units=3), inputs
        gpu.controller(spec, np.zeros((1, spec.n_params), np.float32), z, h, c)
    print("toured")
"""


def tour(library, **environment):
    here = Path(__file__).parent
    path = ":".join(map(str, (here, here.parent / "helpers", here.parents[1])))
    code = textwrap.dedent(TOUR)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, library],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


RACES = {"kernel_flags": ["-fsanitize=thread", "-DWMF_RACES"], "flags": ["-DWMF_RACES"]}


@pytest.mark.slow
def test_no_races(tmp_path):
    done = tour(build(tmp_path, **RACES))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "toured\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "without"),
    [
        ("dream_rollout.cuh", "    sync_block();\n    publish_units"),
        ("dream_rollout.cuh", "    if (b.rank == 0) find_ends"),
        ("product.cuh", "wait_for_stream();  // also"),
    ],
    ids=["a barrier of the block", "a meeting of the group", "a barrier of a stream"],
)
def test_a_barrier_that_is_missing_is_noticed(tmp_path, file, without):
    shutil.copytree(CSRC, tmp_path / "csrc")
    kernel = tmp_path / "csrc" / "cuda" / file
    code = kernel.read_text(encoding="utf-8")
    assert code.count(without) == 1
    changed = without.replace("sync_block();", ";").replace("wait_for_stream();", ";")
    if changed == without:  # the meeting in the line before
        place = code.index(without)
        before = code[:place]
        assert before.endswith("b.meet();\n")
        kernel.write_text(before.removesuffix("b.meet();\n") + code[place:], encoding="utf-8")
    else:
        kernel.write_text(code.replace(without, changed), encoding="utf-8")
    done = tour(build(tmp_path, **RACES, csrc=tmp_path / "csrc"))
    assert "a race at byte" in done.stderr


@pytest.mark.slow
def test_no_use_of_memory_out_of_bounds_and_nothing_undefined(tmp_path):
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    asan = subprocess.run(
        [compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(asan).is_absolute():
        pytest.skip("the compiler has no address sanitizer as a shared library")
    library = build(tmp_path, flags=flags, link_flags=["-fsanitize=address,undefined"])
    options = "detect_leaks=0:detect_stack_use_after_return=0"
    done = tour(library, LD_PRELOAD=asan, ASAN_OPTIONS=options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "toured\n"

"""Each op against the float64 reference on every backend, and what happens to bad input."""

import dataclasses

import numpy as np
import pytest
import torch
from backends import BACKENDS, COMBINATIONS, LEVELS, PRECISIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import normals, random_spec, random_weights
from scipy import stats

from worldmodels_fast import ops, reference

# Largest absolute difference from float64, for inputs and outputs of the order of 1. The reference
# rounds operands as the kernels do, but it rounds an h of its own before the head: where that lies
# between two steps of the format the kernel may take the other one.
TOLERANCE = {
    "mdn_rnn_step": 1e-5,
    "head in fp16": 4e-4,
    "head in bf16": 2e-3,
    "head in int8": 8e-3,
    "mixture_sample": 1e-5,  # where both chose the same component
    "controller_forward": 1e-5,
}
# Rounding may move a draw over the edge between two components.
MIXTURE_FLIPS = 1e-4

# Z, A, H, K, done, N: the paper's two models; odd sizes around every vector width; the smallest.
MODELS = [
    (32, 3, 256, 5, False, 50),
    (64, 1, 512, 5, True, 7),
    (5, 2, 7, 1, True, 3),
    (17, 1, 33, 3, False, 13),
    (15, 4, 31, 2, True, 97),
    (1, 1, 1, 1, True, 1),
    (1, 1, 1, 1, False, 2),
]


def step_inputs(weights, n, seed=1):
    z = normals(seed, n, weights.latent_dim)
    action = normals(seed + 1, n, weights.action_dim)
    h = np.tanh(normals(seed + 2, n, weights.hidden_dim))
    c = normals(seed + 3, n, weights.hidden_dim)
    restart = (normals(seed + 4, n) > 0).astype(np.float32) if weights.predicts_done else None
    return z, action, h, c, restart


def assert_close(name, got, expected):
    assert (got is None) == (expected is None)
    if got is not None:
        assert got.shape == expected.shape
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() <= TOLERANCE[name]


def assert_same_samples(got, expected):
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    scale = np.maximum(1.0, np.abs(expected))
    flips = np.abs(got - expected) / scale > TOLERANCE["mixture_sample"]
    assert flips.sum() <= 1 + MIXTURE_FLIPS * flips.size


# --- parity ---------------------------------------------------------------------------------------


def assert_same_step(got, expected, precision):
    for name, g, e in zip(got._fields, got, expected, strict=True):
        head = name in ("logmix", "mu", "logstd") and precision != "fp32"
        assert_close(f"head in {precision}" if head else "mdn_rnn_step", g, e)


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@pytest.mark.parametrize("reward", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_mdn_rnn_step_parity(model, reward, backend, precision):
    *dims, n = model
    weights = random_weights(*dims, reward=reward)
    inputs = step_inputs(weights, n)
    packed = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    assert packed.backend == backend
    assert packed.precision == precision
    assert (packed.predicts_done, packed.predicts_reward) == (weights.predicts_done, reward)
    got = ops.mdn_rnn_step(packed, *inputs)
    expected = reference.mdn_rnn_step(weights, *inputs, precision=precision)
    assert_same_step(got, expected, precision)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_faster_precisions_are_near_and_smaller(precision):
    weights = random_weights(64, 1, 512, 5, True, reward=True)
    inputs = step_inputs(weights, 30)
    exact = reference.mdn_rnn_step(weights, *inputs)
    packed = ops.pack_mdn_rnn(weights, precision=precision)
    got = ops.mdn_rnn_step(packed, *inputs)
    share = {"bf16": 0.51, "int8": 0.31}[precision]
    assert packed.nbytes < share * ops.pack_mdn_rnn(weights).nbytes
    for g, e in zip(got, exact, strict=True):
        error = np.abs(g - e).max() / np.abs(e).max()
        assert 0 < error < {"bf16": 0.01, "int8": 0.03}[precision]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_faster_precisions_are_the_same_numbers_on_every_backend(precision):
    """Where an instruction is missing, others add up the same numbers in the same order."""
    weights = random_weights(19, 2, 45, 3, True, reward=True)
    inputs = step_inputs(weights, 70)
    steps = {
        backend: ops.mdn_rnn_step(
            ops.pack_mdn_rnn(weights, backend=backend, precision=precision), *inputs
        )
        for backend in LEVELS
    }
    # The generic level has no fused multiply-add, not even for the gates.
    fused = [step for backend, step in steps.items() if backend != "generic"]
    for step in fused[1:]:
        for name in ("logmix", "mu", "logstd", "h", "c"):  # done logit and reward are float32's
            assert (getattr(step, name) == getattr(fused[0], name)).all()
    for step in fused:
        assert_same_step(step, steps["generic"], precision)


@pytest.mark.parametrize("backend", BACKENDS)
def test_auto_is_the_16_bits_that_are_native(backend):
    packed = ops.pack_mdn_rnn(random_weights(3, 1, 5, 2, True), backend=backend, precision="auto")
    native = {"avx512_bf16": "bf16", "cuda": "fp16"}
    assert packed.precision == native.get(backend, "fp32")
    fastest = ops.pack_mdn_rnn(
        random_weights(3, 1, 5, 2, True), backend=backend, precision="fastest"
    )
    assert fastest.precision == {**native, "avx512_bf16": "int8"}.get(backend, "fp32")


@pytest.mark.parametrize("backend", LEVELS)
@pytest.mark.parametrize("ratio", [1, 100, 10_000])
def test_int8_sums_do_not_overflow(backend, ratio):
    """Weights of z far above those of h, and every z at the end of its range."""
    weights = random_weights(64, 1, 91, 2, True)
    weights.weight_ih[:] = np.sign(weights.weight_ih) * 0.05
    weights.weight_hh[:] *= 0.5 / ratio
    _, action, h, c, restart = step_inputs(weights, 8)
    z = np.sign(normals(9, 8, 64)) * np.float32(100)
    z[0] = 100 * np.sign(weights.weight_ih[5, :64])  # all of one gate's products have one sign
    packed = ops.pack_mdn_rnn(weights, backend=backend, precision="int8")
    got = ops.mdn_rnn_step(packed, z, action, h, c, restart)
    expected = reference.mdn_rnn_step(
        weights, np.clip(z, -64, 64), action, h, c, restart, precision="int8"
    )
    assert_close("mdn_rnn_step", got.h, expected.h)
    exact = reference.mdn_rnn_step(weights, np.clip(z, -64, 64), action, h, c, restart)
    assert np.abs(got.h - exact.h).max() < 0.05


def test_int8_refuses_sizes_whose_sums_could_overflow():
    weights = random_weights(70_000, 1, 1, 1, False)
    with pytest.raises(ValueError, match=r"precision: expected 'fp32' or 'bf16' for .* 70001"):
        ops.pack_mdn_rnn(weights, precision="int8")


def test_int8_stays_finite_beyond_its_range():
    weights = random_weights(5, 2, 9, 3, True)
    inputs = [x * 1e20 for x in step_inputs(weights, 4)]
    inputs[2] = np.clip(inputs[2], -1, 1)  # h is a product of a sigmoid and a tanh
    for backend in LEVELS:
        packed = ops.pack_mdn_rnn(weights, backend=backend, precision="int8")
        got = ops.mdn_rnn_step(packed, *inputs)
        assert all(np.isfinite(x).all() for x in (got.h, got.mu, got.logmix, got.logstd))


@settings(max_examples=40, deadline=None)
@given(
    z=st.integers(1, 40),
    a=st.integers(1, 5),
    h=st.integers(1, 70),
    k=st.integers(1, 7),
    done=st.booleans(),
    reward=st.booleans(),
    n=st.integers(1, 60),
    combination=st.sampled_from(COMBINATIONS),
)
def test_every_shape_agrees_with_the_reference(z, a, h, k, done, reward, n, combination):
    backend, precision = combination
    weights = random_weights(z, a, h, k, done, reward=reward)
    inputs = step_inputs(weights, n)
    packed = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    got = ops.mdn_rnn_step(packed, *inputs, threads=2)
    if precision == "fp32":  # tiny models have large head weights: see TOLERANCE
        assert_same_step(got, reference.mdn_rnn_step(weights, *inputs), precision)
    else:
        expected = reference.mdn_rnn_step(weights, *inputs, precision=precision)
        assert_close("mdn_rnn_step", got.h, expected.h)
        assert_close("mdn_rnn_step", got.c, expected.c)
        assert_close("mdn_rnn_step", got.done_logit, expected.done_logit)
        assert_close("mdn_rnn_step", got.reward, expected.reward)
    sample = (got.logmix, got.mu, got.logstd, 0.7)
    assert_same_samples(
        ops.mixture_sample(*sample, seed=n, step=3, backend=backend),
        reference.mixture_sample(*sample, seed=n, step=3),
    )
    spec = random_spec(weights, hidden_units=h % 3 * 5, bias=done)
    params = 0.3 * normals(0, n, spec.n_params)
    got_action = ops.controller_forward(spec, params, inputs[0], *inputs[2:4], backend=backend)
    expected_action = reference.controller_forward(spec, params, inputs[0], *inputs[2:4])
    assert_close("controller_forward", got_action, expected_action)


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
def test_a_row_does_not_depend_on_the_others(backend, precision):
    weights = random_weights(19, 2, 45, 3, True, reward=True)
    packed = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    inputs = step_inputs(weights, 120)
    whole = ops.mdn_rnn_step(packed, *inputs)
    for threads in (2, 3, 200):
        for w, t in zip(whole, ops.mdn_rnn_step(packed, *inputs, threads=threads), strict=True):
            assert (w == t).all()
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 48, 49):
        rows = slice(60, 60 + n)
        part = ops.mdn_rnn_step(packed, *(np.ascontiguousarray(x[rows]) for x in inputs))
        for w, p in zip(whole, part, strict=True):
            assert (w[rows] == p).all()


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@pytest.mark.parametrize("done", [False, True])
def test_the_reward_changes_nothing_else(done, backend, precision):
    """The same M with and without the head's row of rewards: bit for bit."""
    weights = random_weights(19, 2, 45, 3, done, reward=True)
    without = dataclasses.replace(
        weights,
        head_weight=np.delete(weights.head_weight, int(done), axis=0),
        head_bias=np.delete(weights.head_bias, int(done)),
        predicts_reward=False,
    )
    inputs = step_inputs(weights, 20)
    got, expected = (
        ops.mdn_rnn_step(ops.pack_mdn_rnn(w, backend=backend, precision=precision), *inputs)
        for w in (weights, without)
    )
    assert got.reward.shape == (20,)
    assert expected.reward is None
    for g, e in zip(got[:-1], expected[:-1], strict=True):
        assert (g is None and e is None) or (g == e).all()


def test_restart_none_is_zeros_and_plain_weights_will_do():
    weights = random_weights(5, 2, 9, 3, True)
    z, action, h, c, _ = step_inputs(weights, 4)
    without = ops.mdn_rnn_step(weights, z, action, h, c)
    zeros = ops.mdn_rnn_step(weights, z, action, h, c, np.zeros(4, np.float32))
    ones = ops.mdn_rnn_step(weights, z, action, h, c, np.ones(4, np.float32))
    assert (without.h == zeros.h).all()
    assert (without.h != ones.h).any()


def test_huge_inputs_saturate_instead_of_overflowing():
    weights = random_weights(5, 2, 9, 3, True)
    inputs = [x * 1e20 for x in step_inputs(weights, 4)]
    for backend in BACKENDS:
        got = ops.mdn_rnn_step(ops.pack_mdn_rnn(weights, backend=backend), *inputs)
        assert np.isfinite(got.h).all()
        assert np.abs(got.h).max() <= 1


# --- mixture_sample -------------------------------------------------------------------------------


def random_mixture(n, z, k, seed=0):
    return (2 * normals(seed, n, z, k), 3 * normals(seed + 1, n, z, k), normals(seed + 2, n, z, k))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [1e-30, 0.01, 0.5, 1.0, 1.15, 30.0, 1e30])
@pytest.mark.parametrize("shape", [(50, 64, 5), (7, 17, 3), (40, 1, 1), (3, 33, 9)], ids=str)
def test_mixture_sample_parity(shape, temperature, backend):
    mixture = random_mixture(*shape)
    settings = {"seed": 2**63 + 5, "rollout": 11, "step": 2**32 - 1}
    got = ops.mixture_sample(*mixture, temperature, **settings, backend=backend)
    assert_same_samples(got, reference.mixture_sample(*mixture, temperature, **settings))


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_is_bitwise_equal_on_every_backend(backend):
    # With one component, mean 0 and deviation 1 the sample is the normal itself.
    zeros = np.zeros((200, 70, 1), np.float32)
    got = ops.mixture_sample(zeros, zeros, zeros, 1.0, seed=9, rollout=3, step=4, backend=backend)
    generic = ops.mixture_sample(
        zeros, zeros, zeros, 1.0, seed=9, rollout=3, step=4, backend="generic"
    )
    assert (got == generic).all()
    _, normal = reference.noise(9, 3 + np.arange(200), 4, 70, reference.MIXTURE)
    assert np.abs(got - normal).max() < 3e-6
    mixture = random_mixture(60, 37, 5)
    assert (
        ops.mixture_sample(*mixture, 1.15, backend=backend)
        == ops.mixture_sample(*mixture, 1.15, backend="generic")
    ).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.4])
def test_mixture_sample_has_the_stated_distribution(temperature, backend):
    n, k = 40_000, 4
    logmix = np.broadcast_to(np.array([0.3, -1.0, 0.9, -0.2], np.float32), (n, 3, k)).copy()
    mu = np.broadcast_to(np.array([-30, -10, 10, 30], np.float32), (n, 3, k)).copy()
    logstd = np.broadcast_to(np.array([0.0, -0.5, 0.4, -1.0], np.float32), (n, 3, k)).copy()
    z = ops.mixture_sample(logmix, mu, logstd, temperature, seed=1, backend=backend)
    component = np.clip(np.round((z + 30) / 20), 0, 3).astype(int)
    weight = np.exp(logmix[0, 0] / temperature).astype(np.float64)
    expected = weight / weight.sum()
    for d in range(3):
        counts = np.bincount(component[:, d], minlength=k)
        assert stats.chisquare(counts, expected * n).pvalue > 1e-4
        for j in range(k):
            standard = (z[component[:, d] == j, d] - mu[0, 0, j]) / np.exp(logstd[0, 0, j])
            assert stats.kstest(standard / np.sqrt(temperature), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(z[:, 0], z[:, 1])[0, 1]) < 0.02


@pytest.mark.parametrize("backend", BACKENDS)
def test_mixture_sample_at_the_edges(backend):
    n, z = 500, 20
    logmix = np.full((n, z, 3), -np.inf, np.float32)
    logmix[
        :, :, 1
    ] = -400.0  # the only possible component; a global maximum would make it underflow
    logmix[:, 0, 1] = 80.0
    mu = np.broadcast_to(np.array([5, 7, 9], np.float32), (n, z, 3)).copy()
    small = np.full((n, z, 3), -100.0, np.float32)
    for temperature in (1e-38, 0.1, 1.0, 1e4):
        got = ops.mixture_sample(logmix, mu, small, temperature, backend=backend)
        assert (got == 7).all()
    # exp(min(logstd, 10)): finite whatever the head says.
    wild = np.full((n, z, 3), 3e38, np.float32)
    got = ops.mixture_sample(logmix, mu, wild, 1.0, backend=backend)
    assert np.isfinite(got).all()
    assert np.abs(got).max() > 1e4


def test_rows_keep_their_noise_however_they_are_cut():
    mixture = random_mixture(30, 9, 4)
    whole = ops.mixture_sample(*mixture, 1.0, seed=5, rollout=100, step=2)
    for first, last in ((0, 1), (3, 17), (29, 30)):
        part = [np.ascontiguousarray(x[first:last]) for x in mixture]
        got = ops.mixture_sample(*part, 1.0, seed=5, rollout=100 + first, step=2)
        assert (got == whole[first:last]).all()


# --- controller_forward ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("features", [("z",), ("h", "z"), ("z", "c", "h"), ("c",)], ids=str)
@pytest.mark.parametrize("hidden_units", [0, 1, 40])
@pytest.mark.parametrize("bias", [False, True])
def test_controller_parity(features, hidden_units, bias, backend):
    spec = ops.ControllerSpec(
        features,
        13,
        37,
        3,
        bias=bias,
        hidden_units=hidden_units,
        scale=(1.0, 0.5, 2.0),
        shift=(0.0, 0.5, -0.1),
        low=(-1.0, 0.0, 0.0),
        high=(1.0, 1.0, 0.9),
    )
    z, h, c = normals(0, 12, 13), normals(1, 12, 37), normals(2, 12, 37)
    for members in (1, 4, 12):
        params = 0.3 * normals(3, members, spec.n_params)
        got = ops.controller_forward(spec, params, z, h, c, backend=backend)
        assert_close("controller_forward", got, reference.controller_forward(spec, params, z, h, c))


def test_controller_sizes_are_the_papers():
    car_racing = ops.ControllerSpec(("z", "h"), 32, 256, 3, bias=True)
    hidden_layer = ops.ControllerSpec(("z",), 32, 256, 3, bias=True, hidden_units=40)
    doom = ops.ControllerSpec(("z", "c", "h"), 64, 512, 1, bias=False)
    assert [s.n_params for s in (car_racing, hidden_layer, doom)] == [867, 1443, 1088]


def test_features_that_the_controller_does_not_see_may_be_anything():
    spec = ops.ControllerSpec(("z",), 3, 5, 1, bias=False)
    params, z = normals(0, 1, spec.n_params), normals(1, 4, 3)
    expected = ops.controller_forward(spec, params, z)
    assert (ops.controller_forward(spec, params, z, "no", [3]) == expected).all()


# --- preallocated outputs -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("reward", [False, True])
def test_outputs_may_be_given(reward, done, precision):
    weights = random_weights(19, 2, 45, 3, done, reward=reward)
    packed = ops.pack_mdn_rnn(weights, precision=precision)
    inputs = step_inputs(weights, 60)
    fresh = ops.mdn_rnn_step(packed, *inputs)
    out = ops.MDNRNNStep(*(None if x is None else np.full_like(x, np.nan) for x in fresh))
    assert ops.mdn_rnn_step(packed, *inputs, threads=2, out=out) is out
    for a, b in zip(out, fresh, strict=True):
        assert (a is None and b is None) or (a == b).all()

    z, action, h, c, restart = (None if x is None else x.copy() for x in inputs)
    ops.mdn_rnn_step(packed, z, action, h, c, restart, out=out._replace(h=h, c=c))  # in place
    assert (h == fresh.h).all()
    assert (c == fresh.c).all()

    mixture = (fresh.logmix, fresh.mu, fresh.logstd, 1.15)
    sample = np.empty((60, 19), np.float32)
    assert ops.mixture_sample(*mixture, seed=4, out=sample) is sample
    assert (sample == ops.mixture_sample(*mixture, seed=4)).all()

    spec = random_spec(weights)
    params, chosen = normals(0, 3, spec.n_params), torch.empty(60, 2)
    assert ops.controller_forward(spec, params, z, h, c, out=chosen) is chosen
    assert (chosen.numpy() == ops.controller_forward(spec, params, z, h, c)).all()


def test_bad_outputs(good):
    weights, inputs = good
    step = ops.mdn_rnn_step(weights, **inputs)
    n = 5
    for change, error, message in [
        ({"mu": np.empty((n, 4, 2), np.float32)}, ValueError, r"out.mu: .*\(5, 4, 3\)"),
        ({"h": np.empty((n, 6))}, TypeError, r"out.h: .*got dtype float64"),
        ({"done_logit": None}, TypeError, r"out.done_logit: .*got NoneType"),
        ({"logmix": step.mu}, ValueError, r"out: .*mu overlapping logmix"),
        ({"c": inputs["h"]}, ValueError, r"out: .*c overlapping h"),
        ({"c": None}, TypeError, r"out.c: .*got NoneType"),
        ({"reward": None}, TypeError, r"out.reward: .*got NoneType"),
        ({"reward": np.empty((n, 1), np.float32)}, ValueError, r"out.reward: .*\(N\) = \(5,\)"),
        ({"reward": step.done_logit}, ValueError, r"out: .*reward overlapping done_logit"),
    ]:
        with pytest.raises(error, match=message):
            ops.mdn_rnn_step(weights, **inputs, out=step._replace(**change))
    neither = random_weights(4, 2, 6, 3, False)
    inputs_of_neither = {**inputs, "restart": None}
    step_of_neither = ops.mdn_rnn_step(neither, **inputs_of_neither)
    for name, what in (("done_logit", "the end of a rollout"), ("reward", "the reward")):
        change = {name: np.empty(n, np.float32)}
        with pytest.raises(ValueError, match=rf"out.{name}: expected None, .*not predict {what}"):
            ops.mdn_rnn_step(neither, **inputs_of_neither, out=step_of_neither._replace(**change))
    shared = np.empty((n + 1, 6), np.float32)
    inputs["h"] = shared[:n]
    inputs["h"][:] = 0
    with pytest.raises(ValueError, match=r"out: .*h overlapping h"):  # shifted by a row
        ops.mdn_rnn_step(weights, **inputs, out=step._replace(h=shared[1:]))
    with pytest.raises(TypeError, match="out: expected an MDNRNNStep, got tuple"):
        ops.mdn_rnn_step(weights, **inputs, out=tuple(step))
    frozen = np.empty((n, 4), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"out: .*read-only"):
        ops.mixture_sample(step.logmix, step.mu, step.logstd, 1.0, out=frozen)
    with pytest.raises(ValueError, match=r"out: .*z overlapping logmix"):
        ops.mixture_sample(
            step.logmix, step.mu, step.logstd, 1.0, out=step.logmix.ravel()[:20].reshape(5, 4)
        )
    spec = random_spec(weights)
    params = normals(0, 1, spec.n_params)
    with pytest.raises(ValueError, match=r"out: .*\(N, A\) = \(5, 2\)"):
        ops.controller_forward(
            spec, params, inputs["z"], step.h, step.c, out=np.empty((5, 3), np.float32)
        )


# --- torch ----------------------------------------------------------------------------------------


def test_torch_in_torch_out():
    weights = random_weights(4, 2, 6, 3, True, reward=True)
    tensors = dataclasses.replace(
        weights,
        **{
            f.name: torch.from_numpy(value)
            for f in dataclasses.fields(weights)
            if isinstance(value := getattr(weights, f.name), np.ndarray)
        },
    )
    inputs = step_inputs(weights, 3)
    numpy_step = ops.mdn_rnn_step(weights, *inputs)
    torch_step = ops.mdn_rnn_step(tensors, *(torch.from_numpy(x) for x in inputs))
    for n, t in zip(numpy_step, torch_step, strict=True):
        assert isinstance(n, np.ndarray)
        assert isinstance(t, torch.Tensor)
        assert (n == t.numpy()).all()
    sample = ops.mixture_sample(torch_step.logmix, torch_step.mu, torch_step.logstd, 1.0)
    assert isinstance(sample, torch.Tensor)
    spec = random_spec(weights)
    flat = torch.nn.Parameter(torch.zeros(1, spec.n_params))
    action = ops.controller_forward(spec, flat, torch.zeros(3, 4), torch_step.h, torch_step.c)
    assert isinstance(action, torch.Tensor)
    assert not action.requires_grad
    initial = torch.zeros(2, 4)
    returns, lengths = ops.dream_rollout(
        tensors, spec, flat, initial, initial, rollouts=2, seed=0, temperature=1.0, max_steps=3
    )
    assert returns.dtype == torch.float32
    assert lengths.dtype == torch.int32


# --- bad input: an error that names the argument, what was expected, and what came ----------------


@pytest.fixture
def good():
    weights = random_weights(4, 2, 6, 3, True, reward=True)
    return weights, dict(
        zip(("z", "action", "h", "c", "restart"), step_inputs(weights, 5), strict=True)
    )


BAD_STEPS = [
    ("z", lambda x: x[:, :3].copy(), ValueError, r"z: .*\(N, Z\) = \(any, 4\), got shape \(5, 3\)"),
    ("z", lambda x: x[0], ValueError, r"z: .*got shape \(4,\)"),
    ("z", lambda x: x[:0], ValueError, r"z: .*no axis of size 0, got shape \(0, 4\)"),
    (
        "action",
        lambda x: x[:4].copy(),
        ValueError,
        r"action: .*\(N, A\) = \(5, 2\), got shape \(4, 2\)",
    ),
    ("h", lambda x: x.astype(np.float64), TypeError, r"h: .*got dtype float64; use h.astype"),
    ("h", lambda x: x.astype(">f4"), TypeError, r"h: .*got dtype >f4"),
    ("h", lambda x: x.T.copy().T, ValueError, r"h: .*C order.*ascontiguousarray\(h\)"),
    ("c", lambda x: np.repeat(x, 2, axis=0)[::2], ValueError, r"c: .*C order"),
    ("c", lambda x: x.tolist(), TypeError, r"c: .*got list"),
    (
        "restart",
        lambda x: x[:, None].copy(),
        ValueError,
        r"restart: .*\(N\) = \(5,\), got shape \(5, 1\)",
    ),
    ("restart", lambda x: x > 0, TypeError, r"restart: .*got dtype bool"),
    (
        "z",
        lambda x: torch.from_numpy(x).double(),
        TypeError,
        r"z: .*got dtype torch.float64; use z.to",
    ),
    ("z", lambda x: torch.from_numpy(x).to("meta"), ValueError, r"z: .*CPU.*meta"),
    ("z", lambda x: torch.from_numpy(x.T.copy()).T, ValueError, r"z: .*C order.*z.contiguous"),
]


@pytest.mark.parametrize(("name", "spoil", "error", "message"), BAD_STEPS)
def test_bad_arrays(good, name, spoil, error, message):
    weights, inputs = good
    inputs[name] = spoil(inputs[name])
    with pytest.raises(error, match=message):
        ops.mdn_rnn_step(weights, **inputs)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias", "head_weight", "head_bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(good, name, value):
    weights, _ = good
    getattr(weights, name).flat[-1] = value
    with pytest.raises(ValueError, match=rf"{name}: expected finite numbers, got -?(nan|inf) at"):
        ops.pack_mdn_rnn(weights)


def test_bad_weights(good):
    weights, inputs = good
    with pytest.raises(ValueError, match=r"weight_ih: .*\(4H, X\) = \(24, 7\)"):
        ops.pack_mdn_rnn(dataclasses.replace(weights, weight_ih=weights.weight_ih[:, :6].copy()))
    with pytest.raises(
        ValueError, match=r"head_weight: .*\(O, H\) = \(37, 6\), got shape \(38, 6\)"
    ):
        ops.pack_mdn_rnn(dataclasses.replace(weights, predicts_reward=False))
    with pytest.raises(ValueError, match="hidden_dim: expected at least 1"):
        ops.pack_mdn_rnn(dataclasses.replace(weights, hidden_dim=0))
    with pytest.raises(TypeError, match=r"n_mixtures: expected an integer, got 2\.5"):
        ops.pack_mdn_rnn(dataclasses.replace(weights, n_mixtures=2.5))
    with pytest.raises(ValueError, match=r"precision: expected 'fp32', .* got 'fp8'"):
        ops.pack_mdn_rnn(weights, precision="fp8")
    with pytest.raises(ValueError, match=r"precision: .* got 'fp16', which is for backend 'cuda'"):
        ops.pack_mdn_rnn(weights, backend="generic", precision="fp16")
    no_done = random_weights(4, 2, 6, 3, False)
    with pytest.raises(ValueError, match="restart: expected None"):
        ops.mdn_rnn_step(no_done, **inputs)
    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads: expected at least 1"):
            ops.mdn_rnn_step(weights, **inputs, threads=threads)


@pytest.mark.parametrize("tau", [0.0, -1.0, np.nan, np.inf, 1e-60, 1e60])
def test_bad_temperature(tau):
    with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
        ops.mixture_sample(*random_mixture(2, 3, 4), tau)


def test_bad_samples():
    logmix, mu, logstd = random_mixture(2, 3, 4)
    with pytest.raises(ValueError, match=r"mu: .*\(N, Z, K\) = \(2, 3, 4\)"):
        ops.mixture_sample(logmix, mu[:1].copy(), logstd, 1.0)
    for name, value in (("seed", -1), ("seed", 2**64), ("step", 2**32), ("rollout", -1)):
        with pytest.raises(ValueError, match=f"{name}: expected 0 <= {name}"):
            ops.mixture_sample(logmix, mu, logstd, 1.0, **{name: value})
    with pytest.raises(ValueError, match=r"rollout: expected rollout \+ N"):
        ops.mixture_sample(logmix, mu, logstd, 1.0, rollout=2**32 - 1)


def test_bad_controllers():
    for features in ((), ("z", "z"), ("x",)):
        with pytest.raises(ValueError, match="features: expected"):
            ops.ControllerSpec(features, 3, 5, 2, bias=True)
    with pytest.raises(ValueError, match="scale: expected 2 finite numbers"):
        ops.ControllerSpec(("z",), 3, 5, 2, bias=True, scale=(1.0,))
    with pytest.raises(ValueError, match="low, high"):
        ops.ControllerSpec(("z",), 3, 5, 1, bias=True, low=(2.0,))
    spec = ops.ControllerSpec(("z", "h"), 3, 5, 2, bias=True)
    params, z, h = normals(0, 2, spec.n_params), normals(1, 4, 3), normals(2, 4, 5)
    with pytest.raises(ValueError, match=r"h: expected an array because spec.features"):
        ops.controller_forward(spec, params, z)
    with pytest.raises(
        ValueError, match=r"params: .*n_params\) = \(any, 18\), got shape \(2, 17\)"
    ):
        ops.controller_forward(spec, params[:, 1:].copy(), z, h)
    with pytest.raises(ValueError, match=r"params: .*multiple of P"):
        ops.controller_forward(spec, params, z[:3].copy(), h[:3].copy())
    with pytest.raises(ValueError, match=r"h: .*\(N, H\) = \(4, 5\)"):
        ops.controller_forward(spec, params, z, h[:2].copy())


# --- backends -------------------------------------------------------------------------------------


def test_backends(monkeypatch):
    assert BACKENDS[0] == "generic"
    monkeypatch.delenv("WMF_BACKEND", raising=False)
    assert ops.default_backend() == LEVELS[-1]  # CUDA has to be asked for
    monkeypatch.setenv("WMF_BACKEND", "generic")
    assert ops.default_backend() == "generic"
    assert ops.pack_mdn_rnn(random_weights(1, 1, 1, 1, False)).backend == "generic"
    monkeypatch.setenv("WMF_BACKEND", "sse9")
    with pytest.raises(
        ValueError, match=r"backend: expected one of 'generic'.*got 'sse9'.*WMF_BACKEND"
    ):
        ops.default_backend()
    missing = {"avx2", "avx512", "avx512_bf16", "cuda"} - set(BACKENDS)
    for name in missing:
        with pytest.raises(ValueError, match=f"backend: '{name}' cannot run here"):
            ops.mixture_sample(*random_mixture(2, 3, 4), 1.0, backend=name)


def test_a_module_in_a_models_place_is_told_about_weights():
    z = np.zeros((1, 4), np.float32)
    with pytest.raises(TypeError, match=r"model: expected MDNRNNWeights .*\.weights\(\).* got str"):
        ops.mdn_rnn_step("M", z, z, z, z)

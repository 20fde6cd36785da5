"""The draws after a step of M: latents, ends, first latents; each row with noise of its own."""

import numpy as np
import pytest
import torch
from backends import COMBINATIONS, LEVELS
from random_models import normals, random_spec, random_weights

from worldmodels_fast import ops, reference

N = 40
RNG = np.random.default_rng(0)
SEEDS = RNG.integers(2**64, size=N, dtype=np.uint64)
ROLLOUTS = RNG.integers(2**32, size=N)
STEPS = RNG.integers(2**32, size=N).astype(np.uint32)
IDS = {"seed": SEEDS, "rollout": ROLLOUTS, "step": STEPS}
NOT_FINITE = (np.nan, np.inf, -np.inf)


def mixtures(n=N, z=17, k=3):
    return normals(1, n, z, k), normals(2, n, z, k), normals(3, n, z, k) - 1


@pytest.mark.parametrize("level", LEVELS)
def test_each_row_draws_with_its_own_noise(level):
    whole = ops.mixture_sample(*mixtures(), 0.8, **IDS, backend=level)
    np.testing.assert_allclose(
        whole, reference.mixture_sample(*mixtures(), 0.8, **IDS), rtol=0, atol=1e-5
    )
    for n in (0, 7, 39):
        row = [part[n : n + 1] for part in mixtures()]
        ids = {name: int(values[n]) for name, values in IDS.items()}
        np.testing.assert_array_equal(whole[n : n + 1], ops.mixture_sample(*row, 0.8, **ids))


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.uint32, torch.tensor])
def test_arrays_that_say_the_same_as_numbers(kind):
    plain = ops.mixture_sample(*mixtures(), 1.0, seed=5, rollout=7, step=9)
    ids = {"seed": np.full(N, 5), "rollout": 7 + np.arange(N), "step": np.full(N, 9)}
    for names in (("seed",), ("rollout",), ("step", "seed"), ("seed", "rollout", "step")):
        given = {name: kind(ids[name].tolist()) for name in names}
        some = ops.mixture_sample(*mixtures(), 1.0, **{"seed": 5, "rollout": 7, "step": 9, **given})
        np.testing.assert_array_equal(some, plain)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("level", LEVELS)
def test_ends_are_the_references(level, temperature):
    logits = normals(4, N)
    ended = ops.done_sample(logits, 0.2, temperature, **IDS, backend=level)
    assert ended.dtype == np.bool_
    assert 0 < ended.sum() < N
    np.testing.assert_array_equal(ended, reference.done_sample(logits, 0.2, temperature, **IDS))
    tensor = ops.done_sample(torch.from_numpy(logits), 0.2, temperature, **IDS)
    assert tensor.dtype == torch.bool
    np.testing.assert_array_equal(ended, tensor.numpy())


def test_ends_are_as_frequent_as_the_logit_says():
    n = 200_000
    for logit in (-2.0, 0.3):
        ended = ops.done_sample(np.full(n, logit, np.float32), 0.5, 2.0, seed=1)
        p = reference.sigmoid((logit - 0.5) / 2.0)
        assert abs(ended.mean() - p) < 4 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("level", LEVELS)
def test_ends_of_logits_that_are_not_finite(level, temperature):
    logits = np.array(NOT_FINITE, np.float32)
    ended = ops.done_sample(logits, 0.0, temperature, backend=level)
    np.testing.assert_array_equal(ended, [False, True, False])
    np.testing.assert_array_equal(ended, reference.done_sample(logits, 0.0, temperature))


@pytest.mark.parametrize("z", [1, 5, 16, 33])
def test_first_latents_are_the_references_on_every_level(z):
    mu, logvar = normals(5, 7, z), normals(6, 7, z)
    first = {level: ops.initial_latents(mu, logvar, N, seed=3, backend=level) for level in LEVELS}
    expected = reference.initial_latents(mu, logvar, N, seed=3)
    for drawn in first.values():
        assert drawn.shape == (N, z)
        np.testing.assert_array_equal(drawn, first[LEVELS[0]])
        np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-5)
    own = {"seed": SEEDS, "rollout": ROLLOUTS}
    np.testing.assert_allclose(
        ops.initial_latents(mu, logvar, N, **own),
        reference.initial_latents(mu, logvar, N, **own),
        rtol=1e-5,
        atol=1e-5,
    )
    assert isinstance(ops.initial_latents(torch.tensor(mu), torch.tensor(logvar), 2), torch.Tensor)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"seed": np.zeros(N)}, TypeError, "seed: expected an integer or integers"),
        ({"seed": 0.0}, TypeError, "seed: expected an integer, got 0.0"),
        ({"rollout": np.zeros(N - 1, int)}, ValueError, r"rollout: .* shape \(40,\), got \(39,\)"),
        ({"step": np.full(N, 2**32)}, ValueError, r"step: expected integers from 0 to 2\*\*32 - 1"),
        ({"seed": np.full(N, -1)}, ValueError, r"seed: expected integers from 0 .* got -1"),
        ({"rollout": 2**32 - N + 1, "step": STEPS}, ValueError, "rollout: expected 0 <="),
        ({"rollout": 2**32 - N + 1}, ValueError, r"rollout: expected rollout \+ N"),
    ],
)
def test_bad_noise_is_named(change, error, message):
    with pytest.raises(error, match=message):
        ops.mixture_sample(*mixtures(), 1.0, **change)
    with pytest.raises(error, match=message):
        ops.done_sample(normals(0, N), **change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"done_logit": np.zeros(3)}, TypeError, "done_logit: expected a float32 array"),
        ({"done_logit": np.zeros((3, 1), "f4")}, ValueError, "done_logit: .* got shape"),
        ({"done_threshold": np.nan}, ValueError, "done_threshold: expected a number, got nan"),
        ({"done_temperature": -1}, ValueError, "done_temperature: expected a finite number"),
        ({"done_temperature": np.nan}, ValueError, "done_temperature: expected a finite number"),
        ({"done_temperature": "1"}, TypeError, "done_temperature: expected a finite number"),
        ({"backend": "cuda9"}, ValueError, "backend: expected one of"),
    ],
)
def test_bad_ends_are_named(change, error, message):
    arguments = {"done_logit": np.zeros(3, np.float32), **change}
    with pytest.raises(error, match=message):
        ops.done_sample(**arguments)


def test_bad_first_latents_are_named():
    mu = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"initial_logvar: .* got shape"):
        ops.initial_latents(mu, mu[:1], 4)
    with pytest.raises(ValueError, match="initial_mu: expected finite numbers, got nan"):
        ops.initial_latents(mu * np.nan, mu, 4)
    with pytest.raises(ValueError, match="n: expected"):
        ops.initial_latents(mu, mu, 0)


# --- numbers that are not finite: the kernels' results are the reference's ------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_mixtures_that_are_not_finite(level):
    """A NaN in the log deviation once gave numbers near exp(10)."""
    rng = np.random.default_rng(1)
    parts = mixtures(2000, 5)
    for part in parts:
        kind = rng.random(part.shape)
        for i, value in enumerate(NOT_FINITE):
            part[(kind > 0.05 * i) & (kind < 0.05 * (i + 1))] = value
    drawn = ops.mixture_sample(*parts, 0.8, seed=3, backend=level)
    expected = reference.mixture_sample(*parts, 0.8, seed=3)
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(drawn), np.isinf(expected))
    assert 0.2 < np.isnan(expected).mean() < 0.9
    assert np.isinf(expected).any()
    nan = [np.full((1, 1, 1), value, np.float32) for value in (0.0, 0.0, np.nan)]
    assert np.isnan(ops.mixture_sample(*nan, 1.0, backend=level)).all()


@pytest.mark.parametrize(("level", "precision"), COMBINATIONS)
def test_steps_that_are_not_finite(level, precision):
    weights = random_weights(5, 2, 9, 3, True, reward=True)
    model = ops.pack_mdn_rnn(weights, backend=level, precision=precision)
    for name in ("z", "action", "h", "c", "restart"):
        for value in NOT_FINITE:
            inputs = {
                "z": normals(1, 3, 5),
                "action": normals(2, 3, 2),
                "h": np.tanh(normals(3, 3, 9)),
                "c": normals(4, 3, 9),
                "restart": np.array([1, 0, 0], np.float32),
            }
            inputs[name].reshape(3, -1)[1, -1] = value
            got = ops.mdn_rnn_step(model, **inputs)
            with np.errstate(all="ignore"):
                expected = reference.mdn_rnn_step(weights, **inputs, precision=precision)
            for field in got._fields:
                ours, theirs = getattr(got, field), getattr(expected, field)
                np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), f"{name} {field}")
                assert np.isfinite(ours[[0, 2]]).all()


@pytest.mark.parametrize("level", LEVELS)
def test_controllers_of_features_that_are_not_finite(level):
    weights = random_weights(5, 2, 9, 3, True)
    spec = random_spec(weights, hidden_units=4)
    params = normals(5, 1, spec.n_params)
    for name in ("z", "h", "c"):
        for value in NOT_FINITE:
            seen = {"z": normals(1, 3, 5), "h": normals(2, 3, 9), "c": normals(3, 3, 9)}
            seen[name][1, 1] = value
            got = ops.controller_forward(spec, params, **seen, backend=level)
            expected = reference.controller_forward(spec, params, **seen)
            np.testing.assert_allclose(got, expected, atol=1e-5, equal_nan=True)
            assert np.isnan(got[1]).all() == np.isnan(value)

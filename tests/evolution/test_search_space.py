import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_episodes import made_up_latents
from small_runs import TOY, small_config, write_small_run
from small_worlds import small_mdn_rnn

from worldmodels_fast import World, envs, ops
from worldmodels_fast.evolution.cma import load_means
from worldmodels_fast.evolution.search_space import (
    LEAST_SHARE,
    LEAST_SPREAD,
    TAKEN_OUT,
    FeatureStatistics,
    SearchSpace,
    feature_statistics,
)
from worldmodels_fast.experiments.config import ControllerConfig
from worldmodels_fast.experiments.pipeline import run_stage
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.training.config import RNNConfig

SIZES = {"z": 4, "h": 8, "c": 8}


def made_up_statistics(rng, mean=1.0):
    return {
        name: FeatureStatistics(
            mean * rng.normal(size=size).astype(np.float32),
            rng.uniform(0.2, 3, size).astype(np.float32),
            rng.uniform(0.1, 1, size).astype(np.float32),
        )
        for name, size in SIZES.items()
    }


@given(
    features=st.permutations(["z", "h", "c"]).flatmap(
        lambda order: st.integers(1, 3).map(lambda n: tuple(order[:n]))
    ),
    bias=st.booleans(),
    hidden_units=st.sampled_from([0, 3]),
    action_dim=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_a_step_moves_the_action_alike_through_every_feature(
    features, bias, hidden_units, action_dim, seed
):
    controller = LinearController(
        features,
        latent_dim=4,
        hidden_dim=8,
        action_dim=action_dim,
        bias=bias,
        hidden_units=hidden_units,
    )
    rng = np.random.default_rng(seed)
    statistics = made_up_statistics(rng)
    space = SearchSpace(controller.spec, statistics)
    n, width = controller.n_params, hidden_units or action_dim
    inputs = sum(SIZES[name] for name in features)
    first = width if bias else 0
    matrix = space(np.eye(n, dtype=np.float32)).astype(np.float64).T  # parameters = matrix @ u
    # What sees no feature is left alone, and nothing else reaches it.
    others = [i for i in range(n) if not first <= i < first + inputs * width]
    np.testing.assert_array_equal(matrix[np.ix_(others, others)], np.eye(len(others)))
    assert not matrix[others, first : first + inputs * width].any()
    # W of one output for each of its u, (inputs, inputs); outputs do not mix.
    block = matrix[first : first + inputs * width, first : first + inputs * width]
    block = block.reshape(inputs, width, inputs, width)
    for k in range(width):
        np.testing.assert_allclose(block[:, k, :, k], block[:, 0, :, 0], rtol=1e-6)
        assert not block[:, k, :, (k + 1) % width].any() or width == 1
    mean, spread, share = (
        np.concatenate([getattr(statistics[name], part) for name in features])
        for part in ("mean", "spread", "share")
    )
    step = share / spread
    axis = step * mean / np.linalg.norm(step * mean)
    expected = step[:, None] * (np.eye(inputs) - TAKEN_OUT * np.outer(axis, axis))
    np.testing.assert_allclose(block[:, 0, :, 0], expected, rtol=1e-4, atol=1e-5)
    # So the features' means move an action by a tenth of what they would.
    moved = np.linalg.norm(mean @ block[:, 0, :, 0])
    assert moved == pytest.approx((1 - TAKEN_OUT) * np.linalg.norm(mean * step), rel=1e-3)


def test_without_means_every_feature_moves_an_action_by_its_share():
    controller = LinearController(("z", "h"), latent_dim=4, hidden_dim=8, action_dim=1)
    statistics = made_up_statistics(np.random.default_rng(1), mean=0.0)
    params = SearchSpace(controller.spec, statistics)(np.ones((1, 12), np.float32))[0]
    spread, share = (
        np.concatenate([getattr(statistics[name], part) for name in ("z", "h")])
        for part in ("spread", "share")
    )
    np.testing.assert_allclose(params * spread, share, rtol=1e-5)


def test_idle_features_are_not_blown_up():
    controller = LinearController(("z", "h"), latent_dim=4, hidden_dim=8, action_dim=1)
    nothing = {
        name: FeatureStatistics(*(np.zeros(n, np.float32),) * 3) for name, n in SIZES.items()
    }
    params = SearchSpace(controller.spec, nothing)(np.ones((1, 12), np.float32))[0]
    np.testing.assert_allclose(params[:4], LEAST_SHARE / LEAST_SPREAD["z"], rtol=1e-6)
    np.testing.assert_allclose(params[4:], LEAST_SHARE / LEAST_SPREAD["h"], rtol=1e-6)


def test_a_wider_memory_is_seen_in_its_second_half():
    spec = LinearController(("h",), latent_dim=4, hidden_dim=8, action_dim=1).spec
    spread = np.arange(1, 17, dtype=np.float32)
    wide = {"h": FeatureStatistics(np.zeros(16, np.float32), spread, np.ones(16, np.float32))}
    params = SearchSpace(spec, wide)(np.ones((1, 8), np.float32))[0]
    np.testing.assert_allclose(params, 1 / spread[8:])


@pytest.mark.parametrize("latent", ["sample", "mu"])
def test_statistics_are_those_of_what_was_played(latent):
    latents = made_up_latents([40, 30, 50, 60], 4, seed=3)
    model = small_mdn_rnn(seed=1)
    found = feature_statistics(model, latents, RNNConfig(batch=1, chunk=1, latent=latent))
    noise = np.exp(latents.logvar.astype(np.float64)).mean(0) * (latent == "sample")
    mu = latents.mu.astype(np.float64)
    np.testing.assert_allclose(found["z"].mean, mu.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["z"].spread, np.sqrt(mu.var(0) + noise), rtol=1e-3)
    np.testing.assert_allclose(found["z"].share, mu.var(0) / (mu.var(0) + noise), rtol=1e-3)
    # h and c of M over the same episodes, one after the other, by M itself.
    h, c = [], []
    with torch.no_grad():
        for start, length in zip(latents.starts, latents.lengths, strict=True):
            state = None
            for t in range(start, start + length):
                z = torch.from_numpy(latents.mu[t].astype(np.float32))[None, None]
                action = torch.from_numpy(latents.actions[t])[None, None]
                output = model(z, action, state, torch.full((1, 1), float(t == start)))
                state = output.h, output.c
                h.append(output.h[0].numpy())
                c.append(output.c[0].numpy())
    for name, values in (("h", h), ("c", c)):  # one step, the last of all, is not played
        np.testing.assert_allclose(found[name].mean, np.mean(values, 0), rtol=0.02, atol=2e-3)
        np.testing.assert_allclose(found[name].spread, np.std(values, 0), rtol=0.02)
        assert (found[name].share == 1).all()


@pytest.mark.parametrize("name", ["quick", "z-only", "z-hidden"])
def test_car_racing_begins_with_actions_as_large_as_in_a_plain_search(name):
    rng = np.random.default_rng(0)
    # A quarter of V's dimensions say nothing.
    share = np.where(np.arange(32) < 24, 0.95, 0.02)
    statistics = {
        "z": FeatureStatistics(np.zeros(32, np.float32), np.ones(32, np.float32), share),
        "h": FeatureStatistics(
            rng.normal(0, 0.2, 256).astype(np.float32),
            np.full(256, 0.2, np.float32),
            np.ones(256, np.float32),
        ),
    }
    config = make_recipe(f"car-racing-{name}")
    spec = config.controller_spec()
    directions = rng.standard_normal((64, spec.n_params)).astype(np.float32)
    z = rng.standard_normal((100, 32)).astype(np.float32)
    h = statistics["h"].mean + 0.2 * rng.standard_normal((100, 256)).astype(np.float32)

    def swing(population):
        """How far a member's steering swings, on average."""
        seen = [
            (np.tile(z[t], (64, 1)), np.tile(h[t], (64, 1)) if "h" in spec.features else None)
            for t in range(len(z))
        ]
        actions = np.stack([ops.controller_forward(spec, population, *s, None) for s in seen])
        return actions[..., 0].std(axis=0).mean()

    found = swing(SearchSpace(spec, statistics)(config.evolve.sigma0 * directions))
    assert 0.7 < found / swing(0.1 * directions) < 1.3


@pytest.mark.parametrize("memory", ["trained", "untrained"])
def test_a_run_evolves_in_it_and_keeps_what_the_controller_sees(tmp_path, monkeypatch, memory):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)
    controller = ControllerConfig(memory=memory, search="features")
    run = write_small_run(tmp_path, dataclasses.replace(small_config(), controller=controller))
    run_stage("evolve", run)
    evolved = World.load(run.world).controller.flat.detach().numpy()
    generation = run.record("evolve")["figures"]["from_generation"]
    mean = load_means(tmp_path / "means.safetensors")[generation]
    _, _, made = run.player()
    np.testing.assert_allclose(evolved, made(mean[None])[0], rtol=2e-3, atol=1e-6)  # 16 bits
    plain = dataclasses.replace(run.config, controller=ControllerConfig(memory=memory))
    _, _, as_is = dataclasses.replace(run, config=plain).player()
    assert not np.allclose(evolved, as_is(mean[None])[0], rtol=0.1)

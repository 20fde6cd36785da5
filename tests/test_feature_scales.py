import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_episodes import made_up_latents
from small_worlds import small_mdn_rnn

from worldmodels_fast.controller import LinearController
from worldmodels_fast.feature_scales import (
    LEAST_SHARE,
    LEAST_SPREAD,
    feature_spreads,
    parameter_scales,
)
from worldmodels_fast.training import RNNConfig

SIZES = {"z": 4, "h": 8, "c": 8}


@given(
    features=st.permutations(["z", "h", "c"]).flatmap(
        lambda order: st.integers(1, 3).map(lambda n: tuple(order[:n]))
    ),
    bias=st.booleans(),
    hidden_units=st.sampled_from([0, 3]),
    action_dim=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_feature_moves_what_it_feeds_alike(features, bias, hidden_units, action_dim, seed):
    controller = LinearController(
        features,
        latent_dim=4,
        hidden_dim=8,
        action_dim=action_dim,
        bias=bias,
        hidden_units=hidden_units,
    )
    rng = np.random.default_rng(seed)
    spreads = {
        name: (
            rng.uniform(0.2, 3, size).astype(np.float32),
            np.linspace(0.1, 1, size, dtype=np.float32),
        )
        for name, size in SIZES.items()
    }
    scales = parameter_scales(controller.spec, spreads)
    assert scales.shape == (controller.n_params,)
    # One feature at a time, a standard deviation off: how far does the first layer's output move?
    width = hidden_units or action_dim
    first = scales[width:] if bias else scales
    first = first[: sum(SIZES[name] for name in features) * width].reshape(-1, width)
    moved = np.concatenate([spreads[name][0] for name in features])[:, None] * first
    share = np.concatenate([spreads[name][1] for name in features])[:, None]
    np.testing.assert_allclose(moved, np.broadcast_to(share, moved.shape), rtol=1e-5)
    rest = np.concatenate([scales[:width] if bias else [], scales[first.size + bias * width :]])
    assert (rest == 1).all()


def test_idle_features_are_not_blown_up():
    controller = LinearController(("z", "h"), latent_dim=4, hidden_dim=8, action_dim=1)
    nothing = {
        name: (np.zeros(n, np.float32), np.zeros(n, np.float32)) for name, n in SIZES.items()
    }
    scales = parameter_scales(controller.spec, nothing)
    np.testing.assert_allclose(scales[:4], LEAST_SHARE / LEAST_SPREAD["z"], rtol=1e-6)
    np.testing.assert_allclose(scales[4:], LEAST_SHARE / LEAST_SPREAD["h"], rtol=1e-6)


def test_a_wider_memory_is_seen_in_its_second_half():
    spec = LinearController(("h",), latent_dim=4, hidden_dim=8, action_dim=1).spec
    spread = np.arange(1, 17, dtype=np.float32)
    wide = {"h": (spread, np.ones(16, np.float32))}
    np.testing.assert_allclose(parameter_scales(spec, wide), 1 / spread[8:])


@pytest.mark.parametrize("latent", ["sample", "mu"])
def test_spreads_are_those_of_what_was_played(latent):
    latents = made_up_latents([40, 30, 50, 60], 4, seed=3)
    model = small_mdn_rnn(seed=1)
    config = RNNConfig(batch=1, chunk=1, latent=latent)
    spreads = feature_spreads(model, latents, config)
    noise = np.exp(latents.logvar.astype(np.float64)).mean(0) * (latent == "sample")
    signal = latents.mu.astype(np.float64).var(0)
    np.testing.assert_allclose(spreads["z"][0], np.sqrt(signal + noise), rtol=1e-3)
    np.testing.assert_allclose(spreads["z"][1], signal / (signal + noise), rtol=1e-3)
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
    # The last step is not played by either; with z sampled, it is close, not equal.
    tolerance = 0.02 if latent == "mu" else 0.5
    np.testing.assert_allclose(spreads["h"][0], np.std(h, 0), rtol=tolerance)
    np.testing.assert_allclose(spreads["c"][0], np.std(c, 0), rtol=tolerance)

"""V, M and C of many slots on one device, beside `Players`; on the CPU too, where torch has it."""

import numpy as np
import pytest
import torch
from small_worlds import small_world

from worldmodels_fast import ops
from worldmodels_fast.rollout import device_players
from worldmodels_fast.rollout.device_players import DevicePlayers
from worldmodels_fast.rollout.episodes import Episode
from worldmodels_fast.rollout.game import Game
from worldmodels_fast.rollout.players import Players

WHY = ops.why_no_cuda() or ("" if torch.cuda.is_available() else "torch has no CUDA")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(bool(WHY), reason=f"no CUDA device: {WHY}")],
    ),
]
SLOTS = 6


def frames(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)


def play(players, params, order, steps=5):
    """Some steps of all slots, in groups of two; actions of each (steps, slots, A)."""
    for slot in range(SLOTS):
        players.begin(slot, params[slot], np.random.default_rng(slot))
    actions = np.zeros((steps, SLOTS, 1), np.float32)
    for t in range(steps):
        seen = frames(SLOTS, t)
        for begin in range(0, SLOTS, 2):
            slots = np.array(order[begin : begin + 2])
            z, actions[t, slots] = players.act(slots, seen[slots])
            players.remember(slots, z, actions[t, slots])
    return actions


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("latent", ["sample", "mu"])
def test_actions_are_those_of_players(device, latent):
    world = small_world()
    parts = (world.vae, world.mdn_rnn, world.controller.spec, SLOTS)
    n_params = world.controller.n_params
    params = np.random.default_rng(1).normal(size=(SLOTS, n_params)).astype(np.float32)
    order = [3, 0, 5, 1, 4, 2]
    expected = play(Players(*parts, latent=latent), params, order)
    got = play(DevicePlayers(*parts, latent=latent, device=device), params, order)
    assert np.abs(got - expected).max() < 2e-3  # V's convolutions are rounded otherwise
    assert np.abs(np.diff(expected, axis=0)).max() > 0.01
    again = play(DevicePlayers(*parts, latent=latent, device=device), params, order[::-1])
    assert np.abs(got - again).max() < (1e-5 if device == "cpu" else 1e-30)


@pytest.mark.parametrize("device", DEVICES)
def test_a_controller_of_z_alone_needs_no_m(device):
    world = small_world()
    spec = ops.ControllerSpec(("z",), 4, 8, 1, bias=True)
    players = DevicePlayers(world.vae, None, spec, 2, device=device, vae_precision="bf16")
    players.begin(0, np.ones(spec.n_params, np.float32), np.random.default_rng(0))
    slots = np.array([0])
    z, actions = players.act(slots, frames(1))
    players.remember(slots, z, actions)
    assert actions.shape == (1, 1)
    assert isinstance(actions, np.ndarray)
    assert actions.dtype == np.float32


def test_settings_and_order_are_checked():
    world = small_world()
    parts = (world.vae, world.mdn_rnn, world.controller.spec, 2)
    with pytest.raises(ValueError, match="latent: expected"):
        DevicePlayers(*parts, latent="mean", device="cpu")
    with pytest.raises(ValueError, match="vae_precision: expected"):
        DevicePlayers(*parts, vae_precision="fp8", device="cpu")
    with pytest.raises(ValueError, match="device: expected"):
        DevicePlayers(*parts, device="tpu")
    players = DevicePlayers(*parts, device="cpu")
    with pytest.raises(ValueError, match="slots: expected those of the last `act`"):
        players.remember(np.array([0]), None, None)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_game_asks_its_device(crashes, monkeypatch, tmp_path):
    """The CPU stands in for the device; frames and actions go the same ways."""

    def on_the_cpu(*parts, device, **settings):
        assert device == "cuda"
        return DevicePlayers(*parts, device="cpu", **settings)

    monkeypatch.setattr(device_players, "DevicePlayers", on_the_cpu)
    world = small_world()
    n_params = world.controller.n_params
    population = np.random.default_rng(0).normal(size=(3, n_params)).astype(np.float32)
    episodes = [Episode(env_seed=100 + i, player_seed=200 + i, member=i % 3) for i in range(9)]
    settings = {"env_kwargs": {"pays_actions": True}, "workers": 2, "slots": 5}
    told = {}

    def on_step(place, step, frame, action, reward):
        told[place] = told.get(place, 0) * (step > 0) + 1
        assert frame.shape == (64, 64, 3)
        assert float(action[0]) == reward

    with world.game("toy_game:Toy-v0", **settings) as game:
        expected = game.play(population, episodes)
    if crashes:
        settings["env_kwargs"]["crash_once"] = str(tmp_path / "crashed")
    parts = (world.vae, world.mdn_rnn, world.controller, "toy_game:Toy-v0")
    with Game(*parts, **settings, device="cuda") as game:
        if crashes:
            with pytest.warns(RuntimeWarning, match="playing again"):
                results = game.play(population, episodes, on_step=on_step)
        else:
            results = game.play(population, episodes, on_step=on_step)
    for place, (got, e) in enumerate(zip(results, expected, strict=True)):
        assert got.steps == e.steps == told[place]
        assert got.score == pytest.approx(e.score, abs=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(bool(WHY), reason=f"no CUDA device: {WHY}")
def test_real_episodes_on_the_device():
    world = small_world()
    n_params = world.controller.n_params
    population = np.random.default_rng(0).normal(size=(3, n_params)).astype(np.float32)
    episodes = [Episode(env_seed=100 + i, player_seed=200 + i, member=i % 3) for i in range(9)]
    settings = {"env_kwargs": {"pays_actions": True}, "workers": 2, "slots": 4}
    with world.game("toy_game:Toy-v0", **settings) as game:
        expected = game.play(population, episodes)
    parts = (world.vae, world.mdn_rnn, world.controller, "toy_game:Toy-v0")
    with Game(*parts, **settings, device="cuda") as game:
        results = game.play(population, episodes)
        # Beside other episodes, in other slots: the same bits.
        assert game.play(population, episodes[4:5]) == results[4:5]
    for got, e in zip(results, expected, strict=True):
        assert got.steps == e.steps
        assert got.score == pytest.approx(e.score, abs=0.05)

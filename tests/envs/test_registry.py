"""The registered environments: limits as Gymnasium's own, and Gymnasium's checks."""

import json
import os
import warnings
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.passive_env_checker import env_render_passive_checker

from worldmodels_fast import envs
from worldmodels_fast.evaluation.evaluate import _environment_settings

TAKE_COVER = "worldmodels_fast/TakeCover-v0"
LIMITS = {
    TAKE_COVER: 2100,
    "worldmodels_fast/CarRacing-v0": 1000,
    "worldmodels_fast/CarRacing64-v0": 1000,
    "worldmodels_fast/GymnasiumCarRacing64-v0": 1000,
}


def length(env, seed=0):
    """Steps of an episode of standing still, and how it ended."""
    env.reset(seed=seed)
    still = np.zeros(env.action_space.shape, np.float32)
    steps, ends = 0, (False, False)
    while not any(ends):
        _, _, *ends, _ = env.step(still)
        steps += 1
    env.close()
    return steps, ends


@pytest.mark.parametrize("env_id", list(LIMITS))
def test_the_registration_holds_the_limit_and_make_changes_it(env_id):
    assert gymnasium.spec(env_id).max_episode_steps == LIMITS[env_id]
    assert length(gymnasium.make(env_id, max_episode_steps=6)) == (6, [False, True])
    # An environment's own limit ends an episode before the registered one.
    assert length(gymnasium.make(env_id, max_steps=4)) == (4, [False, True])
    env = gymnasium.make(env_id, max_episode_steps=1200)
    assert env.spec.max_episode_steps == 1200
    env.close()


def test_an_episode_longer_than_registered():
    env_id = "worldmodels_fast/CarRacing64-v0"
    assert length(gymnasium.make(env_id)) == (1000, [False, True])
    assert length(gymnasium.make(env_id, max_episode_steps=1003)) == (1003, [False, True])
    # Runs and worlds state their limit by the environment's argument alone.
    assert length(envs.make_environment(env_id, max_steps=1003)) == (1003, [False, True])
    assert length(envs.make_environment(env_id, max_steps=5)) == (5, [False, True])
    both = envs.make_environment(env_id, max_steps=1003, max_episode_steps=8)
    assert length(both) == (8, [False, True])
    assert envs.make_environment("CartPole-v1").spec.max_episode_steps == 500


def test_take_covers_limit_is_gymnasiums(monkeypatch):
    env = gymnasium.make(TAKE_COVER)
    assert env.unwrapped.max_steps is None
    assert env.spec.max_episode_steps == 2100
    env.close()


PRETRAINED = Path(envs.__file__).parents[1] / "pretrained"


@pytest.mark.parametrize("world", ["take-cover", "car-racing"])
def test_limits_are_recorded_as_before(world):
    """Progress files that were begun before go on: they name the limit as `max_steps`."""
    evaluation = json.loads((PRETRAINED / world / "evaluation.json").read_text(encoding="utf-8"))
    env_kwargs = json.loads((PRETRAINED / world / "config.json").read_text(encoding="utf-8"))[
        "env_kwargs"
    ]
    before = [player["settings"] for player in evaluation.values() if "settings" in player]
    assert before
    for settings in before:
        now = _environment_settings(settings["env_id"], env_kwargs, 0)["environment"]
        assert now == settings["environment"]


def test_limits_are_recorded_wherever_they_come_from():
    def recorded(**env_kwargs):
        return _environment_settings(TAKE_COVER, env_kwargs, 0)["environment"]["max_steps"]

    assert recorded() == recorded(max_steps=None) == 2100
    assert recorded(max_steps=3) == 3
    assert recorded(max_episode_steps=4) == 4


@pytest.mark.parametrize("env_id", list(LIMITS))
def test_gymnasium_finds_nothing_wrong(env_id):
    env = gymnasium.make(env_id)
    # "human" needs a display for Doom, and pygame's dummy one for CarRacing.
    doom = env_id == TAKE_COVER
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=doom)
        if doom:
            pictures = gymnasium.make(env_id, render_mode="rgb_array")
            pictures.reset(seed=0)
            env_render_passive_checker(pictures)
            pictures.close()
    env.close()


def test_gymnasiums_check_of_the_window_without_a_display_is_an_error(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    env = gymnasium.make(TAKE_COVER)
    with pytest.raises(RuntimeError, match='"human" needs a display'):
        check_env(env.unwrapped)
    env.close()


def test_specs_name_environments_that_can_be_made():
    for name, spec in envs.ENVIRONMENTS.items():
        assert spec.env_id in gymnasium.registry
        assert gymnasium.spec(spec.env_id).max_episode_steps == spec.max_steps
        assert gymnasium.spec(spec.env_id).reward_threshold == spec.solved_score
        assert envs.spec_of({"environment": name}) == spec
    with pytest.raises(ValueError, match=r"environment: .* take-cover, got 'pong'"):
        envs.spec_of({"environment": "pong"})

"""The real game through ViZDoom, which runs at thousands of tics a second."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from worldmodels_fast import envs
from worldmodels_fast.envs.take_cover import TakeCoverEnv

ID = "worldmodels_fast/TakeCover-v0"
LEFT, STILL, RIGHT = (np.array([a], np.float32) for a in (-1, 0, 1))


@pytest.fixture
def make():
    made = []

    def make_env(**settings):
        made.append(gymnasium.make(ID, **settings))
        return made[-1]

    yield make_env
    for env in made:
        env.close()


def play(env, seed, steps=40):
    """Frames of the first steps under a swinging player; fewer if he dies."""
    frames = [env.reset(seed=seed)[0]]
    for t in range(steps):
        frame, _, terminated, truncated, _ = env.step(LEFT if t // 10 % 2 else RIGHT)
        frames.append(frame)
        if terminated or truncated:
            break
    return np.stack(frames)


def in_another_process(seed):
    env = gymnasium.make(ID)
    try:
        return play(env, seed)
    finally:
        env.close()


def engines():
    """Process ids of the Doom engines whose processes this process has started."""
    parents, found = {}, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
        state, parent = rest.split()[:2]
        parents[int(stat.parent.name)] = int(parent)
        if name == "vizdoom" and state != "Z":
            found.append(int(stat.parent.name))
    return [engine for engine in found if parents.get(parents[engine]) == os.getpid()]


def test_a_seed_is_a_game(make):
    env = make()
    first = play(env, 3)
    assert len(first) > 20
    assert first.std() > 5
    np.testing.assert_array_equal(first, play(env, 3))
    assert not np.array_equal(first, play(env, 4))
    np.testing.assert_array_equal(first, play(make(), 3))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(first, pool.apply(in_another_process, (3,)))


def test_without_a_seed_games_differ(make):
    env = make()
    env.reset(seed=0)
    lengths = []
    for _ in range(4):
        env.reset()
        steps, terminated = 0, False
        while not terminated and steps < 400:
            _, _, terminated, _, _ = env.step(STILL)
            steps += 1
        lengths.append(steps)
    assert len(set(lengths)) > 1


def test_an_episode_ends_with_death(make):
    env = make()
    _, info = env.reset(seed=0)
    assert info == {"health": 100.0, "skill": 4}
    terminated = truncated = False
    steps = 0
    while not (terminated or truncated):
        frame, reward, terminated, truncated, info = env.step(STILL)
        assert reward == 1.0
        steps += 1
    assert terminated
    assert not truncated
    assert 50 < steps < 1000  # 162 +- 53 are usual
    assert info["health"] <= 0
    assert frame.shape == (64, 64, 3)
    with pytest.raises(RuntimeError, match="reset"):
        env.unwrapped.step(STILL)


def test_an_episode_is_cut_at_max_steps(make):
    env = make(max_steps=7)
    env.reset(seed=0)
    ends = [env.step(STILL)[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]
    with pytest.raises(RuntimeError, match="reset"):
        env.unwrapped.step(STILL)
    env.reset()
    assert env.step(STILL)[3] is False


def test_actions_have_thresholds(make):
    env = make(resolution="320x240", render_mode="rgb_array")

    def after(action):
        env.reset(seed=1)
        for _ in range(8):
            env.step(np.array([action], np.float32))
        return env.render().copy()

    left, still, right = after(-1), after(0), after(1)
    assert not np.array_equal(left, still)
    assert not np.array_equal(right, still)
    assert not np.array_equal(left, right)
    np.testing.assert_array_equal(after(-0.34), left)
    np.testing.assert_array_equal(after(-0.33), still)
    np.testing.assert_array_equal(after(0.33), still)
    np.testing.assert_array_equal(after(0.34), right)


def test_the_observation_is_the_screen_without_its_lowest_sixth(make):
    env = make(render_mode="rgb_array", frame_size=32)
    frame, _ = env.reset(seed=0)
    screen = env.render()
    assert screen.shape == (120, 160, 3)
    assert screen.dtype == np.uint8
    visible = Image.fromarray(screen[:100])
    expected = np.array(visible.resize((32, 32), Image.Resampling.BOX))
    np.testing.assert_array_equal(frame, expected)
    assert make().unwrapped.render() is None


def test_skill_makes_it_harder(make):
    def survival(skill):
        env = make(skill=skill)
        lengths = []
        for seed in range(5):
            env.reset(seed=seed)
            steps, terminated = 0, False
            while not terminated and steps < 600:
                _, _, terminated, _, info = env.step(STILL)
                steps += 1
            lengths.append(steps)
        assert info["skill"] == skill
        return np.mean(lengths)

    assert survival(5) < survival(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skill": 0}, "skill: expected 1 <= skill < 6, got 0"),
        ({"skill": 6}, "skill"),
        ({"skill": 4.5}, "skill: expected an integer, got 4.5"),
        ({"skill": True}, "skill"),
        ({"resolution": "64x64"}, "resolution: .*160x120.*, got '64x64'"),
        ({"frame_size": 0}, "frame_size"),
        ({"frame_size": np.float32(64)}, "frame_size"),
        ({"frame_size": np.True_}, "frame_size"),
        ({"max_steps": 0}, "max_steps: expected at least 1, got 0"),
        ({"max_steps": 2.5}, "max_steps: expected an integer, got 2.5"),
        ({"max_steps": True}, "max_steps"),
        ({"render_mode": "ansi"}, "render_mode: expected 'human' or 'rgb_array', got 'ansi'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TakeCoverEnv(**settings)


def test_numpys_integers_are_integers():
    env = TakeCoverEnv(skill=np.int8(3), frame_size=np.uint16(32), max_steps=np.int64(100))
    settings = (env.skill, env.frame_size, env.max_steps)
    assert settings == (3, 32, 100)
    assert {type(setting) for setting in settings} == {int}
    assert env.observation_space.shape == (32, 32, 3)


@pytest.mark.parametrize("action", [np.zeros(2, np.float32), np.array([np.nan]), 0.5])
def test_bad_actions_are_named(make, action):
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: .*shape \(1,\)"):
        env.step(action)
    env.step(STILL)  # nothing is broken by it


def test_step_before_reset():
    with pytest.raises(RuntimeError, match="reset"):
        TakeCoverEnv().step(STILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the engine in /proc")
def test_a_killed_engine_is_an_error_and_reset_starts_another(make):
    env = make()
    expected = play(env, 5, steps=3)
    env.step(STILL)
    (engine,) = engines()
    os.kill(engine, 9)
    with pytest.raises(RuntimeError, match=r"engine stopped in tic \d+ \(ViZDoom.*reset\(\)"):
        env.step(STILL)
    assert engines() == []
    with pytest.raises(RuntimeError, match="reset"):
        env.unwrapped.step(STILL)
    np.testing.assert_array_equal(play(env, 5, steps=3), expected)
    # Dead between two episodes: nobody needs to know.
    (engine,) = engines()
    os.kill(engine, 9)
    np.testing.assert_array_equal(play(env, 5, steps=3), expected)
    env.close()
    assert engines() == []


def test_nothing_is_left_where_it_was_started(tmp_path):
    code = (
        "import gymnasium, tempfile, worldmodels_fast\n"
        f"env = gymnasium.make({ID!r})\n"
        "env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "env.close()\n"
    )
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    paths = os.pathsep.join([str(Path(envs.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", code], cwd=here, env=env, check=True, timeout=120)
    assert list(here.iterdir()) == []
    assert list(temporary.glob("take-cover-*")) == []


def test_several_games_in_parallel_processes():
    games = gymnasium.make_vec(ID, num_envs=3, vectorization_mode="async")
    try:
        frames, _ = games.reset(seed=[1, 2, 1])
        assert frames.shape == (3, 64, 64, 3)
        differ = False
        for _ in range(60):
            frames, rewards, *_ = games.step(np.array([[1], [1], [1]], np.float32))
            np.testing.assert_array_equal(frames[0], frames[2])
            differ = differ or not np.array_equal(frames[0], frames[1])
        assert rewards.tolist() == [1, 1, 1]
        assert differ
    finally:
        games.close()

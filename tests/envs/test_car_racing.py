"""Our CarRacing against Gymnasium's: the same game, but for who draws it."""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import copy
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from worldmodels_fast import envs
from worldmodels_fast.data.collect import play_episode
from worldmodels_fast.envs import car_racing
from worldmodels_fast.envs.car_racing import CarRacing, CarRacingEnv
from worldmodels_fast.envs.gymnasium_car_racing import GymnasiumCarRacing64Env, crop_and_shrink
from worldmodels_fast.envs.policies import make_policy
from worldmodels_fast.envs.squash import CAR_RACING_SQUASH

ID = "worldmodels_fast/CarRacing-v0"
SMALL_ID = "worldmodels_fast/CarRacing64-v0"
AHEAD = np.array([0, 0.5, 0], np.float32)


class WithoutDrawing(CarRacing):
    """Gymnasium's physics alone: drawing changes nothing in it."""

    def _render(self, mode):
        return None


def numbers(env):
    """All that physics and rewards depend on, and the skid marks."""
    car = env.car
    found = [env.t, env.reward, env.prev_reward, env.tile_visited_count, car.fuel_spent]
    for body in (car.hull, *car.wheels):
        found += [*body.position, body.angle, *body.linearVelocity, body.angularVelocity]
    for w in car.wheels:
        found += [w.omega, w.phase, w.gas, w.brake, w.steer, w.joint.angle, w.joint.motorSpeed]
        found += [len(w.tiles), w.skid_start is None, w.skid_particle is None]
    for particle in car.particles:
        found += [particle.grass, *(x for point in particle.poly for x in point)]
    return found


def actions(seed, steps):
    """Pedals and wheel: full throttle, locked wheels, spins, and a calm stretch."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform((-1, -0.5, -0.5), (1, 1.5, 1.2), (steps // 10 + 1, 3)).astype(np.float32)
    drawn[::4] = AHEAD
    return np.repeat(drawn, 10, axis=0)[:steps]


def assert_same_game(ours, theirs, seed, plan):
    """Play both; returns the number of steps and whether the last one ended the episode."""
    ours.reset(seed=seed)
    theirs.reset(seed=seed)
    assert ours.track == theirs.track
    t, terminated = 0, False
    for t, action in enumerate(plan):
        _, *a = ours.step(action)
        _, *b = theirs.step(action)
        assert a == b, f"step {t}"
        assert numbers(ours) == numbers(theirs), f"step {t}"
        terminated = a[1]
        if terminated:
            break
    return t + 1, terminated


def test_the_game_is_gymnasiums():
    ours, theirs = CarRacingEnv(max_steps=None), WithoutDrawing()
    assert assert_same_game(ours, theirs, 0, actions(0, 250))[0] == 250
    assert len(ours.car.particles) > 0
    assert ours.tile_visited_count > 5
    # The same objects again, straight on and out of the playfield, which ends it at -100.
    assert assert_same_game(ours, theirs, 6, [AHEAD] * 300)[1]
    assert abs(ours.car.hull.position.x) > 300 or abs(ours.car.hull.position.y) > 300


@pytest.mark.slow
def test_many_games_are_gymnasiums():
    ours, theirs = CarRacingEnv(max_steps=None), WithoutDrawing()
    for seed in range(2, 14):
        assert_same_game(ours, theirs, seed, actions(seed, 1000))


def test_the_fast_steps_are_those_of_the_installed_gymnasium():
    assert car_racing._STEPS_ARE_KNOWN


def test_with_another_gymnasium_its_own_steps_are_taken(monkeypatch):
    monkeypatch.setattr(car_racing, "_STEPS_ARE_KNOWN", False)
    monkeypatch.setattr(car_racing, "_drive", None)
    ours, theirs = CarRacingEnv(), WithoutDrawing()
    assert_same_game(ours, theirs, 3, actions(3, 60))
    frame = ours.step(AHEAD)[0]
    monkeypatch.undo()
    again = CarRacingEnv()
    again.reset(seed=3)
    for action in (*actions(3, 60), AHEAD):
        last = again.step(action)[0]
    np.testing.assert_array_equal(frame, last)


def test_five_actions():
    ours, theirs = CarRacingEnv(continuous=False), WithoutDrawing(continuous=False)
    plan = np.random.default_rng(0).choice([1, 2, 3, 3, 3, 3, 4, 0], 120)
    assert assert_same_game(ours, theirs, 0, [np.int64(a) for a in plan])[0] == 120
    with pytest.raises(gymnasium.error.InvalidAction):
        ours.step(5)


def test_the_share_of_tiles_that_makes_a_lap():
    """It begins on the first tile, so a share of 0 is a lap at once."""
    for share, ends in ((0.0, True), (0.95, False)):
        ours, theirs = (kind(lap_complete_percent=share) for kind in (CarRacingEnv, WithoutDrawing))
        assert assert_same_game(ours, theirs, 0, [AHEAD] * 3)[1] == ends


def test_colours_change_with_episodes_if_asked():
    ours, theirs = CarRacingEnv(domain_randomize=True), WithoutDrawing(domain_randomize=True)
    assert_same_game(ours, theirs, 0, [AHEAD] * 5)
    np.testing.assert_array_equal(ours.road_color, theirs.road_color)
    first, _ = ours.reset(seed=1)
    second, _ = ours.reset(seed=1, options={"randomize": False})
    colours = ours.bg_color
    assert not np.array_equal(first, second)  # the track is another: fewer numbers were drawn
    ours.reset(options={"randomize": False})
    assert ours.bg_color is colours
    ours.reset()
    assert ours.bg_color is not colours


def test_visited_tiles_are_repainted():
    env = CarRacingEnv()
    env.reset(seed=0)
    before = [tile.color.copy() for tile in env.road]
    for _ in range(60):
        env.step(AHEAD)
    visited = [tile.road_visited for tile in env.road]
    assert sum(visited) > 3
    for tile, colour, was_visited in zip(env.road, before, visited, strict=True):
        expected = env.road_color if was_visited else colour
        np.testing.assert_array_equal(tile.color, expected)
        assert any(drawn is tile.color for _, drawn in env.road_poly)


@pytest.mark.filterwarnings("ignore::UserWarning")  # its actions' space is not symmetric
@pytest.mark.parametrize(("name", "shape"), [(ID, (96, 96, 3)), (SMALL_ID, (64, 64, 3))])
def test_spaces(name, shape):
    env = gymnasium.make(name)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, shape, np.uint8)
    assert env.action_space == CarRacing().action_space
    frame, _ = env.reset(seed=0)
    other, *_ = env.step(AHEAD)
    assert frame.shape == other.shape == shape
    assert frame is not other
    env.close()


def test_the_specs_environment_has_vs_frames():
    spec = envs.ENVIRONMENTS["car-racing"]
    env = gymnasium.make(spec.env_id)
    assert env.observation_space.shape == (envs.FRAME_SIZE, envs.FRAME_SIZE, 3)
    assert env.action_space == gymnasium.spaces.Box(*spec.squash.ranges)
    assert env.spec.max_episode_steps == spec.max_steps
    assert gymnasium.spec(ID).reward_threshold == spec.solved_score
    env.close()


@pytest.mark.parametrize("policy", ["uniform", "held-random", "random-linear"])
def test_policies_play_it(policy):
    env = gymnasium.make(SMALL_ID)
    rng = np.random.default_rng(0)
    episode = play_episode(env, make_policy(policy, CAR_RACING_SQUASH), 50, 7, rng)
    assert episode.frames.shape == (50, 64, 64, 3)
    assert episode.actions.shape == (50, 3)
    assert episode.frames[0].std() > 5
    assert episode.rewards.sum() > 0
    env.close()


def test_a_seed_is_a_game():
    def play(seed, env):
        frames = [env.reset(seed=seed)[0]]
        frames += [env.step(action)[0] for action in actions(0, 30)]
        return np.stack(frames)

    env = CarRacingEnv()
    first = play(3, env)
    np.testing.assert_array_equal(first, play(3, env))
    np.testing.assert_array_equal(first, play(3, CarRacingEnv()))
    np.testing.assert_array_equal(first, play(3, copy.deepcopy(env)))
    assert not np.array_equal(first, play(4, env))


def test_an_episode_is_cut_at_max_steps():
    env = CarRacingEnv(max_steps=7)
    for _ in range(2):
        env.reset(seed=0)
        assert [env.step(AHEAD)[2:4] for _ in range(7)] == [(False, False)] * 6 + [(False, True)]
    env = copy.deepcopy(env)
    assert env.max_steps == 7


def test_a_hopeless_episode_is_given_up_at_what_it_would_come_to():
    still = np.zeros(3, np.float32)

    def play(**settings):
        env = CarRacingEnv(**settings)
        env.reset(seed=0)
        rewards, ends = [], []
        for t in range(200):
            # Some tiles, then nothing more.
            _, reward, *end, _ = env.step(AHEAD if t < 60 else np.array([0, 0, 1], np.float32))
            rewards.append(reward)
            ends.append(tuple(end))
            if any(end):
                break
        return rewards, ends, env.tile_visited_count

    whole, whole_ends, tiles = play(max_steps=200)
    cut, ends, tiles_cut = play(max_steps=200, patience=50)
    assert tiles == tiles_cut > 3
    assert (len(whole), whole_ends[-1]) == (200, (False, True))
    assert len(cut) < 160
    assert ends[-1] == (False, True)
    assert not any(map(any, ends[:-1]))
    assert cut[:-1] == whole[: len(cut) - 1]
    assert sum(cut) == pytest.approx(sum(whole))
    # Without a limit of its own, the episode's cost is that of 1,000 steps.
    registered = play(patience=50)[0]
    assert sum(registered) == pytest.approx(sum(whole) - 0.1 * 800)
    # Patience begins anew with each episode and is kept by copies.
    env = copy.deepcopy(CarRacingEnv(patience=7))
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(still)[3] for _ in range(12)]
        assert ends.index(True) == 6


UNMODIFIED_ID = envs.ENVIRONMENTS["car-racing"].unmodified_id


def test_gymnasiums_own_game_for_v_differs_by_the_drawing_alone():
    theirs = gymnasium.make(UNMODIFIED_ID, max_steps=40)
    ours = CarRacingEnv(frame="world-models", max_steps=40)
    assert theirs.observation_space == ours.observation_space
    assert theirs.action_space == ours.action_space
    a, b = theirs.reset(seed=4)[0], ours.reset(seed=4)[0]
    for action in actions(4, 40):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.abs(a.astype(int) - b).mean() < 1
        a, *a_rest = theirs.step(action)
        b, *b_rest = ours.step(action)
        assert a_rest == b_rest
    assert a_rest[2]
    theirs.close()


def test_gymnasiums_own_game_is_not_changed():
    ours, theirs = gymnasium.make(UNMODIFIED_ID), gymnasium.make("CarRacing-v3")
    a, b = ours.reset(seed=5)[0], theirs.reset(seed=5)[0]
    for action in actions(5, 30):
        np.testing.assert_array_equal(a, crop_and_shrink(b))
        a, *a_rest = ours.step(action)
        b, *b_rest = theirs.step(action)
        assert a_rest == b_rest
        assert numbers(ours.unwrapped) == numbers(theirs.unwrapped)
    ours.close()
    theirs.close()


def test_gymnasiums_frames_are_cropped_and_shrunk_as_ours_are():
    large, small = CarRacingEnv(), CarRacingEnv(frame="world-models")
    a, b = large.reset(seed=5)[0], small.reset(seed=5)[0]
    for action in actions(5, 60):
        np.testing.assert_array_equal(crop_and_shrink(a), b)
        a, b = large.step(action)[0], small.step(action)[0]
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    noise[:30] = 255
    assert crop_and_shrink(noise)[:20].min() == 255


def test_several_games_in_parallel_processes():
    games = gymnasium.make_vec(ID, num_envs=3, vectorization_mode="async")
    try:
        frames, _ = games.reset(seed=[1, 2, 1])
        assert frames.shape == (3, 96, 96, 3)
        for _ in range(10):
            frames, rewards, *_ = games.step(np.stack([AHEAD] * 3))
        np.testing.assert_array_equal(frames[0], frames[2])
        assert rewards[0] == rewards[2]
        assert not np.array_equal(frames[0], frames[1])
    finally:
        games.close()


def test_it_can_still_be_rendered():
    env = CarRacingEnv(render_mode="rgb_array")
    theirs = CarRacing(render_mode="rgb_array")
    env.reset(seed=0)
    theirs.reset(seed=0)
    for action in actions(1, 40):
        env.step(action)
        theirs.step(action)
    np.testing.assert_array_equal(env.render(), theirs.render())
    assert env.render().shape == (400, 600, 3)

    env = CarRacingEnv(render_mode="state_pixels")
    frame, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), frame)

    env = CarRacingEnv(render_mode="human")  # SDL's dummy display
    env.reset(seed=0)
    env.step(AHEAD)
    env.close()
    # That quit pygame: what was kept of it must not be used any more.
    frame, _ = CarRacingEnv().reset(seed=0)
    car_racing._pictures.clear()
    np.testing.assert_array_equal(CarRacingEnv().reset(seed=0)[0], frame)


def test_no_display_is_needed():
    code = (
        "import gymnasium, worldmodels_fast\n"
        f"env = gymnasium.make({ID!r}, render_mode='rgb_array')\n"
        "frame, _ = env.reset(seed=0)\n"
        "assert frame.std() > 5 and env.render().shape == (400, 600, 3)\n"
        "env.close()\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "SDL_VIDEODRIVER")}
    clean["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    subprocess.run([sys.executable, "-c", code], env=clean, check=True, timeout=300)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame": "64x64"}, r"frame: expected .*'world-models', got '64x64'"),
        ({"max_steps": 0}, "max_steps: expected at least 1, got 0"),
        ({"max_steps": 2.5}, "max_steps: expected an integer, got 2.5"),
        ({"max_steps": True}, "max_steps: expected an integer, got True"),
        ({"patience": 0}, "patience: expected at least 1, got 0"),
        ({"patience": np.float64(9)}, "patience: expected an integer"),
        ({"render_mode": "ansi"}, "render_mode: expected .*'rgb_array'.*, got 'ansi'"),
        ({"lap_complete_percent": 95}, "lap_complete_percent: .*between 0 and 1, got 95"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CarRacingEnv(**settings)


def test_numpys_integers_are_integers():
    env = CarRacingEnv(max_steps=np.int64(100), patience=np.uint8(9))
    assert (env.max_steps, env.patience) == (100, 9)
    assert {type(env.max_steps), type(env.patience)} == {int}
    theirs = GymnasiumCarRacing64Env(max_steps=np.int32(7))
    assert theirs.max_steps == copy.deepcopy(theirs).max_steps == 7
    for refused in (2.5, True, np.True_):
        with pytest.raises(TypeError, match="max_steps: expected an integer"):
            GymnasiumCarRacing64Env(max_steps=refused)


def test_bad_actions_are_named():
    env = CarRacingEnv()
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(AHEAD)
    env.reset(seed=0)
    for action in (np.zeros(2), np.array([0, np.nan, 0]), [0.0, 0.0, 0.0], 0.5):
        with pytest.raises(ValueError, match=r"action: .*shape \(3,\)"):
            env.step(action)
    env.step(AHEAD)  # nothing is broken by it


@pytest.mark.parametrize("dtype", [np.longdouble, np.float16, np.int64])
def test_numbers_of_any_kind_are_actions(dtype):
    """Gymnasium's game takes them all; Box2D takes floats alone."""
    observations = []
    for action in (np.array([0, 1, 0], np.float64), np.array([0, 1, 0], dtype)):
        env = gymnasium.make(SMALL_ID)
        env.reset(seed=1)
        observations.append([env.step(action)[0] for _ in range(3)][-1])
        env.close()
    np.testing.assert_array_equal(*observations)

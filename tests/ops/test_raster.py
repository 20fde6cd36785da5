"""The native renderer against what pygame draws of the very same states."""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels_fast import ops
from worldmodels_fast.envs.car_racing import CarRacing, CarRacingEnv

MEAN, OFF = 0.25, 0.001
"""Greatest mean absolute difference of colours, and share of pixels off by more than 16."""

SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
SCORE = np.zeros((12, 12), np.uint8)


def theirs(env):
    return CarRacing._render(env, "state_pixels")


def difference(ours, other):
    distance = np.abs(ours.astype(int) - other)
    return distance.mean(), (distance.max(axis=2) > 16).mean()


def assert_same_picture(frames, others, mean=MEAN, off=OFF):
    means, offs = zip(*(difference(a, b) for a, b in zip(frames, others, strict=True)), strict=True)
    assert np.mean(means) < mean
    assert np.mean(offs) < off
    assert max(means) < 4 * mean


@pytest.fixture
def env():
    env = CarRacingEnv(max_steps=None)
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture(scope="module")
def one_env():
    env = CarRacingEnv(max_steps=None)
    env.reset(seed=3)
    yield env
    env.close()


@pytest.mark.parametrize("seed", range(4))
def test_frames_of_episodes_are_gymnasiums(env, seed):
    rng = np.random.default_rng(seed)
    frame, _ = env.reset(seed=seed)
    frames, others = [frame], [theirs(env)]
    for t in range(400):
        steer = rng.uniform(-0.4, 0.4) + 0.3 * np.sin(t / 30)
        frame = env.step(np.array([steer, 0.6, float(t % 60 > 57)], np.float32))[0]
        if t < 20 or t % 12 == 0:  # all of the first, which zoom in
            frames.append(frame)
            others.append(theirs(env))
    assert len(frames) > 50
    assert_same_picture(frames, others)


def test_frames_in_other_colours_are_gymnasiums():
    env = CarRacingEnv(domain_randomize=True)
    frames, others = [], []
    for seed in range(4):
        env.reset(seed=seed)
        for _ in range(25):
            frame = env.step(np.array([0.1, 0.5, 0], np.float32))[0]
        frames.append(frame)
        others.append(theirs(env))
    assert_same_picture(frames, others)
    assert difference(frames[0], frames[1])[0] > 10


@settings(max_examples=30, deadline=None)
@given(
    time=st.one_of(st.floats(0.02, 1), st.just(3.0)),
    tile=st.integers(0, 10**6),
    off_road=st.floats(-60, 60),
    angle=st.floats(-10, 10),
    speeds=st.tuples(st.floats(-120, 120), st.floats(-120, 120), st.floats(-12, 12)),
    phases=st.tuples(*[st.floats(-9, 9)] * 4),
    omegas=st.tuples(*[st.floats(-200, 600)] * 4),
    reward=st.floats(-999, 1100),
)
def test_any_state_is_drawn_as_gymnasium_draws_it(
    one_env, time, tile, off_road, angle, speeds, phases, omegas, reward
):
    env, car = one_env, one_env.car
    _, _, x, y = env.track[tile % len(env.track)]
    start = np.array(car.hull.position)
    env.t, env.reward = time, reward
    turn = angle - car.hull.angle
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for body in (*car.wheels, car.hull):
        away = turned @ (np.array(body.position) - start)
        body.position = (float(x + off_road + away[0]), float(y + away[1]))
        body.angle += turn
    car.hull.linearVelocity = speeds[:2]
    car.hull.angularVelocity = speeds[2]
    for wheel, phase, omega in zip(car.wheels, phases, omegas, strict=True):
        wheel.phase, wheel.omega = phase, omega
    mean, off = difference(env._draw(), theirs(env))
    assert mean < 0.5
    assert off < 0.004


def test_every_score_is_written_as_gymnasium_writes_it(env):
    for reward in (0.4, -0.6, -7.3, 9.9, 111.1, 444.0, 712.8, 999.7, -99.9, -456.0, 1000.2):
        env.reward = reward
        ours, other = env._draw()[84:, :12], theirs(env)[84:, :12]
        np.testing.assert_allclose(ours.astype(int), other, atol=1)  # smoothscale's own rounding


def test_roads_that_cross_hide_what_lies_below(env):
    """Later polygons lie on top, also where a road comes back to its own beginning."""
    x, y = env.car.hull.position
    road = [(x + 4 * i - 30, y + 12) for i in range(16)]  # along x, then down along y across it
    ends = [[(a, b + 5), (a, b - 5)] for a, b in road]
    down = [[(x + 5, y + 40 - 4 * i), (x - 5, y + 40 - 4 * i)] for i in range(12)]
    quads, colours = [], []
    for strip, colour in ((ends, (255, 0, 0)), (down, (255, 255, 255))):
        for i in range(len(strip) - 1):
            quads.append([*strip[i], *reversed(strip[i + 1])])
            colours.append(colour if i % 2 else (102, 102, 102))
    for order in (1, -1):
        env.t = 2.0
        env.road_poly = list(zip(quads[::order], colours[::order], strict=True))
        env._track = np.array(quads[::order], float), np.array(colours[::order], float)
        env._renderer = None
        mean, off = difference(env._draw(), theirs(env))
        assert mean < 0.5
        assert off < 0.01


def test_small_frames_are_the_large_ones_area_averaged():
    large, small = CarRacingEnv(), CarRacingEnv(frame="world-models")
    a, b = large.reset(seed=5)[0], small.reset(seed=5)[0]
    # How much of each of 84 rows and 96 columns belongs to each of 64, in whole numbers.
    rows, columns = (
        np.array([[max(0, min((i + 1) * n, (j + 1) * 64) - max(i * n, j * 64)) for j in range(n)]
                  for i in range(64)])
        for n in (84, 96)
    )  # fmt: skip
    for t in range(60):
        sums = np.einsum("ij,jkc,lk->ilc", rows, a[:84].astype(np.int64), columns)
        np.testing.assert_array_equal(b, (2 * sums + 84 * 96) // (2 * 84 * 96))
        action = np.array([np.sin(t / 9), 0.5, 0], np.float32)
        a, b = large.step(action)[0], small.step(action)[0]


def test_a_frame_depends_on_its_state_alone(env):
    first = env._draw()
    env.t = 0.1
    second = env._draw()
    assert not np.array_equal(first, second)
    env._renderer = None
    np.testing.assert_array_equal(second, env._draw())
    env.t = 1 / 50
    np.testing.assert_array_equal(first, env._draw())


def renderer():
    made = ops.car_racing_renderer([SQUARE], SQUARE, 0.2, 0.4)
    made.set_track(np.zeros((1, 4, 2)) + SQUARE, np.zeros((1, 3)))
    made.set_ground(300.0, 15.0, np.zeros(3), np.zeros(3))
    return made


def frame():
    return np.zeros((96, 96, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.draw([0.0] * 27, SCORE, frame()), "state: expected 28 numbers, got 27"),
        (lambda r: r.draw([0.0] * 27 + [np.nan], SCORE, frame()), "state: expected finite"),
        (lambda r: r.draw([np.inf] * 28, SCORE, frame()), "state: expected finite"),
        (lambda r: r.draw([0.0] * 28, SCORE[1:].copy(), frame()), "score: .*12, 12"),
        (lambda r: r.draw([0.0] * 28, SCORE, np.zeros((5, 96, 3), np.uint8)), "frame: .*96, 96, 3"),
        (lambda r: r.draw([0.0] * 28, SCORE, np.zeros((64, 96, 3), np.uint8)), "frame: .*64, 64"),
        (lambda r: r.set_track(np.zeros((0, 4, 2)), np.zeros((0, 3))), "quads: .*axis of size 0"),
        (lambda r: r.set_track(np.zeros((2, 4, 2)), np.zeros((1, 3))), "colours: .*2, 3.*1, 3"),
        (lambda r: r.set_track(np.full((1, 4, 2), np.nan), np.zeros((1, 3))), "quads: .*finite"),
        (lambda r: r.set_ground(0.0, 1.0, np.zeros(3), np.zeros(3)), "half_size"),
        (lambda r: r.set_ground(1.0, np.nan, np.zeros(3), np.zeros(3)), "patch_size"),
        (lambda r: r.set_ground(1.0, 1.0, np.zeros(2), np.zeros(3)), "background: .*3"),
        (lambda r: ops.car_racing_renderer([SQUARE[:2]], SQUARE, 1, 1), "hull: .*3 to 16 corners"),
        (lambda r: ops.car_racing_renderer([], SQUARE, np.inf, 1), "wheel_half_width"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(renderer())


def test_bad_kinds_are_named():
    with pytest.raises(TypeError, match="frame: expected a uint8"):
        renderer().draw([0.0] * 28, SCORE, np.zeros((96, 96, 3), np.float32))
    with pytest.raises(TypeError, match="quads: expected a float64"):
        renderer().set_track(np.zeros((1, 4, 2), np.float32), np.zeros((1, 3)))
    with pytest.raises(TypeError):
        renderer().draw(["a"] * 28, SCORE, frame())
    read_only = frame()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match=r"frame: .*read-only"):
        renderer().draw([0.0] * 28, SCORE, read_only)
    bare = ops.car_racing_renderer([SQUARE], SQUARE, 0.2, 0.4)
    with pytest.raises(ValueError, match=r"set_track\(\) and set_ground\(\) before"):
        bare.draw([0.0] * 28, SCORE, frame())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(-50, 50), st.floats(allow_nan=False, allow_infinity=False)),
        min_size=28,
        max_size=28,
    ),
    st.lists(
        st.one_of(st.floats(-50, 50), st.floats(allow_nan=False, allow_infinity=False)),
        min_size=24,
        max_size=24,
    ),
)
def test_no_finite_numbers_crash_it(state, corners):
    made = renderer()
    made.set_track(np.reshape(corners, (3, 4, 2)), np.array([[1e300, -1e300, 0]] * 3))
    drawn = frame()
    made.draw(state, SCORE, drawn)
    made.draw([1.0] * 28, SCORE, drawn)
    again = frame()
    renderer_of_corners = renderer()
    renderer_of_corners.set_track(np.reshape(corners, (3, 4, 2)), np.zeros((3, 3)))
    renderer_of_corners.draw([1.0] * 28, SCORE, again)
    assert drawn.shape == again.shape

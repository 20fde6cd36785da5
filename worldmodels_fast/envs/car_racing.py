"""CarRacing: Gymnasium's own, with a native renderer: sixty times its steps a second.

`CarRacingEnv` is Gymnasium's CarRacing-v3 with one thing exchanged: the renderer of its
observation. Track, physics, rewards, ends and random numbers are Gymnasium's, bit for bit. The
picture is drawn natively (`csrc/raster/`), to within rounding of what pygame draws at 1000x800 and
scales down.

With ``frame="world-models"`` the observation is V's input: the rows above the dashboard (the
paper's 0 to 83 of 96), area-averaged to 64x64.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from gymnasium.utils import EzPickle

from worldmodels_fast import ops
from worldmodels_fast.types import Doubles, Frame
from worldmodels_fast.utils.arguments import checked_choice, checked_integer

with warnings.catch_warnings():
    # Box2D's types warn of themselves; where warnings are errors, that would crash Python.
    warnings.simplefilter("ignore", DeprecationWarning)
    import pygame
    from gymnasium.envs.box2d import car_dynamics
    from gymnasium.envs.box2d.car_racing import FPS, GRASS_DIM, PLAYFIELD, CarRacing

if TYPE_CHECKING:
    from worldmodels_fast._core import CarRacingRenderer

MAX_STEPS = 1000
"""Steps of an episode at most, in the paper and by Gymnasium: `patience` reckons with them."""

STEP_COST = 0.1
"""Cost of a step, which Gymnasium subtracts from the reward."""

FRAMES = ("gymnasium", "world-models")


_KNOWN_STEPS = {"67a63a232af287c7e9d1d94eb06bccd7e98aa9d2ddb29f08df27b82552314438": "1.4.0"}
"""SHA-256 of the source of Gymnasium's steps that `_drive` and `CarRacingEnv.step` repeat."""

_DT = 1.0 / FPS
_POWER = _DT * car_dynamics.ENGINE_POWER
_INERTIA = car_dynamics.WHEEL_MOMENT_OF_INERTIA
_STIFFNESS = 205000 * car_dynamics.SIZE * car_dynamics.SIZE
_ROAD = car_dynamics.FRICTION_LIMIT
_GRASS = car_dynamics.FRICTION_LIMIT * 0.6


class CarRacingEnv(CarRacing):
    """Gymnasium's CarRacing with a native renderer; every argument of Gymnasium's, and three more.

    Observation: uint8 RGB, (96, 96, 3) as Gymnasium's or (64, 64, 3). Actions, rewards, ends and
    `info` are Gymnasium's: float32 (steer in [-1, 1], gas and brake in [0, 1]), or 0 to 4 if not
    `continuous`. As with Gymnasium's, `gymnasium.make` truncates after 1,000 steps, or its own
    `max_episode_steps`. `render` draws with pygame.

    Args:
        render_mode: None, "human", "rgb_array" (400x600) or "state_pixels" (as the observation).
        verbose: print how tracks are generated.
        lap_complete_percent: share of the tiles after which crossing the start ends a lap.
        domain_randomize: other colours in each episode.
        continuous: whether actions are three numbers rather than one of five.
        frame: "gymnasium" or "world-models".
        max_steps: steps after which the environment itself truncates an episode; None: never.
        patience: steps without a new tile after which an episode is truncated. Its last reward then
            holds the cost of all steps until `max_steps`, or 1,000 if that is None: the return is
            that of a car which reaches no further tile. None: never, as in Gymnasium.

    Raises:
        TypeError: an argument that should be an integer is none.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        verbose: bool = False,
        lap_complete_percent: float = 0.95,
        domain_randomize: bool = False,
        continuous: bool = True,
        frame: Literal["gymnasium", "world-models"] = "gymnasium",
        max_steps: int | None = None,
        patience: int | None = None,
    ) -> None:
        if render_mode is not None:
            checked_choice("render_mode", render_mode, self.metadata["render_modes"])
        if not 0.0 <= lap_complete_percent <= 1.0:
            raise ValueError(
                "lap_complete_percent: expected a share between 0 and 1, "
                f"got {lap_complete_percent!r}"
            )
        checked_choice("frame", frame, FRAMES)
        if max_steps is not None:
            max_steps = checked_integer("max_steps", max_steps, low=1)
        if patience is not None:
            patience = checked_integer("patience", patience, low=1)
        super().__init__(render_mode, verbose, lap_complete_percent, domain_randomize, continuous)
        EzPickle.__init__(
            self,
            render_mode,
            verbose,
            lap_complete_percent,
            domain_randomize,
            continuous,
            frame,
            max_steps,
            patience,
        )
        self.max_steps = max_steps
        self.patience = patience
        self._frame_shape = (96, 96, 3) if frame == "gymnasium" else (64, 64, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, self._frame_shape, np.uint8)
        self._track: tuple[Doubles, Doubles] | None = None  # what the next renderer draws
        self._renderer: CarRacingRenderer | None = None  # the present episode's
        self._steps = 0
        self._tiles = 0  # visited so far
        self._since_tile = 0  # steps since the last new one

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a new episode on a new track; see `gymnasium.Env.reset` and Gymnasium's CarRacing.

        `options`: {"randomize": False} keeps the colours, where `domain_randomize` changes them.
        """
        self._steps = self._tiles = self._since_tile = 0
        frame, info = super().reset(seed=seed, options=options)
        return frame, info

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Play 1/50 s; see the class for the meaning of the returned values.

        Raises:
            ValueError: the action is not three finite numbers.
            gymnasium.error.InvalidAction: it is not one of the five, if not `continuous`.
            RuntimeError: there was no `reset` before.
        """
        if self.car is None:
            raise RuntimeError("step() before the first episode: call reset() first")
        if self.continuous and action is not None:
            _check(action)
        if not _STEPS_ARE_KNOWN or not self.continuous or action is None:
            frame, reward, terminated, truncated, info = super().step(action)
        else:
            numbers = action.astype(np.float64).tolist()
            frame, reward, terminated, truncated, info = self._step(numbers)
        if action is not None:
            self._steps += 1
        if self.max_steps is not None and self._steps >= self.max_steps and not terminated:
            truncated = True
        if self.patience is not None and not (terminated or truncated) and self._gives_up():
            truncated = True
            reward -= STEP_COST * max(0, (self.max_steps or MAX_STEPS) - self._steps)
        return frame, reward, terminated, truncated, info

    def _gives_up(self) -> bool:
        """Count a step; return whether the last new tile is `patience` steps ago."""
        self._since_tile += 1
        if self.tile_visited_count > self._tiles:
            self._tiles, self._since_tile = self.tile_visited_count, 0
        return self.patience is not None and self._since_tile >= self.patience

    def _step(self, action: list[float]) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """`CarRacing.step` for three actions: the same operations, without NumPy's overhead."""
        car: Any = self.car
        steer, gas, brake = action
        wheels = car.wheels
        wheels[0].steer = wheels[1].steer = -steer
        gas = 0.0 if gas < 0.0 else 1.0 if gas > 1.0 else gas
        for wheel in wheels[2:4]:
            wheel.gas += min(gas - wheel.gas, 0.1)
        for wheel in wheels:
            wheel.brake = brake
        _drive(car)
        self.world.Step(_DT, 6 * 30, 2 * 30)
        self.t += _DT
        self.state = self._draw()

        self.reward -= 0.1
        car.fuel_spent = 0.0
        reward = self.reward - self.prev_reward
        self.prev_reward = self.reward
        terminated = False
        info = {}
        if self.tile_visited_count == len(self.track) or self.new_lap:
            terminated = True
            info["lap_finished"] = True
        position = car.hull.position
        if abs(position.x) > PLAYFIELD or abs(position.y) > PLAYFIELD:
            terminated = True
            info["lap_finished"] = False
            reward = -100
        if self.render_mode == "human":
            self._render("human")
        return self.state, reward, terminated, False, info

    def _create_track(self) -> bool:
        create: Callable[[], bool] = super()._create_track
        if not create():
            return False
        # One array of colours for all: Gymnasium repaints visited tiles in place, and the renderer
        # looks at it for every frame.
        quads = np.array([quad for quad, _ in self.road_poly], np.float64)
        colours = np.array([colour for _, colour in self.road_poly], np.float64)
        tiles: Iterator[Any] = iter(self.road or [])
        for i, (quad, colour) in enumerate(self.road_poly):
            if isinstance(colour, np.ndarray):  # a tile; the kerbs' are tuples
                tile = next(tiles)
                tile.color = colours[i]
                self.road_poly[i] = (quad, tile.color)
        self._track = quads, colours
        self._renderer = None
        return True

    def _make_renderer(self) -> CarRacingRenderer:
        car: Any = self.car
        size = car_dynamics.SIZE
        # Box2D puts corners in an order of its own, and pygame's rounding depends on it.
        outlines = [
            [np.array(fixture.shape.vertices, np.float32) for fixture in body.fixtures]
            for body in (car.hull, car.wheels[0])
        ]
        renderer = ops.car_racing_renderer(
            hull=outlines[0],
            wheel=outlines[1][0],
            wheel_half_width=car_dynamics.WHEEL_W * size,
            wheel_radius=car_dynamics.WHEEL_R * size,
        )
        assert self._track is not None
        renderer.set_track(*self._track)
        background, grass = (np.array(c, np.float64) for c in (self.bg_color, self.grass_color))
        renderer.set_ground(PLAYFIELD, GRASS_DIM, background, grass)
        return renderer

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels" or self._track is None:
            return super()._render(mode)
        return self._draw()

    def _draw(self) -> Frame:
        if self._renderer is None:
            self._renderer = self._make_renderer()
        car: Any = self.car
        hull = car.hull
        position, velocity = hull.position, hull.linearVelocity
        state = [
            self.t,
            position.x,
            position.y,
            hull.angle,
            velocity.x,
            velocity.y,
            hull.angularVelocity,
            car.wheels[0].joint.angle,
        ]
        for wheel in car.wheels:
            position = wheel.position
            state += (position.x, position.y, wheel.angle, wheel.phase, wheel.omega)
        frame = np.empty(self._frame_shape, np.uint8)
        self._renderer.draw(state, _score_picture(f"{self.reward:04.0f}"), frame)
        return frame


def _check(action: Any) -> None:
    if (
        not isinstance(action, np.ndarray)
        or action.shape != (3,)
        or not all(map(math.isfinite, action.tolist()))
    ):
        raise ValueError(
            "action: expected an array of three finite numbers, shape (3,): steer in [-1, 1], gas "
            f"and brake in [0, 1]; got {action!r}"
        )


def _drive(car: Any) -> None:
    """`Car.step`: the same operations in the same order on Python's floats, for the same result.

    Gymnasium's calls NumPy for single numbers, which takes three times as long.
    """
    for w in car.wheels:
        joint = w.joint
        turn = w.steer - joint.angle
        speed = min(50.0 * abs(turn), 3.0)
        joint.motorSpeed = speed if turn > 0.0 else -speed if turn < 0.0 else 0.0

        grass = True
        limit = _GRASS
        for tile in w.tiles:
            limit = max(limit, _ROAD * tile.road_friction)
            grass = False

        ahead = w.GetWorldVector((0, 1))
        sine, cosine = -ahead.x, ahead.y  # the side's direction is (cosine, sine)
        velocity = w.linearVelocity
        vx, vy = velocity.x, velocity.y
        forward_speed = -sine * vx + cosine * vy
        side_speed = cosine * vx + sine * vy

        omega = w.omega
        gas = w.gas
        omega += _POWER * gas / _INERTIA / (abs(omega) + 5.0)
        car.fuel_spent += _POWER * gas
        brake = w.brake
        if brake >= 0.9:
            omega = 0.0
        elif brake > 0:
            force = 15 * brake
            if omega > 0.0:
                omega -= min(force, omega)
            elif omega < 0.0:
                omega += min(force, -omega)
        w.phase += omega * _DT

        radius = w.wheel_rad
        along = (-forward_speed + omega * radius) * _STIFFNESS
        across = -side_speed * _STIFFNESS
        force = math.sqrt(along * along + across * across)
        if force > 2.0 * limit:
            particle = w.skid_particle
            if particle and particle.grass == grass and len(particle.poly) < 30:
                position = w.position
                particle.poly.append((position[0], position[1]))
            elif w.skid_start is None:
                w.skid_start = w.position
            else:
                w.skid_particle = car._create_particle(w.skid_start, w.position, grass)
                w.skid_start = None
        else:
            w.skid_start = None
            w.skid_particle = None
        if force > limit:
            along = along / force * limit
            across = across / force * limit

        w.omega = omega - _DT * along * radius / _INERTIA
        w.ApplyForceToCenter(
            (across * cosine + along * -sine, across * sine + along * cosine), True
        )


def _steps_digest() -> str:
    functions = (CarRacing.step, *(getattr(car_dynamics.Car, n) for n in ("gas", "brake", "steer")))
    sources = [inspect.getsource(f) for f in (*functions, car_dynamics.Car.step)]
    return hashlib.sha256("".join(sources).encode()).hexdigest()


try:
    _STEPS_ARE_KNOWN = _steps_digest() in _KNOWN_STEPS
except OSError:  # there are no sources
    _STEPS_ARE_KNOWN = False


_pictures: dict[str, Frame] = {}
"""Scores that were shown before: there are some thousand at most."""

_font: pygame.font.Font | None = None


def _score_picture(text: str) -> Frame:
    """The score as Gymnasium writes it at the left of the dashboard, uint8 (12, 12), grey."""
    picture = _pictures.get(text)
    if picture is None:
        picture = _pictures[text] = _write_score(text)
    return picture


def _write_score(text: str) -> Frame:
    global _font
    pygame.font.init()
    for _ in range(2):
        if _font is None:
            _font = pygame.font.Font(pygame.font.get_default_font(), 42)
        try:
            written = _font.render(text, True, (255, 255, 255), (0, 0, 0))
        except pygame.error:  # pygame was quit since, by whoever else uses it
            _font = None
        else:
            break
    # The window's lowest eighth and its first 125 columns: 12 of our rows and columns.
    corner = pygame.Surface((125, 100), depth=32)
    place = written.get_rect()
    place.center = (60, 50)
    corner.blit(written, place)
    grey = pygame.surfarray.array3d(pygame.transform.smoothscale(corner, (12, 12)))[:, :, 0]
    return np.ascontiguousarray(grey.T)

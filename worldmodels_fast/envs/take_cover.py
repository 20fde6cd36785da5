"""Doom: Take Cover. Monsters at the far wall throw fireballs; survive by stepping left and right.

ViZDoom's own scenario, one tic per step, reward 1 per tic survived, 2,100 tics at most (paper,
section "VizDoom experiment"). The only difference from the scenario file is the frame:
the top five sixths of the screen (the paper's rows 0..399 of 480, without the floor at the player's
feet), area-averaged to 64x64 RGB.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from worldmodels_fast import ops
from worldmodels_fast.envs.doom_engine import DoomEngine, EngineError
from worldmodels_fast.types import Frame
from worldmodels_fast.utils.arguments import checked_choice, checked_integer

ACTION_THRESHOLD = 1.0 / 3.0
"""Below minus this the player steps left, above it right, else stands still (PAPER, C)."""

VISIBLE_ROWS = 400 / 480
"""Share of the screen's rows in a frame, from the top."""

RESOLUTIONS = ("160x120", "320x240", "640x480")

_ENGINE_SEEDS = 2**31 - 1


class TakeCoverEnv(gymnasium.Env[Frame, npt.NDArray[np.float32]]):
    """The real Take Cover through Gymnasium's API; headless unless `render_mode="human"`.

    Observation: uint8 (frame_size, frame_size, 3) RGB. Action: float32 (1,) in [-1, 1]; left
    below -1/3, right above 1/3, else nothing. Reward: 1 for each tic, the last included.
    `terminated` when the player dies; the observation then is the last one the engine drew.
    `gymnasium.make` truncates after 2,100 tics, or its own `max_episode_steps`. `info` holds
    `health` and `skill`.

    The same seed gives the same game, also in another process: each episode's engine seed is
    drawn from the environment's own generator.

    Args:
        skill: Doom's difficulty, 1 to 5. The scenario's file says 4, and there a random policy
            scores as in the paper; state it with every score.
        resolution: the engine's own, "160x120", "320x240" or "640x480". Larger is slower.
        frame_size: height and width of the observation in pixels.
        max_steps: tics after which the environment itself truncates an episode; None: never.
        render_mode: None, "rgb_array" (the engine's whole screen) or "human" (Doom's window).

    Raises:
        TypeError: an argument that should be an integer is none.
        ValueError: an argument is out of range.
        RuntimeError: "human" without a display; the engine could not start, or died. `reset` starts
            a fresh engine.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 35}  # noqa: RUF012

    def __init__(
        self,
        skill: int = 4,
        resolution: str = "160x120",
        frame_size: int = 64,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            checked_choice("render_mode", render_mode, self.metadata["render_modes"])
        if render_mode == "human":
            _check_display()
        self.skill = checked_integer("skill", skill, low=1, high=6)
        self.resolution = checked_choice("resolution", resolution, RESOLUTIONS)
        self.frame_size = checked_integer("frame_size", frame_size, low=1, high=2**16)
        self.max_steps = (
            None if max_steps is None else checked_integer("max_steps", max_steps, low=1)
        )
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (self.frame_size, self.frame_size, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._engine: DoomEngine | None = None
        self._health = 0.0
        self._steps = 0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a new episode; see `gymnasium.Env.reset`. `options` are not used."""
        super().reset(seed=seed)
        engine_seed = int(self.np_random.integers(_ENGINE_SEEDS))
        self._steps = 0
        if self._engine is not None:
            try:
                self._health = self._engine.new_episode(engine_seed)
            except EngineError:
                self.close()  # it died since the last episode
        if self._engine is None:
            self._engine = self._start_engine()
            try:
                self._health = self._engine.new_episode(engine_seed)
            except EngineError as error:
                raise self._engine_died(error) from error
        self._over = False
        return self._observation(), self._info()

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Play one tic; see the class for the meaning of the returned values.

        Raises:
            ValueError: the action is not one finite number.
            RuntimeError: the episode is over, or the engine died.
        """
        if self._over or self._engine is None:
            raise RuntimeError("step() after the episode's end: call reset() first")
        a = np.asarray(action, dtype=np.float32)
        if a.shape != (1,) or not np.isfinite(a[0]):
            raise ValueError(
                f"action: expected one finite number, shape (1,), got {action!r}; "
                "left below -1/3, right above 1/3"
            )
        try:
            terminated, self._health = self._engine.step(
                left=bool(a[0] < -ACTION_THRESHOLD), right=bool(a[0] > ACTION_THRESHOLD)
            )
        except EngineError as error:
            raise self._engine_died(error) from error
        self._steps += 1
        truncated = not terminated and self.max_steps is not None and self._steps >= self.max_steps
        self._over = terminated or truncated
        return self._observation(), 1.0, terminated, truncated, self._info()

    def render(self) -> Frame | None:
        """Return the engine's whole screen, uint8 (rows, columns, 3), for "rgb_array"."""
        if self.render_mode != "rgb_array" or self._engine is None:
            return None
        return self._engine.screen.copy()

    def close(self) -> None:
        """End the engine's process and remove its files."""
        self._over = True
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _start_engine(self) -> DoomEngine:
        try:
            return DoomEngine(
                scenario="take_cover.cfg",
                skill=self.skill,
                resolution=self.resolution,
                visible=self.render_mode == "human",
            )
        except EngineError as error:
            raise RuntimeError(f"Doom's engine did not start: {error}") from error

    def _engine_died(self, error: EngineError) -> RuntimeError:
        self.close()
        return RuntimeError(
            f"Doom's engine stopped in tic {self._steps} ({error}); reset() starts a new one"
        )

    def _observation(self) -> Frame:
        assert self._engine is not None
        screen = self._engine.screen
        visible = screen[: round(screen.shape[0] * VISIBLE_ROWS)]
        return ops.box_resize(visible, self.frame_size, self.frame_size)

    def _info(self) -> dict[str, Any]:
        return {"health": self._health, "skill": self.skill}


def _check_display() -> None:
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in displays):
        raise RuntimeError(
            'render_mode: "human" needs a display: DISPLAY and WAYLAND_DISPLAY are not set; '
            'set one, or use "rgb_array"'
        )

"""Gymnasium's own CarRacing-v3, unmodified, but for the size of its frames: V's.

For final scores: nothing of `car_racing.py` and its renderer takes part. About 150 steps a second.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils import EzPickle

from worldmodels_fast.envs.registry import FRAME_SIZE
from worldmodels_fast.types import Frame
from worldmodels_fast.utils.arguments import checked_integer

with warnings.catch_warnings():
    # Box2D's types warn of themselves; where warnings are errors, that would crash Python.
    warnings.simplefilter("ignore", DeprecationWarning)
    from gymnasium.envs.box2d.car_racing import CarRacing

__all__ = ["GymnasiumCarRacing64Env", "crop_and_shrink"]

ROWS = 84
"""Rows of a frame above the dashboard (the paper's 0 to 83 of 96)."""


class GymnasiumCarRacing64Env(CarRacing):
    """Gymnasium's CarRacing with frames uint8 (64, 64, 3); see there for all else.

    Args:
        render_mode: Gymnasium's; "state_pixels" is as the observation.
        lap_complete_percent: Gymnasium's.
        domain_randomize: Gymnasium's.
        max_steps: steps after which the environment itself truncates an episode; None: never.

    Raises:
        TypeError: `max_steps` is no integer.
        ValueError: `max_steps` is out of range.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        lap_complete_percent: float = 0.95,
        domain_randomize: bool = False,
        max_steps: int | None = None,
    ) -> None:
        if max_steps is not None:
            max_steps = checked_integer("max_steps", max_steps, low=1)
        super().__init__(render_mode, False, lap_complete_percent, domain_randomize)
        EzPickle.__init__(self, render_mode, lap_complete_percent, domain_randomize, max_steps)
        self.max_steps = max_steps
        self._steps = 0
        shape = (FRAME_SIZE, FRAME_SIZE, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a new episode; see Gymnasium's CarRacing."""
        self._steps = 0
        frame, info = super().reset(seed=seed, options=options)
        return frame, info

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Play 1/50 s; see Gymnasium's CarRacing."""
        frame, reward, terminated, truncated, info = super().step(action)
        if action is not None:  # `reset` steps without an action
            self._steps += 1
        if self.max_steps is not None and self._steps >= self.max_steps:
            truncated = True
        return frame, reward, terminated, truncated, info

    def _render(self, mode: str) -> Any:
        picture = super()._render(mode)
        before_reset = picture is None
        return picture if before_reset or mode != "state_pixels" else crop_and_shrink(picture)


def _shares(n: int) -> npt.NDArray[np.float32]:
    """Return the share of each of n pixels in each of 64, in 64ths of one, (64, n) float32."""
    here, there = np.arange(n) * FRAME_SIZE, np.arange(FRAME_SIZE)[:, None] * n
    ends = np.minimum(here + FRAME_SIZE, there + n)
    return np.asarray(np.maximum(ends - np.maximum(here, there), 0), np.float32)


_OF_ROWS, _OF_COLUMNS = _shares(ROWS), _shares(96)


def crop_and_shrink(frame: Frame) -> Frame:
    """Return a frame for V: rows 0 to 83 of (96, 96, 3) uint8, area-averaged to (64, 64, 3) uint8.

    Equal to the bit to what `car_racing.py` does with its own frames: all sums are of whole
    numbers below 2^24, which float32 holds, and halves are rounded up.
    """
    above = frame[:ROWS].astype(np.float32)
    rows = (_OF_ROWS @ above.reshape(ROWS, -1)).reshape(FRAME_SIZE, 96, 3)
    sums = (_OF_COLUMNS @ rows).astype(np.int64)
    units = ROWS * 96
    small: Frame = ((2 * sums + units) // (2 * units)).astype(np.uint8)
    return small

"""Gymnasium's own CarRacing-v3, unmodified: only its frames are brought to the size that V eats.

For final scores: nothing of `car_racing.py` and its renderer takes part. About 150 steps a second.
"""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TransformObservation

from worldmodels_fast.envs.registry import FRAME_SIZE
from worldmodels_fast.types import Frame

__all__ = ["crop_and_shrink", "make_gymnasium_car_racing"]

MAX_STEPS = 1000

ROWS = 84
"""Rows of a frame above the dashboard (the paper's 0 to 83 of 96)."""


def make_gymnasium_car_racing(
    render_mode: str | None = None,
    lap_complete_percent: float = 0.95,
    domain_randomize: bool = False,
    max_steps: int = MAX_STEPS,
) -> gymnasium.Env[Frame, npt.NDArray[np.float32]]:
    """Make Gymnasium's CarRacing-v3 with frames uint8 (64, 64, 3); see Gymnasium for the arguments.

    Args:
        render_mode: Gymnasium's.
        lap_complete_percent: Gymnasium's.
        domain_randomize: Gymnasium's.
        max_steps: steps after which an episode is truncated, by Gymnasium's `TimeLimit`.
    """
    with warnings.catch_warnings():
        # Box2D's types warn of themselves; where warnings are errors, that would crash Python.
        warnings.simplefilter("ignore", DeprecationWarning)
        import gymnasium.envs.box2d
    env = gymnasium.make(
        "CarRacing-v3",
        max_episode_steps=max_steps,
        render_mode=render_mode,
        lap_complete_percent=lap_complete_percent,
        domain_randomize=domain_randomize,
    )
    space = gymnasium.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    return TransformObservation(env, crop_and_shrink, space)


def _shares(n: int) -> npt.NDArray[np.float32]:
    """How much of each of n pixels in a row belongs to each of 64, in 64ths of one, (64, n)."""
    here, there = np.arange(n) * FRAME_SIZE, np.arange(FRAME_SIZE)[:, None] * n
    ends = np.minimum(here + FRAME_SIZE, there + n)
    return np.asarray(np.maximum(ends - np.maximum(here, there), 0), np.float32)


_OF_ROWS, _OF_COLUMNS = _shares(ROWS), _shares(96)


def crop_and_shrink(frame: Frame) -> Frame:
    """Return what V eats of a frame (96, 96, 3): its rows 0 to 83, area-averaged to (64, 64, 3).

    The same to the bit as what `car_racing.py` does with its own frames: all sums are of whole
    numbers below 2^24, which float32 holds, and halves are rounded up.
    """
    above = frame[:ROWS].astype(np.float32)
    rows = (_OF_ROWS @ above.reshape(ROWS, -1)).reshape(FRAME_SIZE, 96, 3)
    sums = (_OF_COLUMNS @ rows).astype(np.int64)
    units = ROWS * 96
    small: Frame = ((2 * sums + units) // (2 * units)).astype(np.uint8)
    return small

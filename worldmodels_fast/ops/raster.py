"""Frames: the renderer of CarRacing's, and how frames are brought to another size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worldmodels_fast import _core
from worldmodels_fast.types import Floats, Frame

if TYPE_CHECKING:
    from worldmodels_fast._core import CarRacingRenderer


def car_racing_renderer(
    hull: list[Floats], wheel: Floats, wheel_half_width: float, wheel_radius: float
) -> CarRacingRenderer:
    """Return what draws CarRacing's frames as Gymnasium does, for one environment and one thread.

    Its methods; all numbers must be finite:

    - ``set_track(quads, colours)``: the road's tiles and kerbs in the order in which they are
      drawn; float64 (n, 4, 2), metres, and float64 (n, 3), 0 to 255. `colours` is kept and looked
      at anew for every frame.
    - ``set_ground(half_size, patch_size, background, grass)``: of the playfield and of its patches
      of grass, metres; colours float64 (3,).
    - ``draw(state, score, frame)``: draws into `frame`, uint8 (96, 96, 3), or (64, 64, 3) for rows
      0 to 83 of it, area-averaged. `score` is the picture of the score, uint8 (12, 12), grey.
      `state` is a list of 28 floats, metres, seconds and radians: time, the hull's x, y, angle,
      velocity x and y, angular velocity, the first wheel's steering angle; then for each of four
      wheels x, y, angle, phase, angular velocity.

    Args:
        hull: the convex parts of the car's body, each float32 (3 to 16 corners, 2), metres.
        wheel: a wheel's outline, the same.
        wheel_half_width: metres.
        wheel_radius: metres.

    Raises:
        TypeError: an array is of another dtype.
        ValueError: an array has another shape, or a number is not finite.
    """
    return _core.CarRacingRenderer(
        hull=hull, wheel=wheel, wheel_half_width=wheel_half_width, wheel_radius=wheel_radius
    )


def box_resize(frame: Frame, rows: int, columns: int) -> Frame:
    """Return a frame in another size: means over boxes of pixels.

    First across the columns, then across the rows, each mean rounded half up. Equal to the bit to
    Pillow's ``Resampling.BOX`` where that takes the columns first, too, as for frames of Doom.

    Args:
        frame: uint8 (R, C, 3), C-contiguous.
        rows: number of rows of the result.
        columns: number of columns of the result.

    Returns:
        uint8 (rows, columns, 3).

    Raises:
        TypeError: the frame is of another dtype.
        ValueError: the frame has another shape.
    """
    out = np.empty((rows, columns, 3), np.uint8)
    _core.box_resize(frame, out)
    return out

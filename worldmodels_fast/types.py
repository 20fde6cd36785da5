"""Names of the array types that are used throughout."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Doubles", "Floats", "Frame", "Frames", "Indices"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Frame = npt.NDArray[np.uint8]
"""One frame, RGB (rows, columns, 3)."""
Frames = npt.NDArray[np.uint8]
"""Frames, RGB (N, rows, columns, 3)."""

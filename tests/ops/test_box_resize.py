"""Frames brought to another size by the native kernel, against Pillow."""

import numpy as np
import pytest
from PIL import Image

from worldmodels_fast import ops


@pytest.mark.parametrize(("rows", "columns"), [(100, 160), (200, 320), (400, 640)])
def test_frames_of_doom_are_resized_as_pillow_does(rows, columns):
    frame = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    for size in (1, 7, 32, 63, 64, 84, 100, 128, 210):
        expected = Image.fromarray(frame).resize((size, size), Image.Resampling.BOX)
        resized = ops.box_resize(frame, size, size)
        assert resized.dtype == np.uint8
        np.testing.assert_array_equal(resized, np.array(expected))


def test_each_axis_is_resized_as_pillow_does():
    rng = np.random.default_rng(1)
    for _ in range(100):
        rows, columns, size = rng.integers(1, 200, 3)
        frame = rng.integers(0, 256, (rows, columns, 3), np.uint8)
        for out in ((size, columns), (rows, size)):
            expected = Image.fromarray(frame).resize(out[::-1], Image.Resampling.BOX)
            np.testing.assert_array_equal(ops.box_resize(frame, *out), np.array(expected))


def test_bad_frames_are_named():
    frame = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(TypeError, match=r"frame: expected .*uint8"):
        ops.box_resize(frame.astype(np.float32), 2, 2)
    with pytest.raises(ValueError, match=r"frame: expected .*shape"):
        ops.box_resize(frame[..., 0], 2, 2)
    with pytest.raises(ValueError, match=r"frame: .*contiguous"):
        ops.box_resize(frame[:, ::2], 2, 2)
    with pytest.raises(ValueError, match=r"frame: expected .*no axis of size 0, got shape \(0, 5"):
        ops.box_resize(frame[:0], 2, 2)
    with pytest.raises(
        ValueError, match="frame: expected at most 65536 rows and columns, got 1 and"
    ):
        ops.box_resize(np.zeros((1, 65537, 3), np.uint8), 2, 2)

"""Conversions of arguments and results; arrays are checked in the extension."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import numpy as np

from worldmodels_fast._core import DeviceArray, NoiseIds
from worldmodels_fast.utils.arguments import checked_integer, checked_number


def _is_torch(x: object) -> bool:
    # If x is a tensor then torch is loaded; nothing is imported here.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def output_kind(*arrays: Any) -> Any:
    """Return the function that turns a result into the kind of array that the caller uses.

    The extension gives NumPy arrays for NumPy and for torch on the CPU, torch's and CuPy's own on a
    device, and a `DeviceArray` for the others.
    """
    for x in arrays:
        if type(x) is np.ndarray or x is None:
            continue
        if _is_torch(x):
            return sys.modules["torch"].from_numpy if x.is_cpu else _same
        if not isinstance(x, np.ndarray | DeviceArray):
            return functools.partial(_of_the_library_of, x)
    return _same


def _of_the_library_of(x: Any, result: Any) -> Any:
    """Return a `DeviceArray` as an array of x's library, without a copy."""
    if not isinstance(result, DeviceArray):
        return result
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    library = sys.modules[type(x).__module__.partition(".")[0]]
    return library.from_dlpack(result) if hasattr(library, "from_dlpack") else result


def _same(x: Any) -> Any:
    return x


def checked_temperature(value: float) -> float:
    """Return a temperature that float32 can hold.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or outside 1e-45 to 3.4e38.
    """
    # The kernels compute in float32, where a tiny tau would be 0 and a huge one infinite.
    tau = checked_number("temperature", value, above=0)
    if not 1e-45 <= tau <= 3.4e38:
        raise ValueError(
            f"temperature: expected a finite number above 0 that float32 can hold (1e-45 to "
            f"3.4e38), got {value!r}"
        )
    return tau


def checked_done_rule(threshold: float, temperature: float) -> tuple[float, float]:
    """Return (done_threshold, done_temperature), by which a rollout ends.

    Raises:
        TypeError: not a number.
        ValueError: a threshold that is NaN; a temperature that is not finite, below 0 or above
            3.4e38.
    """
    if isinstance(threshold, bool | np.bool_ | str | bytes) or math.isnan(threshold):
        error = ValueError if isinstance(threshold, float | np.floating) else TypeError
        raise error(f"done_threshold: expected a number, got {threshold!r}")
    return float(threshold), checked_number("done_temperature", temperature, low=0, high=3.4e38)


def noise_ids(n: int, *, seed: Any, rollout: Any, step: Any) -> NoiseIds:
    """Return whose noise N rows use, for the extension.

    Args:
        n: N.
        seed: an integer from 0 to 2**64 - 1, or an array (N,) of such.
        rollout: the rollout of row 0 (row n has rollout + n), or (N,), each from 0 to 2**32 - 1.
        step: the same range, for all rows or (N,).

    Raises:
        TypeError: not integers.
        ValueError: another shape, or out of range.
    """
    if all(np.ndim(value) == 0 for value in (seed, rollout, step)):
        return NoiseIds(
            checked_integer("seed", seed, low=0, high=2**64),
            checked_integer("rollout", rollout, low=0, high=2**32),
            checked_integer("step", step, low=0, high=2**32),
            None,
        )
    words = np.empty((n, 4), np.uint32)
    seeds = _each_row("seed", seed, n, 64)
    words[:, 0] = seeds & np.uint64(2**32 - 1)
    words[:, 1] = seeds >> np.uint64(32)
    if np.ndim(rollout) == 0:
        first = checked_integer("rollout", rollout, low=0, high=2**32 - n + 1)
        words[:, 2] = np.arange(first, first + n, dtype=np.uint64)
    else:
        words[:, 2] = _each_row("rollout", rollout, n, 32)
    words[:, 3] = _each_row("step", step, n, 32)
    return NoiseIds(0, 0, 0, words)


def _each_row(name: str, value: Any, n: int, bits: int) -> Any:
    """Return one integer below 2**bits for all rows, or (N,) of them, as uint64."""
    if np.ndim(value) == 0:
        return np.uint64(checked_integer(name, value, low=0, high=2**bits))
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an integer or integers (N,), got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"{name}: expected an integer or shape ({n},), got {array.shape}")
    if array.dtype.kind == "i" or 8 * array.dtype.itemsize > bits:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= 2**bits:
            raise ValueError(
                f"{name}: expected integers from 0 to 2**{bits} - 1, got {low} to {high}"
            )
    return array.astype(np.uint64)

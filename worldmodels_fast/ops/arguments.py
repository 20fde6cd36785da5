"""Arguments on their way in, results on their way out; arrays are checked in the extension."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from worldmodels_fast._core import DeviceArray


def _is_torch(x: object) -> bool:
    # If x is a tensor then torch is loaded; whoever has no torch never pays for importing it.
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
    """Hand a `DeviceArray` to the library of x, without a copy."""
    if not isinstance(result, DeviceArray):
        return result
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    library = sys.modules[type(x).__module__.partition(".")[0]]
    return library.from_dlpack(result) if hasattr(library, "from_dlpack") else result


def _same(x: Any) -> Any:
    return x


def checked_temperature(value: float) -> float:
    """Return a temperature that float32 can hold."""
    # The kernels compute in float32, where a tiny tau would be 0 and a huge one infinite.
    tau = float(value)
    if not 1e-45 <= tau <= 3.4e38:
        raise ValueError(
            f"temperature: expected a finite number above 0 (1e-45 to 3.4e38), got {value!r}"
        )
    return tau

"""Backends: which this machine has, the default one, and what precision "auto" means."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast import _core
from worldmodels_fast._core import DeviceArray


@functools.cache
def available_backends() -> tuple[str, ...]:
    """Return what this build has and this machine can run.

    The levels of the CPU, the fastest last, and then "cuda" if a device can be used.
    """
    return tuple(_core.available_backends())


def default_backend() -> str:
    """Return the backend used where none is given: WMF_BACKEND if set, else the fastest level.

    Arrays and models on a CUDA device are computed there whatever it is.

    Raises:
        ValueError: WMF_BACKEND names a backend that is unknown or that this machine cannot run.
    """
    return _core.backend_name("")


def why_no_cuda() -> str:
    """Say in words why "cuda" cannot run here: not built, no driver, no device; "" if it can."""
    return _core.why_no_cuda()


def cuda_status() -> dict[str, Any]:
    """Describe the CUDA devices.

    Returns:
        built: whether this build has kernels for them; driver and runtime: CUDA versions, 13000 is
        13.0, 0 for none; devices: a list of index, name, sm (90 is compute capability 9.0),
        processors, memory in bytes, and reason, why it cannot be used, "" if it can; reason: see
        `why_no_cuda`.
    """
    return _core.cuda_status()


def cuda_kernels(device: str = "cuda") -> list[dict[str, Any]]:
    """Return name, registers and local_bytes (spills) of the kernels for a device, per thread.

    Raises:
        ValueError: no such device.
    """
    return _core.cuda_kernels(cuda_number(device))


def device_of(array: Any) -> str:
    """Return where an array is: "cpu", or "cuda:0" or the like; "cpu" for what is no array."""
    return cuda_device_of(array) or "cpu"


def to_device(array: npt.NDArray[Any], device: str = "cuda") -> DeviceArray:
    """Copy a NumPy array to a CUDA device without any other library.

    Args:
        array: float32 or int32, any shape, C-contiguous.
        device: "cuda", the first that can be used, or "cuda:0", "cuda:1", ...; also "cpu".

    Returns:
        An array that every function here takes, with shape, dtype, device, numpy() to copy it
        back, and DLPack and __cuda_array_interface__ for other libraries.

    Raises:
        TypeError, ValueError: another dtype or layout, or no such device.
        MemoryError: the device's memory does not suffice.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array: expected a NumPy array, got {type(array).__name__}")
    index = cuda_index(device)
    return DeviceArray(array, -1 if index is None else _core.cuda_device(index))


def cuda_device_of(x: Any) -> str | None:
    """Return "cuda:0" or the like; None for what is on the CPU or no array at all."""
    place = -1 if isinstance(x, np.ndarray) else _core.place_of(x)
    return f"cuda:{place}" if place >= 0 else None


def cuda_index(device: Any) -> int | None:
    """Return the number of a CUDA device, -1 for "cuda", None for "cpu"; torch.device will do."""
    kind, colon, number = str(device).partition(":")
    if kind == "cpu" and not colon:
        return None
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return int(number) if colon else -1


def cuda_number(device: Any) -> int:
    """Return the number of a CUDA device, -1 for "cuda"; anything else is a ValueError."""
    index = cuda_index(device)
    if index is None:
        raise ValueError(f"device: expected 'cuda' or 'cuda:N', got {device!r}")
    return index


def default_threads() -> int:
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Backends: which this machine has, the default one, and the precision that "auto" means."""

from __future__ import annotations

import functools
import os
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from worldmodels_fast import _core
from worldmodels_fast._core import DeviceArray
from worldmodels_fast.ops.types import ENCODER_PRECISIONS, PRECISIONS
from worldmodels_fast.utils.arguments import checked_choice

_CHOICES = {
    ("mdn_rnn", "auto"): {"cuda": "fp16", "avx512_bf16": "bf16"},
    ("mdn_rnn", "fastest"): {"cuda": "fp16", "avx512_bf16": "int8"},
    ("vae_encoder", "auto"): {"cuda": "bf16", "avx512_bf16": "bf16"},
}
"""By kernel and rule: the precision for each backend; "fp32" for those not named."""


@functools.cache
def available_backends() -> tuple[str, ...]:
    """Return the backends that this build has and this machine can run.

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


def encoder_backend(backend: str | None = None) -> str:
    """Return the level of the CPU that runs V's encoder: `backend`, or the default one.

    Where the default backend is "cuda" it is the fastest level: the encoder has no kernel there.

    Raises:
        ValueError: a backend that is unknown or that this machine cannot run.
    """
    level = _core.backend_name(backend or "")
    if level == "cuda" and not backend:
        level = next(name for name in reversed(available_backends()) if name != "cuda")
    return level


@overload
def resolve_precision(
    precision: str, kernel: Literal["mdn_rnn"] = "mdn_rnn", backend: str | None = None
) -> str: ...
@overload
def resolve_precision(
    precision: str, kernel: Literal["vae_encoder"], backend: str | None = None
) -> Literal["fp32", "bf16"]: ...
def resolve_precision(
    precision: str,
    kernel: Literal["mdn_rnn", "vae_encoder"] = "mdn_rnn",
    backend: str | None = None,
) -> str:
    """Return the precision that "auto" or "fastest" means; any other name means itself.

    Args:
        precision: for "mdn_rnn" "fp32", "fp16", "bf16", "int8", "auto" or "fastest", see
            `pack_mdn_rnn`; for "vae_encoder" "fp32", "bf16" or "auto", see `pack_vae_encoder`.
        kernel: whose operands.
        backend: one of `available_backends()`, or "cuda" for V's encoder in torch on a CUDA device;
            None for the backend that the kernel takes by default, which WMF_BACKEND chooses.

    Raises:
        ValueError: another precision or kernel, a backend that is unknown or that this machine
            cannot run.
    """
    checked_choice("kernel", kernel, ("mdn_rnn", "vae_encoder"))
    names = PRECISIONS if kernel == "mdn_rnn" else ENCODER_PRECISIONS
    checked_choice("precision", precision, names)
    if precision not in ("auto", "fastest"):
        return precision
    if kernel == "mdn_rnn":
        level = _core.backend_name(backend or "")
    else:
        level = "cuda" if backend == "cuda" else encoder_backend(backend)
    return _CHOICES[kernel, precision].get(level, "fp32")


def why_no_cuda() -> str:
    """Return the reason for which "cuda" cannot run: not built, no driver, no device; or ""."""
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

"""The device of a training, and the precision of its products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodels_fast.training.config import Device, Precision


def choose_device(device: Device) -> torch.device:
    """Return the device that training runs on.

    Raises:
        ValueError: an unknown device, or "cuda" where torch cannot use it; the message says why.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {device!r}")
    usable = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not usable:
        why = (
            "this build of torch is for the CPU only"
            if torch.version.cuda is None
            else "it finds no usable device or driver"
        )
        raise ValueError(f"device: torch {torch.__version__} cannot use 'cuda', because {why}")
    return torch.device("cuda", torch.cuda.current_device()) if usable else torch.device("cpu")


def move(x: Tensor, device: torch.device) -> Tensor:
    """Return a batch on a device: copied from pinned memory without waiting, or x on the CPU."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def products_in_bf16(precision: Precision, device: torch.device | None = None) -> bool:
    """Return whether a training at `precision` multiplies in bfloat16 on this machine.

    Args:
        precision: "auto" is bfloat16 where the device has instructions for it.
        device: the training's; None for the CPU.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision: expected 'auto', 'fp32' or 'bf16', got {precision!r}")
    if precision != "auto":
        return precision == "bf16"
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Without an instruction for it bfloat16 is slower than float32 on a CPU.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

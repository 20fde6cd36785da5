"""Checkpoints: the state of a training, from which a killed one resumes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldmodels_fast.utils.files import new_file, one_line

ADVICE = "delete it to train from the beginning"
"""Ends the messages about a damaged checkpoint."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with new_file(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the state in a checkpoint, on the CPU; None if there is no such file.

    Nothing in the file is executed: it is read as data.

    Raises:
        ValueError: the file is not a checkpoint, or damaged.
        OSError: the file cannot be read.
    """
    if not path.exists():
        return None
    data = io.BytesIO(path.read_bytes())  # a disk's error says nothing about the file
    try:
        state = torch.load(data, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch's own text advises to execute what the file holds
        raise ValueError(f"{path}: not a checkpoint, or damaged; {ADVICE}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint, but a {type(state).__name__}; {ADVICE}")
    return state


def restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Load a checkpoint's weights and Adam's moments; return the whole state, or None.

    Raises:
        ValueError: the file is damaged, or of a training with other sizes.
    """
    state = load_checkpoint(checkpoint)
    if state is None:
        return None
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{checkpoint}: made by a training with other sizes ({one_line(error)}); {ADVICE}"
        ) from error
    return state

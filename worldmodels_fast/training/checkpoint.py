"""Checkpoints: the state of a training, from which a killed one resumes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldmodels_fast.utils.files import new_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; it appears whole or not at all."""
    with new_file(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint if there is one. It is data only: nothing in it is executed.

    Raises:
        ValueError: the file is not a checkpoint.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path}: not a checkpoint, or damaged; delete it to train from the beginning"
        ) from error
    return state


def restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Put a checkpoint's weights and moments into place; return it, or None if there is none."""
    state = load_checkpoint(checkpoint)
    if state is None:
        return None
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{checkpoint}: made by a training with other sizes ({error}); delete it to train from "
            "the beginning"
        ) from error
    return state

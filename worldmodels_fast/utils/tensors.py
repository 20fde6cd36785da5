"""Named arrays on disk, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from worldmodels_fast.utils.files import reading, write_bytes

Arrays = dict[str, npt.NDArray[Any]]


def save_tensors(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None
) -> None:
    """Write arrays by name, whole or not at all.

    `safetensors.save_file` would leave a file that only its owner may read, whatever the umask.
    """
    write_bytes(path, tensor_bytes(arrays, metadata))


def tensor_bytes(
    arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None
) -> bytes:
    """Return the content of a safetensors file."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(save(contiguous, metadata))


def load_tensors(path: Path, advice: str) -> Arrays:
    """Return the arrays of a safetensors file, by name.

    Args:
        path: the file.
        advice: ends the error's message: what to do about a damaged file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file, or damaged.
    """
    content = path.read_bytes()
    with reading(path, advice):
        return dict(load(content))

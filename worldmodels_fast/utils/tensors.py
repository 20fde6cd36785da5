"""Named arrays on disk, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from worldmodels_fast.utils.files import write_bytes

Arrays = dict[str, npt.NDArray[Any]]


def save_tensors(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None
) -> None:
    """Write arrays by name, whole or not at all.

    `safetensors.save_file` would leave a file that only its owner may read, whatever the umask.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, save(contiguous, metadata))


def load_tensors(path: Path, advice: str) -> Arrays:
    """Return the arrays of a safetensors file, by name.

    Args:
        path: the file.
        advice: ends the error's message: what to do about a damaged file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file, or damaged.
    """
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not safetensors, or damaged ({error}); {advice}") from error

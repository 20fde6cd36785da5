"""Latents on disk: V's mu and logvar of every frame, one safetensors file per shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast.data.episodes import read_episodes
from worldmodels_fast.data.shards import shard_path
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.files import reading
from worldmodels_fast.utils.tensors import Arrays, load_tensors, save_tensors


@dataclass(frozen=True, repr=False)
class Latents:
    """V's output for several episodes, end to end; N is the sum of their lengths.

    Attributes:
        mu: float16 (N, Z).
        logvar: float16 (N, Z).
        actions: float32 (N, A).
        lengths: int64 (E,), steps of each episode.
        terminated: bool (E,), whether each ended by itself, not by a time limit.
        rewards: float32 (N,), the game's for each action; None in stores of earlier versions.
    """

    mu: npt.NDArray[np.float16]
    logvar: npt.NDArray[np.float16]
    actions: Floats
    lengths: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    rewards: Floats | None = None

    def __repr__(self) -> str:
        return (
            f"Latents(episodes={len(self.lengths)}, steps={len(self.mu)}, "
            f"latent_dim={self.mu.shape[-1]}, action_dim={self.actions.shape[-1]}, "
            f"rewards={self.rewards is not None})"
        )

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """int64 (E,): index of each episode's first step."""
        return np.cumsum(self.lengths) - self.lengths


def write_latents(folder: Path, shard: int, latents: Latents) -> None:
    """Write one shard of latents, whole or not at all.

    Raises:
        ValueError: arrays of other dtypes or shapes, or NaN or infinity in one.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "mu": latents.mu,
        "logvar": latents.logvar,
        "actions": latents.actions,
        "lengths": latents.lengths,
        "terminated": latents.terminated,
    }
    if latents.rewards is not None:
        arrays["rewards"] = latents.rewards
    path = shard_path(folder, shard, ".safetensors")
    try:
        _check(arrays, arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; nothing was written") from error
    save_tensors(path, arrays)


def read_latents(folder: Path, shards: Sequence[int]) -> Latents:
    """Read shards of latents and join them: about 260 bytes for each step at Z = 64.

    There are rewards if all of these shards have them.

    Raises:
        ValueError: no shards; a shard is damaged, holds NaN or infinity, or differs from the first
            one in its widths.
        FileNotFoundError: a shard is missing.
    """
    if not shards:
        raise ValueError(f"{folder}: no latents; run the stage `encode` first")
    parts: list[Arrays] = []
    for shard in shards:
        path = shard_path(folder, shard, ".safetensors")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such shard; run the stage `encode` first")
        part = load_tensors(path, _ADVICE)
        with reading(path, _ADVICE):
            _check(part, parts[0] if parts else part)
        parts.append(part)
    keys = set.intersection(*map(set, parts))
    return Latents(**{key: np.concatenate([part[key] for part in parts]) for key in keys})


_ADVICE = "delete the file and run the stage `encode` again"


def _check(arrays: Arrays, first: Arrays) -> None:
    """Raise ValueError unless these are a shard's arrays, as wide as those of the first shard."""
    steps, latent_dim = arrays["mu"].shape
    shapes = {
        "mu": (np.float16, (steps, latent_dim)),
        "logvar": (np.float16, (steps, latent_dim)),
        "actions": (np.float32, (steps, arrays["actions"].shape[-1])),
        "lengths": (np.int64, (len(arrays["lengths"]),)),
        "terminated": (np.bool_, (len(arrays["lengths"]),)),
        "rewards": (np.float32, (steps,)),
    }
    if unknown := arrays.keys() - shapes.keys():
        raise ValueError(f"expected {', '.join(shapes)}, got {', '.join(sorted(unknown))}, too")
    for name, (dtype, shape) in shapes.items():
        if name == "rewards" and name not in arrays:
            continue
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{name}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
            )
        if not _finite(array):
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        if name in first and array.shape[1:] != first[name].shape[1:]:
            raise ValueError(
                f"{name}: expected a width of {first[name].shape[1:]} as in the first shard, got "
                f"{array.shape[1:]}"
            )
    lengths = arrays["lengths"]
    if lengths.sum() != steps or (lengths < 1).any():
        raise ValueError(f"lengths: expected numbers from 1 whose sum is {steps}, got {lengths}")


def _finite(array: npt.NDArray[Any]) -> bool:
    if array.dtype == np.float16:  # twice as fast as np.isfinite: an exponent of ones
        return not array.size or int((array.view(np.uint16) & 0x7FFF).max()) < 0x7C00
    return bool(np.isfinite(array).all())


def add_rewards(folder: Path, shard: int, episodes: Path) -> None:
    """Write a shard of latents anew, with the rewards of its episodes, if it has none yet.

    Where it is a link to another run's, that one is left as it is.

    Raises:
        FileNotFoundError: there is no such shard, or its episodes are not there.
        ValueError: they are not the episodes that were encoded, or a shard is damaged.
    """
    latents = read_latents(folder, [shard])
    if latents.rewards is not None:
        return
    rewards = [episode.rewards for episode in read_episodes(episodes, shard)]
    if [len(each) for each in rewards] != latents.lengths.tolist():
        raise ValueError(
            f"{shard_path(episodes, shard)}: its episodes are not those of "
            f"{shard_path(folder, shard, '.safetensors')}; encode them again"
        )
    write_latents(folder, shard, dataclasses.replace(latents, rewards=np.concatenate(rewards)))


def first_latents(latents: Latents, limit: int) -> tuple[Floats, Floats]:
    """Return mu and logvar, float32 (I, Z), of the first frames of at most `limit` episodes.

    A dream starts from one of these (the authors kept 1,000).
    """
    starts = latents.starts[:limit]
    return latents.mu[starts].astype(np.float32), latents.logvar[starts].astype(np.float32)

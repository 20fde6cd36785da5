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
from worldmodels_fast.utils.tensors import load_tensors, save_tensors


@dataclass(frozen=True)
class Latents:
    """V's view of several episodes, end to end; N is the sum of their lengths.

    Attributes:
        mu: float16 (N, Z).
        logvar: float16 (N, Z).
        actions: float32 (N, A).
        lengths: int64 (E,), steps of each episode.
        terminated: bool (E,), whether each ended by itself.
        rewards: float32 (N,), the game's for each action; None in stores of earlier versions.
    """

    mu: npt.NDArray[np.float16]
    logvar: npt.NDArray[np.float16]
    actions: Floats
    lengths: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    rewards: Floats | None = None

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """int64 (E,): index of each episode's first step."""
        return np.cumsum(self.lengths) - self.lengths


def write_latents(folder: Path, shard: int, latents: Latents) -> None:
    """Write one shard of latents."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "mu": latents.mu,
        "logvar": latents.logvar,
        "actions": latents.actions,
        "lengths": latents.lengths,
        "terminated": latents.terminated,
    }
    if latents.rewards is not None:
        arrays["rewards"] = latents.rewards
    save_tensors(shard_path(folder, shard, ".safetensors"), arrays)


def read_latents(folder: Path, shards: Sequence[int]) -> Latents:
    """Read shards of latents and join them: about 260 bytes for each step at Z = 64.

    There are rewards if all of these shards have them.

    Raises:
        ValueError: no shards.
        FileNotFoundError: a shard is missing.
    """
    if not shards:
        raise ValueError(f"{folder}: no latents; run the stage `encode` first")
    parts = []
    for shard in shards:
        path = shard_path(folder, shard, ".safetensors")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such shard; run the stage `encode` first")
        parts.append(load_tensors(path, "delete it and run the stage `encode` again"))
    keys = set.intersection(*map(set, parts))
    return Latents(**{key: np.concatenate([part[key] for part in parts]) for key in keys})


def add_rewards(folder: Path, shard: int, episodes: Path) -> None:
    """Write a shard of latents anew, with the rewards of its episodes, if it has none yet.

    Where it is a link to another run's, that one is left as it is.

    Raises:
        FileNotFoundError: there is no such shard, or its episodes are not there.
        ValueError: they are not the episodes that were encoded.
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
    """Return mu, logvar (I, Z) of the first frames of at most `limit` episodes.

    A dream starts from one of these (the authors kept 1,000).
    """
    starts = latents.starts[:limit]
    return latents.mu[starts].astype(np.float32), latents.logvar[starts].astype(np.float32)

"""Episodes on disk: each shard is a Minari dataset, which any Minari program reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gymnasium import spaces

from worldmodels_fast.data.shards import shard_path
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.utils.files import read_json


@dataclass(frozen=True)
class Episode:
    """One episode of T steps in the real environment.

    Attributes:
        frames: uint8 (T, 64, 64, 3); frame t is what was seen *before* action t.
        actions: float32 (T, A).
        rewards: float32 (T,).
        terminated: whether the last step ended the episode (a death), as opposed to a time limit.
        seed: the environment's seed for this episode.
    """

    frames: Frames
    actions: Floats
    rewards: Floats
    terminated: bool
    seed: int

    def __len__(self) -> int:
        return len(self.actions)


def write_episodes(folder: Path, shard: int, episodes: Iterable[Episode], env_id: str) -> None:
    """Write one shard as a Minari dataset of raw (not JPEG) frames; an older one is replaced.

    Minari wants T + 1 observations; the last one, which no action follows, repeats frame T - 1.

    Args:
        folder: the `episodes/` folder.
        shard: number of the shard.
        episodes: its episodes, at least one.
        env_id: Gymnasium id of the environment, kept in the metadata.

    Raises:
        ValueError: no episodes.
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = folder.resolve()  # Minari measures a dataset in a relative folder at a wrong place
    folder.mkdir(parents=True, exist_ok=True)
    final = shard_path(folder, shard)
    unfinished = shard_path(folder, shard, f".{os.getpid()}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    storage = None
    for episode in episodes:
        if storage is None:
            storage = MinariStorage.new(
                unfinished,
                observation_space=spaces.Box(0, 255, episode.frames.shape[1:], np.uint8),
                action_space=spaces.Box(-1.0, 1.0, episode.actions.shape[1:], np.float32),
                data_format="hdf5",
                jpeg_encoding=False,
            )
        steps = len(episode)
        ends = np.zeros(steps, dtype=np.bool_)
        ends[-1] = True
        never = np.zeros(steps, dtype=np.bool_)
        storage.update_episodes(
            [
                EpisodeBuffer(
                    seed=episode.seed,
                    observations=np.concatenate([episode.frames, episode.frames[-1:]]),
                    actions=episode.actions,
                    rewards=episode.rewards,
                    terminations=ends if episode.terminated else never,
                    truncations=never if episode.terminated else ends,
                )
            ]
        )
    if storage is None:
        raise ValueError(f"episodes: shard {shard} would be empty, expected at least one episode")
    storage.update_metadata(
        {
            "dataset_id": f"worldmodels-fast/{env_id.split('/')[-1].lower()}/shard{shard:05d}-v0",
            "minari_version": minari.__version__,
        }
    )
    if final.exists():  # its writer was killed between this line and telling anybody
        shutil.rmtree(final)
    os.replace(unfinished, final)


def shard_steps(folder: Path, shard: int) -> int:
    """Return how many frames a shard holds, without reading them.

    Raises:
        FileNotFoundError: there is no such shard.
    """
    metadata = _existing(folder, shard) / "metadata.json"
    return int((read_json(metadata) or {})["total_steps"])


def _existing(folder: Path, shard: int) -> Path:
    path = shard_path(folder, shard)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such shard; run the stage `collect` first")
    return path


def read_episodes(folder: Path, shard: int) -> Iterator[Episode]:
    """Read one shard's episodes, one at a time.

    Raises:
        FileNotFoundError: there is no such shard.
    """
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.read(_existing(folder, shard))
    seeds = [m.get("seed", -1) for m in storage.get_episode_metadata(range(storage.total_episodes))]
    for raw, seed in zip(storage.get_episodes(range(storage.total_episodes)), seeds, strict=True):
        yield Episode(
            frames=raw["observations"][:-1],
            actions=raw["actions"],
            rewards=np.asarray(raw["rewards"], dtype=np.float32),
            terminated=bool(raw["terminations"][-1]),
            seed=int(seed),
        )

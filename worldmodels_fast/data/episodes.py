"""Episodes on disk: each shard is a Minari dataset, which any Minari program reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from worldmodels_fast.data.shards import shard_path
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.utils.files import new_folder, read_json, reading


@dataclass(frozen=True, repr=False)
class Episode:
    """One episode of T steps in the real environment.

    Attributes:
        frames: uint8 (T, 64, 64, 3); frame t is the observation *before* action t.
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

    def __repr__(self) -> str:
        return (
            f"Episode(steps={len(self)}, frames={self.frames.shape[1:]}, "
            f"action_dim={self.actions.shape[-1]}, score={self.rewards.sum():g}, "
            f"terminated={self.terminated}, seed={self.seed})"
        )


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

    folder = folder.resolve()  # Minari misreads the size of a dataset in a relative folder
    with new_folder(shard_path(folder, shard)) as unfinished:
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
            raise ValueError(
                f"episodes: shard {shard} would be empty, expected at least one episode"
            )
        name = env_id.split("/")[-1].lower()
        storage.update_metadata(
            {
                "dataset_id": f"worldmodels-fast/{name}/shard{shard:05d}-v0",
                "minari_version": minari.__version__,
            }
        )


def shard_steps(folder: Path, shard: int) -> int:
    """Return the number of frames in a shard, without reading them.

    Raises:
        FileNotFoundError: there is no such shard.
        ValueError: its metadata are damaged.
    """
    path = _existing(folder, shard) / "metadata.json"
    with reading(path, _ADVICE):
        return int((read_json(path, _ADVICE) or {})["total_steps"])


def read_episodes(folder: Path, shard: int) -> Iterator[Episode]:
    """Yield one shard's episodes.

    Raises:
        FileNotFoundError: there is no such shard.
        ValueError: the shard is damaged, or an action or a reward in it is NaN or infinite.
    """
    from minari.dataset.minari_storage import MinariStorage

    path = _existing(folder, shard)
    with reading(path, _ADVICE):
        storage = MinariStorage.read(path)
        numbers = range(storage.total_episodes)
        seeds = [int(m.get("seed", -1)) for m in storage.get_episode_metadata(numbers)]
        for raw, seed in zip(storage.get_episodes(numbers), seeds, strict=True):
            yield _checked(
                Episode(
                    frames=raw["observations"][:-1],
                    actions=raw["actions"],
                    rewards=np.asarray(raw["rewards"], dtype=np.float32),
                    terminated=bool(raw["terminations"][-1]),
                    seed=seed,
                )
            )


_ADVICE = "delete the shard and run the stage `collect` again"


def _checked(episode: Episode) -> Episode:
    """Return an episode that was read, if its arrays are those of an episode."""
    steps = len(episode.actions)
    shapes: dict[str, tuple[npt.NDArray[Any], type, tuple[int, ...]]] = {
        "frames": (episode.frames, np.uint8, (steps, 64, 64, 3)),
        "actions": (episode.actions, np.float32, (steps, episode.actions.shape[-1])),
        "rewards": (episode.rewards, np.float32, (steps,)),
    }
    for name, (array, dtype, shape) in shapes.items():
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{name}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
            )
        if name != "frames" and not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return episode


def _existing(folder: Path, shard: int) -> Path:
    path = shard_path(folder, shard)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such shard; run the stage `collect` first")
    return path

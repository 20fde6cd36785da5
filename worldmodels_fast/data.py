"""The stores between the stages: episodes (frames) and latents, both in shards.

A shard is a folder that appears whole or not at all: it is written under a temporary name and
renamed, so a killed collection continues with the shards that are missing. `episodes/` holds
shards that are Minari datasets (any Minari program reads them); `latents/` holds one safetensors
file per shard. Frames are only ever read a few shards at a time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import re
import shutil
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from safetensors.numpy import load_file, save

HELD_OUT_EVERY = 20
"""Every 20th shard is never trained on: losses are reported on it."""

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


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


def shard_path(folder: Path, shard: int, suffix: str = "") -> Path:
    """Return where shard number `shard` lies in `folder`."""
    return folder / f"shard-{shard:05d}{suffix}"


def finished_shards(folder: Path, suffix: str = "") -> list[int]:
    """Return the numbers of the shards that `folder` holds, sorted; none if there is no folder."""
    if not folder.is_dir():
        return []
    name = re.compile(r"shard-([0-9]+)" + re.escape(suffix))
    matches = (name.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers have left in `folder`; nobody may be writing into it now."""
    for path in folder.glob("shard-*.unfinished"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def split_held_out(shards: Sequence[int]) -> tuple[list[int], list[int]]:
    """Split shard numbers into (training, held-out); with a single shard both are that one."""
    held_out = [s for s in shards if s % HELD_OUT_EVERY == HELD_OUT_EVERY - 1] or list(shards[-1:])
    training = [s for s in shards if s not in held_out] or list(shards)
    return training, held_out


# --- episodes ---------------------------------------------------------------------------------


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
    return int(json.loads(metadata.read_text())["total_steps"])


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


def read_frames(folder: Path, *shards: int) -> Frames:
    """Return all frames of some shards, uint8 (sum of T, 64, 64, 3)."""
    n = sum(shard_steps(folder, shard) for shard in shards)
    frames: Frames | None = None
    filled = 0
    for shard in shards:
        for episode in read_episodes(folder, shard):
            if frames is None:
                frames = np.empty((n, *episode.frames.shape[1:]), np.uint8)
            frames[filled : filled + len(episode)] = episode.frames
            filled += len(episode)
    if frames is None or filled != n:
        raise ValueError(f"{folder}: expected {n} frames in shards {shards}, found {filled}")
    return frames


def frame_batches(
    folder: Path,
    shards: Sequence[int],
    batch: int,
    *,
    seed: int,
    first_step: int = 0,
    shards_in_memory: int = 8,
) -> Generator[Frames, None, None]:
    """Yield shuffled batches of frames for ever, reading ahead in a thread; close it when done.

    Each epoch deals the shards out in random groups of `shards_in_memory`; the frames of a group
    are shuffled together, and those that do not fill a batch are left out. At most two groups are
    in memory. Order depends on `seed` alone, and a resumed training passes `first_step`, the number
    of batches it has already taken; the groups that it then skips are not read.

    Args:
        folder: the `episodes/` folder.
        shards: numbers of the shards to read.
        batch: frames per batch.
        seed: seed of the order.
        first_step: batches to skip.
        shards_in_memory: shards shuffled together.

    Yields:
        uint8 (batch, 64, 64, 3).

    Raises:
        ValueError: the shards hold fewer frames than one batch.
    """
    # A group's frames, and the order in which to take them. Or why there are none.
    ahead: queue.SimpleQueue[tuple[Frames, npt.NDArray[np.int64]] | BaseException]
    ahead = queue.SimpleQueue()
    wanted = threading.Semaphore()  # one group is read ahead of the one in use
    stop = threading.Event()

    def read_ahead() -> None:
        try:
            steps = {int(shard): shard_steps(folder, int(shard)) for shard in shards}
            to_skip = first_step
            epoch = 0
            while True:
                rng = np.random.default_rng((seed, epoch))
                order = [int(shard) for shard in rng.permutation(np.asarray(shards))]
                batches_in_epoch = 0
                for start in range(0, len(order), shards_in_memory):
                    group = order[start : start + shards_in_memory]
                    n_frames = sum(steps[shard] for shard in group)
                    n_batches = n_frames // batch
                    batches_in_epoch += n_batches
                    picks = rng.permutation(n_frames)[: n_batches * batch]
                    skipped = min(to_skip, n_batches)
                    to_skip -= skipped
                    if skipped == n_batches:
                        continue
                    wanted.acquire()
                    if stop.is_set():
                        return
                    ahead.put((read_frames(folder, *group), picks[skipped * batch :]))
                if batches_in_epoch == 0:
                    raise ValueError(
                        f"{folder}: {len(shards)} shards hold too few frames for one batch of "
                        f"{batch}; collect more episodes or make the batch smaller"
                    )
                epoch += 1
        except BaseException as error:
            ahead.put(error)

    reader = threading.Thread(target=read_ahead, name="frame-reader", daemon=True)
    reader.start()
    try:
        while True:
            item = ahead.get()
            if isinstance(item, BaseException):
                raise item
            frames, picks = item
            del item
            wanted.release()
            for start in range(0, len(picks), batch):
                yield frames[picks[start : start + batch]]
            del frames
    finally:
        stop.set()
        wanted.release()
        reader.join()


# --- latents ----------------------------------------------------------------------------------


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
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = shard_path(folder, shard, ".safetensors.unfinished")
    arrays: dict[str, npt.NDArray[Any]] = {
        "mu": latents.mu,
        "logvar": latents.logvar,
        "actions": latents.actions,
        "lengths": latents.lengths,
        "terminated": latents.terminated,
    }
    if latents.rewards is not None:
        arrays["rewards"] = latents.rewards
    unfinished.write_bytes(save(arrays))  # `save_file`'s would be for its owner's eyes only
    os.replace(unfinished, shard_path(folder, shard, ".safetensors"))


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
        parts.append(load_file(path))
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

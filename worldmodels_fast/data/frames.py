"""Frames of stored episodes in shuffled batches for V, a few shards in memory at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worldmodels_fast.data.episodes import read_episodes, shard_steps
from worldmodels_fast.types import Frames


def read_frames(folder: Path, *shards: int) -> Frames:
    """Return all frames of some shards, uint8 (sum of T, 64, 64, 3).

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: a shard is damaged.
    """
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

    Each epoch splits the shards into random groups of `shards_in_memory`; the frames of a group are
    shuffled together, and those that do not fill a batch are left out. At most two groups are in
    memory. The order depends on `seed` alone. A resumed training passes `first_step`, the number of
    batches it has already taken; groups without a batch after that are not read.

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
        ValueError: the shards hold fewer frames than one batch, or one is damaged.
    """
    # A group's frames with the order of its batches, or the exception that reading raised.
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

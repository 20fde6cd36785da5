"""Episodes that nothing was trained on, read a shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from worldmodels_fast import data
from worldmodels_fast.envs.registry import FRAME_SIZE
from worldmodels_fast.types import Bools, Floats, Frames, Indices


class HeldOut:
    """Some episodes end to end: N tics in all, as latents in memory and as frames on disk.

    Args:
        episodes: folder of episode shards.
        latents: folder of the same shards, encoded.
        shards: their numbers.
        limit: episodes taken, from the first; at least one.

    Attributes:
        mu: float32 (N, Z).
        logvar: float32 (N, Z).
        actions: float32 (N, A).
        lengths: int64 (E,).
        starts: int64 (E,), index of each episode's first tic.
        terminated: bool (E,), whether the last tic ended it (a death), not a time limit.
        rewards: float32 (N,), the game's for each action; None in stores of earlier versions.

    Raises:
        ValueError: no shards.
        FileNotFoundError: a shard is missing.
    """

    def __init__(self, episodes: Path, latents: Path, shards: Sequence[int], limit: int) -> None:
        parts: list[data.Latents] = []
        for shard in shards:
            parts.append(data.read_latents(latents, [shard]))
            if sum(len(part.lengths) for part in parts) >= limit:
                break
        stored = data.read_latents(latents, shards[: len(parts)])
        n = min(limit, len(stored.lengths))
        tics = int(stored.lengths[:n].sum())
        self.mu: Floats = stored.mu[:tics].astype(np.float32)
        self.logvar: Floats = stored.logvar[:tics].astype(np.float32)
        self.actions: Floats = stored.actions[:tics]
        self.lengths: Indices = np.asarray(stored.lengths[:n], np.int64)
        self.starts: Indices = np.cumsum(self.lengths) - self.lengths
        self.terminated: Bools = np.asarray(stored.terminated[:n], np.bool_)
        self.rewards: Floats | None = None if stored.rewards is None else stored.rewards[:tics]
        self._episodes = episodes
        self._shards = [(s, len(part.lengths)) for s, part in zip(shards, parts, strict=False)]

    def __len__(self) -> int:
        return len(self.mu)

    @property
    def in_episode(self) -> Indices:
        """(N,): number of each tic in its episode, from 0."""
        return np.arange(len(self)) - np.repeat(self.starts, self.lengths)

    @property
    def dies(self) -> Bools:
        """(N,): whether a tic ended its episode."""
        dies = np.zeros(len(self), np.bool_)
        dies[(self.starts + self.lengths - 1)[self.terminated]] = True
        return dies

    def sampled(self, seed: int) -> Floats:
        """Return z (N, Z) drawn from V's distribution, as an agent and M's training see it."""
        noise = np.random.default_rng(seed).standard_normal(self.mu.shape, dtype=np.float32)
        z: Floats = self.mu + np.exp(0.5 * self.logvar) * noise
        return z

    def windows(self, n: int, before: int, after: int, seed: int) -> Indices:
        """Return at most n tics, ascending, each with `before` and `after` tics of its episode."""
        t = self.in_episode
        left = np.repeat(self.lengths, self.lengths) - 1 - t
        possible = np.flatnonzero((t >= before) & (left >= after))
        rng = np.random.default_rng(seed)
        return np.sort(rng.choice(possible, min(n, len(possible)), replace=False))

    def read(self, tics: Indices) -> Iterator[tuple[Indices, Frames]]:
        """Yield (indices into `tics`, their frames uint8 (n, 64, 64, 3)) episode by episode.

        Raises:
            ValueError: the episodes are not those that were encoded.
        """
        wanted = np.searchsorted(self.starts, tics, side="right") - 1  # the episode of each
        last = -1
        for shard, n in self._shards:
            first, last = last + 1, last + n
            if not ((wanted >= first) & (wanted <= last)).any():
                continue
            stored = data.read_episodes(self._episodes, shard)
            for number, episode in zip(range(first, len(self.lengths)), stored, strict=False):
                start, length = self.starts[number], self.lengths[number]
                if len(episode) != length:
                    raise ValueError(
                        f"{self._episodes}: episode {number} of the held-out ones has "
                        f"{len(episode)} tics, its latents {length}; encode these episodes again"
                    )
                places = np.flatnonzero(wanted == number)
                if places.size:
                    yield places, episode.frames[tics[places] - start]

    def frames(self, tics: Indices) -> Frames:
        """Return the frames of these tics, uint8 (n, 64, 64, 3)."""
        out = np.empty((len(tics), FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        for places, frames in self.read(tics):
            out[places] = frames
        return out

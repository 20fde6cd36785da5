"""The scheduler of a game: which slot plays which episode, and which are played again."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels_fast.rollout import worker as messages
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult, OnEpisode, OnStep
from worldmodels_fast.rollout.slots import Slots
from worldmodels_fast.rollout.worker import Task
from worldmodels_fast.rollout.worker_pool import WorkerPool
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.processes import MAX_TRIES, describe, too_many_failures

if TYPE_CHECKING:
    from worldmodels_fast.rollout.device_players import DevicePlayers


class Scheduler:
    """One call of `Game.play`: episodes waiting, running, and finished.

    Args:
        players: V, M and C on a device, for all workers; None if each worker has its own.
        pool: the workers.
        population: (P, n_params) float32.
        episodes: to be played, each by a row of the population.
        on_episode: see `OnEpisode`.
        on_step: see `OnStep`.
    """

    def __init__(
        self,
        players: DevicePlayers | None,
        pool: WorkerPool,
        population: Floats,
        episodes: Sequence[Episode],
        on_episode: OnEpisode | None,
        on_step: OnStep | None,
    ) -> None:
        self._players = players
        self._pool = pool
        self._population = population
        self._episodes = episodes
        self._on_episode = on_episode
        self._on_step = on_step
        self._results: dict[int, EpisodeResult] = {}
        self._tries = [0] * len(episodes)
        self._waiting = deque(range(len(episodes)))
        self._running: dict[int, int] = {}  # slot -> episode
        self._awaiting_actions: dict[int, Slots] = {}  # worker -> its slots, for a device

    def play(self) -> list[EpisodeResult]:
        """Play all episodes; results in their order."""
        first: dict[int, list[int]] = {}
        for slot in range(min(self._pool.n_slots, len(self._episodes))):
            first.setdefault(self._pool.worker_of(slot), []).append(slot)
        for worker, slots in first.items():
            self._assign(worker, slots)
        while self._running:
            for worker, message in self._pool.receive():
                if message is None:
                    self._worker_lost(worker)
                else:
                    self._handle(worker, *message)
            self._act_on_device()
        return [self._results[number] for number in range(len(self._episodes))]

    def _assign(self, worker: int, slots: Iterable[int]) -> None:
        """Send a waiting worker the next episodes for these slots, or none if none are left."""
        tasks = []
        for slot, number in zip(slots, _popped(self._waiting), strict=False):
            episode = self._episodes[number]
            params = self._population[episode.member]
            self._running[slot] = number
            if self._players is not None:
                rng = np.random.default_rng(episode.player_seed)
                self._players.begin(slot, params, rng)
            report_steps = self._on_step is not None
            tasks.append(Task(slot, episode.env_seed, episode.player_seed, params, report_steps))
        self._pool.send(worker, tasks, len(tasks))

    def _handle(self, worker: int, kind: int, *content: Any) -> None:
        """Handle a message of a worker; see `rollout.worker`."""
        if kind == messages.STEP:
            slot, *step = content
            assert self._on_step is not None
            self._on_step(self._running[slot], *step)
        elif kind == messages.ACT:
            (self._awaiting_actions[worker],) = content
        elif kind == messages.DONE:
            slot, *result = content
            number = self._running.pop(slot)
            self._results[number] = EpisodeResult(*result)
            self._pool.episode_done(worker)
            self._assign(worker, [slot])
            if self._on_episode is not None:
                self._on_episode(number, self._results[number])
        else:
            slot, error = content
            self._pool.episode_done(worker)
            self._retry(worker, [slot], [slot], error)

    def _act_on_device(self) -> None:
        """Compute actions on the device for half of the slots or more; others' workers step."""
        n = sum(map(len, self._awaiting_actions.values()))
        if self._players is None or n == 0 or n < len(self._running) // 2:
            return
        workers, groups = zip(*self._awaiting_actions.items(), strict=True)
        self._awaiting_actions = {}
        slots = np.concatenate(groups)
        z, actions = self._players.act(slots, self._pool.slots["frame"][slots])
        ends = np.cumsum([len(group) for group in groups])
        for worker, part in zip(workers, np.split(actions, ends[:-1]), strict=True):
            self._pool.send(worker, part)
        self._players.remember(slots, z, actions)

    def _worker_lost(self, worker: int) -> None:
        error = self._pool.remove_lost(worker)
        self._awaiting_actions.pop(worker, None)
        lost = [slot for slot in self._running if self._pool.worker_of(slot) == worker]
        # It was inside one environment's code, or (killed from outside) of none.
        stepping = self._pool.slots["stepping"]
        blamed = [slot for slot in lost if stepping[slot]] or lost
        if lost:
            self._retry(worker, lost, blamed, error)

    def _retry(
        self, worker: int, slots: Sequence[int], blamed: Sequence[int], error: Exception
    ) -> None:
        """Play the episodes of these slots again; those of blamed slots count as tried."""
        numbers = [self._running.pop(slot) for slot in slots]
        for slot, number in zip(slots, numbers, strict=True):
            self._tries[number] += slot in blamed
            if self._tries[number] >= MAX_TRIES:
                name = f"episode {number}, {self._episodes[number]}"
                raise too_many_failures(name, error) from error
        warnings.warn(
            f"a worker failed ({describe(error)}); playing again: "
            + ", ".join(f"episode {number}" for number in numbers),
            RuntimeWarning,
            stacklevel=5,
        )
        self._waiting.extendleft(reversed(numbers))
        self._assign(worker, slots)


def _popped(waiting: deque[int]) -> Iterator[int]:
    """Pop from the left until nothing is left."""
    while waiting:
        yield waiting.popleft()

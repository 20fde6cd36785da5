"""The worker processes of a game and their pipes."""

from __future__ import annotations

import selectors
import time
from typing import Any

from worldmodels_fast.rollout.worker import SLOT_DTYPE, WorkerSettings, run_worker, shared_slots
from worldmodels_fast.utils.shared_memory import SharedMemory
from worldmodels_fast.utils.worker_process import POLL_SECONDS, WorkerProcess, stop_workers


class WorkerPool:
    """The worker processes. Slot s belongs to worker s modulo their number.

    Workers start when they are first sent something.

    Args:
        workers: their number.
        slots: environments in all.
        settings: see `WorkerSettings`.

    Attributes:
        n_slots: environments in all.
        slots: (n_slots,) of `SLOT_DTYPE`, in shared memory.
    """

    def __init__(self, workers: int, slots: int, settings: WorkerSettings) -> None:
        self.n_slots = slots
        self._memory = SharedMemory(slots * SLOT_DTYPE.itemsize)
        self.slots = shared_slots(self._memory.buffer)
        self._settings = settings
        self._workers: list[WorkerProcess | None] = [None] * workers
        self._episodes = [0] * workers  # assigned to each and not done
        # Not epoll, whose registrations a forked process shares.
        self._pipes = selectors.PollSelector()
        self._next_look = 0.0

    def worker_of(self, slot: int) -> int:
        """Return the number of the worker that a slot belongs to."""
        return slot % len(self._workers)

    def send(self, number: int, message: Any, episodes: int = 0) -> None:
        """Answer a worker, or send a new or idle one its episodes.

        Nothing is raised if it is dead: `receive` returns None for it.
        """
        worker = self._workers[number] or self._start(number)
        self._episodes[number] += episodes
        worker.send(message)

    def episode_done(self, number: int) -> None:
        """Note that a worker has one episode less to play."""
        self._episodes[number] -= 1

    def receive(self) -> list[tuple[int, Any]]:
        """Wait for messages: pairs of a worker and its message, None if it is lost.

        Raises:
            RuntimeError: a worker could not start.
        """
        while True:
            readable = self._pipes.select(POLL_SECONDS)
            received = [
                (key.data, message) for key, _ in readable for message in self._read(key.data)
            ]
            if not readable or time.monotonic() > self._next_look:
                self._next_look = time.monotonic() + POLL_SECONDS
                quiet = enumerate(self._workers)
                seen = {key.data for key, _ in readable}
                received += [
                    (n, None)
                    for n, worker in quiet
                    if worker and n not in seen and worker.is_lost and not worker.pipe.poll()
                ]
            if received:
                return received

    def _read(self, number: int) -> tuple[Any, ...]:
        """Return a worker's message; None if it is dead; nothing if it has just started."""
        worker = self._workers[number]
        assert worker is not None
        try:
            return worker.read()
        except EOFError:
            return (None,)

    def _start(self, number: int) -> WorkerProcess:
        """Start the worker of this number."""
        self.slots["stepping"][number :: len(self._workers)] = False
        memory = self._memory.fd
        worker = WorkerProcess.start(
            run_worker, memory, number, len(self._workers), self._settings, pass_fds=[memory]
        )
        self._pipes.register(worker.pipe, selectors.EVENT_READ, number)
        self._workers[number] = worker
        self._episodes[number] = 0
        return worker

    def remove_lost(self, number: int) -> Exception:
        """Remove a lost worker; return an error that says how it ended."""
        worker = self._workers[number]
        assert worker is not None
        self._workers[number] = None
        self._pipes.unregister(worker.pipe)
        return worker.reap()

    def close(self) -> None:
        """Stop all workers, also in the middle of an episode."""
        idle: list[WorkerProcess] = []
        busy: list[WorkerProcess] = []
        for worker, episodes in zip(self._workers, self._episodes, strict=True):
            if worker is not None:
                self._pipes.unregister(worker.pipe)
                (busy if episodes else idle).append(worker)
        self._workers = [None] * len(self._workers)
        stop_workers(idle, busy)

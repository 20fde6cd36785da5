"""The worker processes of a game and their pipes."""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
from ctypes import c_ubyte
from typing import Any

from worldmodels_fast.rollout.worker import SLOT_DTYPE, WorkerSettings, run_worker, shared_slots
from worldmodels_fast.utils.processes import WorkerProcess, stop_workers

POLL_SECONDS = 0.5
"""The pipe of a dead worker ends at once, unless a process that it started holds it open; then the
worker's death is noticed after this time."""


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
        # Memory without a name: it is gone with the last process, however they end.
        context = multiprocessing.get_context("spawn")
        self._memory = context.RawArray(c_ubyte, slots * SLOT_DTYPE.itemsize)
        self.slots = shared_slots(self._memory)
        self._settings = settings
        self._workers: list[WorkerProcess | None] = [None] * workers
        self._episodes = [0] * workers  # assigned to each and not done
        self._pipes = selectors.DefaultSelector()

    def worker_of(self, slot: int) -> int:
        """Return the number of the worker that a slot belongs to."""
        return slot % len(self._workers)

    def send(self, number: int, message: Any, episodes: int = 0) -> None:
        """Answer a worker, or send a new or idle one its episodes."""
        worker = self._workers[number] or self._start(number)
        self._episodes[number] += episodes
        # A dead worker is noticed by `receive`.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(message)

    def episode_done(self, number: int) -> None:
        """Note that a worker has one episode less to play."""
        self._episodes[number] -= 1

    def receive(self) -> list[tuple[int, Any]]:
        """Wait for messages: pairs of a worker and its message, None if it is dead."""
        while True:
            received = [
                (key.data, self._read(key.data)) for key, _ in self._pipes.select(POLL_SECONDS)
            ]
            if not received:
                received = [(n, None) for n, w in enumerate(self._workers) if w and w.has_ended]
            if received:
                return received

    def _read(self, number: int) -> Any:
        worker = self._workers[number]
        assert worker is not None
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            return None

    def _start(self, number: int) -> WorkerProcess:
        """Start the worker of this number."""
        self.slots["stepping"][number :: len(self._workers)] = False
        worker = WorkerProcess.start(
            run_worker, self._memory, number, len(self._workers), self._settings
        )
        self._pipes.register(worker.pipe, selectors.EVENT_READ, number)
        self._workers[number] = worker
        self._episodes[number] = 0
        return worker

    def remove_dead(self, number: int) -> Exception:
        """Remove a worker that has died; return an error that says how it ended."""
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

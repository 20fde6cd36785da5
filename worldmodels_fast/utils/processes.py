"""Tasks in worker processes: a worker that dies is named and its task is done again.

Each worker has one task at a time, so when it dies (a crash of a game's engine, the out-of-memory
killer) the task that it was doing is known, and the other workers go on.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from worldmodels_fast.utils.arguments import checked_integer
from worldmodels_fast.utils.worker_main import picklable
from worldmodels_fast.utils.worker_process import (
    POLL_SECONDS,
    WorkerDied,
    WorkerProcess,
    stop_workers,
)

__all__ = ["MAX_TRIES", "describe", "n_workers", "run_tasks", "too_many_failures"]

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_TRIES = 3
"""A task whose worker died, or that raised, is tried this often in all."""


def n_workers(workers: int | None) -> int:
    """Return `workers`, or the number of processors this process may use if None.

    Raises:
        TypeError: not an integer.
        ValueError: fewer than one worker.
    """
    if workers is not None:
        return checked_integer("workers", workers, low=1)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, function(task)) in the order in which they finish.

    A task that raises, or whose worker dies, is done again with a `RuntimeWarning` which says what
    happened.

    Args:
        function: a module's top-level function. One that is defined in the main script is found by
            importing the script in each worker: such a script calls `run_tasks` under
            `if __name__ == "__main__":`.
        tasks: picklable, as results are.
        workers: processes; None for one on each processor.

    Raises:
        TypeError: `workers` is not an integer, or `function` cannot be pickled.
        ValueError: fewer than one worker.
        RuntimeError: a worker cannot start, or a task failed `MAX_TRIES` times; the (last) error is
            the cause.
    """
    n = min(n_workers(workers), len(tasks))
    tries = [0] * len(tasks)
    waiting = list(range(len(tasks)))[::-1]
    pool: list[_Worker] = []
    unfinished = len(tasks)
    try:
        while unfinished:
            while waiting and len(pool) < min(n, unfinished):
                pool.append(_Worker.start(_task_loop, function))
            for worker in pool:
                if worker.task is None and waiting:
                    worker.assign(waiting.pop(), tasks)
            for worker in _ready(pool):
                for index, result, error in worker.results():
                    if isinstance(error, WorkerDied):
                        pool.remove(worker)
                    if error is None:
                        unfinished -= 1
                        yield tasks[index], result
                        continue
                    tries[index] += 1
                    if tries[index] >= MAX_TRIES:
                        raise too_many_failures(f"task {tasks[index]!r}", error) from error
                    warnings.warn(
                        f"a worker failed ({describe(error)}); doing its task again: "
                        f"{tasks[index]!r}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                    waiting.append(index)
    finally:
        busy = [worker for worker in pool if worker.task is not None]
        stop_workers([worker for worker in pool if worker.task is None], busy)


def describe(error: Exception) -> str:
    """Return the error's type and message."""
    return f"{type(error).__name__}: {error}"


def too_many_failures(task: str, error: Exception) -> RuntimeError:
    """Return what to raise after `MAX_TRIES`: the last error with the worker's traceback."""
    failure = RuntimeError(f"{task} failed {MAX_TRIES} times; last: {describe(error)}")
    for note in getattr(error, "__notes__", ()):
        failure.add_note(note)
    return failure


class _Worker(WorkerProcess):
    """A worker of `run_tasks`.

    Attributes:
        task: the number of its task; None if it has none.
    """

    task: int | None = None

    def assign(self, index: int, tasks: Sequence[Any]) -> None:
        """Send it a task."""
        self.task = index
        self.send(tasks[index])

    def results(self) -> list[tuple[int, Any, Exception | None]]:
        """Return its task's number with the result or the error; nothing if it has just started."""
        assert self.task is not None
        index = self.task
        try:
            if not self.pipe.poll():
                raise EOFError
            results = [(index, *message) for message in self.read()]
        except EOFError:
            results = [(index, None, self.reap())]
        if results:
            self.task = None
        return results


def _ready(pool: list[_Worker]) -> list[_Worker]:
    """Wait until some busy workers have sent something, or are lost."""
    busy = [worker for worker in pool if worker.task is not None]
    while True:
        readable = wait([worker.pipe for worker in busy], POLL_SECONDS)
        ready = [worker for worker in busy if worker.pipe in readable or worker.is_lost]
        if ready:
            return ready


def _task_loop(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Do tasks until the pipe ends: the loop of a worker."""
    while True:
        task = pipe.recv_bytes()
        try:
            result, error = function(pickle.loads(task)), None
        except Exception as raised:
            result, error = None, picklable(raised)
        try:
            pipe.send((result, error))
        except (pickle.PicklingError, AttributeError, TypeError) as raised:
            pipe.send((None, TypeError(f"the result cannot be pickled: {raised}")))

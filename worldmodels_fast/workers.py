"""Tasks in worker processes: a worker that dies is named and its task is done again.

Python's own process pool does the work; what is added is that the death of a worker (a crash of a
game's engine, the out-of-memory killer) neither hangs nor ends the run.
"""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_TRIES = 3
"""A task whose worker died, or that raised, is tried this often in all."""


def n_workers(workers: int | None) -> int:
    """Return `workers`, or the number of processors this process may use if None.

    Raises:
        ValueError: fewer than one worker.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, or None for all processors, got {workers}")
    return workers


def _prepare_worker() -> None:
    # Each worker is one process on one core; torch's own threads would fight over the cores.
    import torch

    torch.set_num_threads(1)


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, function(task)) in the order in which they finish.

    Processes are spawned, so `function` is a module's top-level function and tasks are picklable.

    Raises:
        RuntimeError: a task failed `MAX_TRIES` times; its last error is the cause.
    """
    n = min(n_workers(workers), len(tasks))
    if n == 0:
        return
    tries = dict.fromkeys(range(len(tasks)), 0)
    waiting = list(range(len(tasks)))[::-1]
    while waiting:
        pool = ProcessPoolExecutor(
            n, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
        )
        running: dict[Future[Result], int] = {}
        try:
            broken = False
            while (waiting or running) and not (broken and not running):
                # Two tasks per worker are enough to keep all of them busy.
                while waiting and not broken and len(running) < 2 * n:
                    index = waiting.pop()
                    try:
                        running[pool.submit(function, tasks[index])] = index
                    except BrokenProcessPool:
                        waiting.append(index)
                        broken = True
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index = running.pop(future)
                    error = future.exception()
                    if error is None:
                        yield tasks[index], future.result()
                        continue
                    broken = broken or isinstance(error, BrokenProcessPool)
                    tries[index] += 1
                    if tries[index] >= MAX_TRIES:
                        raise RuntimeError(
                            f"task {tasks[index]!r} failed {MAX_TRIES} times; last: "
                            f"{type(error).__name__}: {error}"
                        ) from error
                    warnings.warn(
                        f"a worker failed ({type(error).__name__}: {error}); "
                        f"doing its task again: {tasks[index]!r}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                    waiting.append(index)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

"""Tasks in worker processes: a worker that dies is named and its task is done again.

Each worker has one pipe and one task at a time, so when it dies (a crash of a game's engine, the
out-of-memory killer) it is known which task it took with it and how it ended; the other workers go
on. Workers end by themselves when the process that started them is gone.

`run_tasks` is for tasks that take a while; `WorkerProcess`, its building block, also serves
`rollout`, whose workers keep a state of their own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Self, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_TRIES = 3
"""A task whose worker died, or that raised, is tried this often in all."""

STOP_SECONDS = 5.0
"""Seconds that a worker may take to close its environments when it is stopped."""


def n_workers(workers: int | None) -> int:
    """Return `workers`, or the number of processors this process may use if None.

    Raises:
        ValueError: fewer than one worker.
    """
    if workers is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, or None for all processors, got {workers}")
    return workers


class WorkerDied(Exception):
    """A worker's process ended in the middle of a task; the message says how."""


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, function(task)) in the order in which they finish.

    Processes are spawned, so `function` is a module's top-level function, tasks and results are
    picklable, and a script that calls this has an `if __name__ == "__main__":`.

    A task that raises, or whose worker dies, is done again with a `RuntimeWarning` which says what
    happened.

    Raises:
        RuntimeError: a task failed `MAX_TRIES` times; its last error is the cause.
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
                index, result, error = worker.result()
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
                    f"a worker failed ({describe(error)}); doing its task again: {tasks[index]!r}",
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


@dataclass
class WorkerProcess:
    """A process and our end of the pipe to it."""

    process: BaseProcess
    pipe: Connection

    @classmethod
    def start(cls, main: Callable[..., None], *args: Any) -> Self:
        """Spawn a process that calls `main(pipe, *args)` and is done when the pipe ends.

        `main` is a module's top-level function. It leaves by `SystemExit` when it is told to stop.
        """
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker_main, args=(theirs, main, *args), daemon=True)
        process.start()
        theirs.close()  # or its end would not be seen when the process dies
        return cls(process, ours)

    @property
    def has_ended(self) -> bool:
        """Whether the process is over; its pipe may still be held open by what it had started."""
        return self.process.exitcode is not None

    def reap(self) -> WorkerDied:
        """Remove what is left of a worker that died; return an error that says how it ended."""
        self.pipe.close()
        self._wait_for_end()
        ending = _how_it_ended(self.process)
        self._kill_all()
        return WorkerDied(ending)

    def _wait_for_end(self) -> None:
        """Wait for the process's end, for a while.

        `Process.join` waits for the end of a pipe, which what the process has started holds, too.
        """
        end = time.monotonic() + STOP_SECONDS
        while self.process.exitcode is None and time.monotonic() < end:
            time.sleep(0.01)

    def _kill_all(self) -> None:
        """Kill the process and what it has started: a game's engine does not notice its death."""
        self.process.kill()
        if hasattr(os, "killpg") and self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def stop_workers(idle: Sequence[WorkerProcess], busy: Sequence[WorkerProcess] = ()) -> None:
    """Stop all these workers, also in the middle of a task; no process is left."""
    for worker in (*idle, *busy):
        worker.pipe.close()  # an idle worker reads the end of its pipe and goes
    for worker in busy:
        worker.process.terminate()
    for worker in (*idle, *busy):
        worker._wait_for_end()
        worker._kill_all()
        worker.process.join()


@dataclass
class _Worker(WorkerProcess):
    """A worker of `run_tasks`, and the number of its task."""

    task: int | None = None

    def assign(self, index: int, tasks: Sequence[Any]) -> None:
        self.task = index
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(tasks[index])  # a worker that is dead is noticed by `result`

    def result(self) -> tuple[int, Any, Exception | None]:
        """Return the task's number with its result, or with the error."""
        assert self.task is not None
        index, self.task = self.task, None
        try:
            if not self.pipe.poll():
                raise EOFError
            result, error = self.pipe.recv()
        except (EOFError, OSError):
            return index, None, self.reap()
        return index, result, error


def _ready(pool: list[_Worker]) -> list[_Worker]:
    """Wait until some busy workers have sent something, or are dead."""
    busy = [worker for worker in pool if worker.task is not None]
    while True:
        # A dead worker's pipe ends at once, unless a process that it started holds it open.
        readable = wait([worker.pipe for worker in busy], timeout=0.5)
        ready = [w for w in busy if w.pipe in readable or w.process.exitcode is not None]
        if ready:
            return ready


def _how_it_ended(process: BaseProcess) -> str:
    code = process.exitcode
    who = f"worker process {process.pid}"
    if code is None:
        return f"{who} closed its pipe but goes on running"
    if code >= 0:
        return f"{who} exited with status {code} in the middle of a task"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return f"{who} was killed by {name}{hint}"


# --- in the worker ----------------------------------------------------------------------------


def _worker_main(pipe: Connection, main: Callable[..., None], *args: Any) -> None:
    """Run `main` as a worker: no Ctrl-C, a process group of its own, one torch thread."""
    os.set_inheritable(pipe.fileno(), False)
    # Ctrl-C goes to every process of the terminal's group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    # Leave by way of `finally` and `atexit`: a game's engine must not outlive its worker.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    # A worker is one process on one core; torch's own threads would fight over the cores. It is
    # there if `main` needs it, or comes later and reads the variable.
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        main(pipe, *args)


def _task_loop(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Do tasks until the pipe ends."""
    while True:
        task = pipe.recv()
        try:
            result, error = function(task), None
        except Exception as raised:
            result, error = None, picklable(raised)
        try:
            pipe.send((result, error))
        except (pickle.PicklingError, AttributeError, TypeError) as raised:
            pipe.send((None, TypeError(f"the result cannot be pickled: {raised}")))


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def picklable(error: Exception) -> Exception:
    """The error with its traceback as a note; another one if it cannot be pickled and read."""
    text = "".join(traceback.format_exception(error))
    copy: Exception = RuntimeError(f"{type(error).__name__}: {error}")
    with contextlib.suppress(Exception):
        again = pickle.loads(pickle.dumps(error))
        if isinstance(again, Exception):
            copy = again
    copy.add_note(f"in the worker:\n{text}")
    return copy

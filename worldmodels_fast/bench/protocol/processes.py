"""Each contestant library in a process of its own, kept alive and told when it is its turn.

In one process the threads of one library disturb the next one's, and JAX takes its number of
threads once and for all. So every library has a process, which sleeps while another one is timed;
all are bound to the same processors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from worldmodels_fast.bench.protocol.machine import choose_cpus
from worldmodels_fast.bench.protocol.timing import Timed
from worldmodels_fast.utils.worker_main import picklable
from worldmodels_fast.utils.worker_process import WorkerProcess, stop_workers

P = ParamSpec("P")
T = TypeVar("T")


class Unavailable(Exception):
    """A contestant that cannot take part here; the message says why."""


class Library:
    """A process in which one library's contestants live.

    Args:
        threads: how many threads it may have, each on a processor of its own.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.worker = WorkerProcess.start(_serve, choose_cpus(threads))
        self._made = 0

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a module's top-level function over there; what it returns is pickled."""
        result: T = self._ask("call", function, args, kwargs)
        return result

    def make(self, function: Callable[P, Timed], *args: P.args, **kwargs: P.kwargs) -> Remote:
        """Call a top-level function that makes something `Timed`, which stays over there.

        Raises:
            Unavailable: it cannot take part here.
            Exception: whatever the function raised, with the process's traceback as a note.
        """
        self._made += 1
        self._ask("make", self._made, function, args, kwargs)
        return Remote(self, self._made)

    def _ask(self, *question: Any) -> Any:
        try:
            self.worker.send(question)
            result, error = self.worker.receive()
        except EOFError as lost:
            died = self.worker.reap()
            raise RuntimeError(f"a benchmark's process died: {died}") from lost
        if error is not None:
            raise error
        return result


class Remote:
    """Something `Timed` in a library's process; gone at the end of a `with` statement."""

    def __init__(self, library: Library, key: int) -> None:
        self._library, self._key = library, key

    def measure(self) -> float:
        """Do it once, over there; it is timed over there, too."""
        rate: float = self._library._ask("measure", self._key)
        return rate

    def get(self, attribute: str) -> Any:
        """One of its attributes, pickled."""
        return self._library._ask("get", self._key, attribute)

    def drop(self) -> None:
        """Free what it holds."""
        self._library._ask("drop", self._key)


class Libraries:
    """The processes of a benchmark, each started when it is first asked for."""

    def __init__(self) -> None:
        self._libraries: dict[tuple[str, int], Library] = {}

    def get(self, name: str, threads: int) -> Library:
        """The process of the library `name` that runs on so many threads."""
        key = (name, threads)
        if key not in self._libraries:
            self._libraries[key] = Library(threads)
        return self._libraries[key]

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [library.worker.pid for library in self._libraries.values()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        workers = [library.worker for library in self._libraries.values()]
        stop_workers(workers if kind is None else [], [] if kind is None else workers)


def _serve(pipe: Connection, cpus: Sequence[int]) -> None:
    """Answer questions until the pipe ends."""
    import torch

    if sys.platform == "linux":
        os.sched_setaffinity(0, cpus)
    torch.set_num_threads(len(cpus))
    os.environ["NPROC"] = str(len(cpus))  # the size of XLA's thread pool
    made: dict[int, Timed] = {}
    while True:
        question = pipe.recv()
        result, error = None, None
        try:
            match question:
                case ("call", function, args, kwargs):
                    result = function(*args, **kwargs)
                case ("make", key, function, args, kwargs):
                    made[key] = function(*args, **kwargs)
                case ("measure", key):
                    result = made[key].measure()
                case ("get", key, attribute):
                    result = getattr(made[key], attribute)
                case ("drop", key):
                    del made[key]
        except Exception as raised:
            error = picklable(raised)
        pipe.send((result, error))

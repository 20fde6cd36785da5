"""A worker process, from the process that starts it: start, messages, stop, and how it ended.

A worker is a fresh interpreter with a pipe of its own. Its function and arguments, the weights of
models among them, lie in a file without a name, so starting a worker waits for nothing. The worker
reads the file and reports that it is up; messages are sent from then on. A worker that dies before,
or takes longer than `START_SECONDS`, is lost like one that dies later. Workers end by themselves
when the process that started them is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import spawn
from multiprocessing.connection import wait
from typing import Any, Self

from worldmodels_fast.utils.shared_memory import unnamed_file
from worldmodels_fast.utils.worker_main import (
    Pipe,
    forbid_while_importing_main_script,
    main_script,
)

__all__ = [
    "POLL_SECONDS",
    "START_SECONDS",
    "STOP_SECONDS",
    "WorkerDied",
    "WorkerProcess",
    "stop_workers",
]

START_SECONDS = 120.0
"""Seconds that a worker may take to start: the interpreter, imports, its arguments."""

STOP_SECONDS = 5.0
"""Seconds that a worker may take to close its environments when it is stopped."""

POLL_SECONDS = 0.5
"""The pipe of a dead worker ends at once, unless a process that it started holds it open; then the
worker's death is noticed after this time."""

_BOOTSTRAP = """\
import pickle, sys
start = open({start}, "rb")
sys.path[:], sys.argv[:] = pickle.load(start)
from worldmodels_fast.utils.worker_main import run
run(start, {pipe})
"""


class WorkerDied(Exception):
    """A worker's process ended before its task did; the message says how."""


class WorkerProcess:
    """A worker, and our end of the pipe to it.

    Attributes:
        pipe: our end; readable when there is something for `read`, also when the worker is dead.
        pid: the worker's process id.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipe: Pipe) -> None:
        self.pipe = pipe
        self.pid = process.pid
        self._process = process
        self._owner = os.getpid()
        self._is_up = False
        self._deadline = time.monotonic() + START_SECONDS
        self._unsent: list[bytes] = []
        _workers.add(self)

    @classmethod
    def start(cls, main: Callable[..., None], *args: Any, pass_fds: Sequence[int] = ()) -> Self:
        """Start a process that calls `main(pipe, *args)`, and return at once.

        Args:
            main: a module's top-level function. It returns when the pipe ends (EOFError,
                BrokenPipeError and ConnectionResetError mean that), and leaves by `SystemExit` when
                the worker is stopped in the middle of a task.
            args: picklable.
            pass_fds: file descriptors that the worker has, too, under the same numbers.

        Raises:
            TypeError: `main` or `args` cannot be pickled.
            RuntimeError: a worker that imports the main script has come to a place which starts
                workers.
        """
        forbid_while_importing_main_script()
        ends = socket.socketpair()
        ours, theirs = (Pipe(end.detach()) for end in ends)
        with unnamed_file() as start, theirs:
            pickle.dump((sys.path, sys.argv), start)
            pickle.dump(main_script(), start)
            try:
                pickle.dump((main, args), start, pickle.HIGHEST_PROTOCOL)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise TypeError(
                    "a worker process: expected a module's top-level function and arguments that "
                    f"can be pickled, got {main!r}: {error}"
                ) from error
            start.seek(0)
            code = _BOOTSTRAP.format(start=start.fileno(), pipe=theirs.fileno())
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            process = subprocess.Popen(
                [spawn.get_executable(), *flags, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(start.fileno(), theirs.fileno(), *pass_fds),
                process_group=0,  # Ctrl-C goes to every process of the terminal's group
            )
        return cls(process, ours)

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended, or did not start in time.

        Its pipe may still be held open by what it had started.
        """
        late = not self._is_up and time.monotonic() > self._deadline
        return late or self._process.poll() is not None

    def send(self, message: Any) -> None:
        """Send a picklable message, as soon as the worker is up.

        Nothing is raised if the worker is dead: see `is_lost` and `read`.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if self._is_up:
            self._send(data)
        else:
            self._unsent.append(data)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(data)

    def read(self) -> tuple[Any, ...]:
        """Read from a readable pipe; return one message, or none if it was the report of the start.

        Raises:
            EOFError: the worker is dead.
            RuntimeError: it could not start; its error is the cause.
        """
        try:
            message = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        if self._is_up:
            return (message,)
        if message is not None:
            raise _start_failure(message) from message
        self._is_up = True
        for data in self._unsent:
            self._send(data)
        self._unsent = []
        return ()

    def receive(self) -> Any:
        """Wait for the next message and return it.

        Raises:
            EOFError, RuntimeError: see `read`.
        """
        while True:
            if wait([self.pipe], POLL_SECONDS):
                for message in self.read():
                    return message
            elif self.is_lost and not self.pipe.poll():
                raise EOFError

    def reap(self) -> WorkerDied:
        """Remove what is left of a lost worker; return an error that says how it ended."""
        self.pipe.close()
        if self._is_up or time.monotonic() < self._deadline:
            self._wait_for_end()
        ending = self._how_it_ended()
        self._kill_all()
        return WorkerDied(ending)

    def _wait_for_end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)

    def _kill_all(self) -> None:
        """Kill the process and what it has started: a game's engine does not notice its death."""
        self._process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._wait_for_end()
        _workers.discard(self)

    def _how_it_ended(self) -> str:
        code = self._process.poll()
        who = f"worker process {self.pid}"
        when = "in the middle of a task" if self._is_up else "while it started"
        if code is None and not self._is_up:
            return f"{who} did not start within {START_SECONDS:g} s"
        if code is None:
            return f"{who} closed its pipe but goes on running"
        if code >= 0:
            return f"{who} exited with status {code} {when}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
        return f"{who} was killed by {name}{'' if self._is_up else ' ' + when}{hint}"


def stop_workers(idle: Sequence[WorkerProcess], busy: Sequence[WorkerProcess] = ()) -> None:
    """Stop all these workers, also in the middle of a task; no process is left.

    In a process that was forked from the one that started them, they go on.
    """
    for worker in (*idle, *busy):
        worker.pipe.close()  # an idle worker reads the end of its pipe and goes
    ours = [worker for worker in (*idle, *busy) if worker._owner == os.getpid()]
    for worker in ours:
        if worker in busy or not worker._is_up:
            worker._process.terminate()
    end = time.monotonic() + STOP_SECONDS  # one for all
    try:
        for worker in ours:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker._process.wait(max(0.0, end - time.monotonic()))
    finally:
        for worker in ours:
            worker._kill_all()


def _start_failure(error: Exception) -> RuntimeError:
    """Return what to raise for a worker that has reported why it cannot start."""
    kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
    failure = RuntimeError(f"a worker process could not start: {kind}{error}")
    for note in getattr(error, "__notes__", ()):
        failure.add_note(note)
    return failure


_workers: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()
"""Workers that were started and are not stopped; the interpreter's exit stops them."""


@atexit.register
def _stop_all() -> None:
    stop_workers((), list(_workers))

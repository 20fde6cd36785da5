"""The main function of a worker process, and the import of the main script into it.

A worker is a fresh interpreter, started by `worker_process`. It imports the main script of the
process that started it only when a name that is defined there is looked up: when such a function is
unpickled, or when such a class is the entry point of an environment. So a script without an
`if __name__ == "__main__":`, a script from standard input and a notebook can start workers too, for
functions and classes that are defined in modules.
"""

from __future__ import annotations

import contextlib
import multiprocessing.context
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import spawn
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, BinaryIO

__all__ = [
    "Pipe",
    "forbid_while_importing_main_script",
    "import_main_script",
    "main_script",
    "picklable",
    "run",
]

_script: dict[str, str] | None = None
"""In a worker: its `main_script`."""

_importing = False
"""In a worker: whether it is importing the main script."""

_imported = False
"""In a worker: whether it has imported the main script."""


class Pipe(Connection):
    """An end of a pipe whose messages are pickled plainly.

    With `Connection.send` torch would send a tensor as a file descriptor of the sending process.
    """

    def send(self, obj: Any) -> None:
        """Send a message, by value."""
        self.send_bytes(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL))


def main_script() -> dict[str, str]:
    """Return the name or path of this process's main script, as `spawn.prepare` takes it.

    Empty if there is none: the script came from standard input, a notebook or `python -c`.
    """
    if _script is not None:  # a worker that starts workers
        return _script
    context: Any = multiprocessing.context._default_context
    chosen = context._actual_context
    try:
        data = spawn.get_preparation_data("worker")
    finally:
        context._actual_context = chosen  # looking must not choose a start method for the script
    if name := data.get("init_main_from_name"):
        return {"init_main_from_name": name}
    path = data.get("init_main_from_path", "")
    return {"init_main_from_path": path} if os.path.isfile(path) else {}


def import_main_script() -> bool:
    """Import the main script of the process that started this worker, once.

    Returns:
        Whether it was imported now; False if that was done before, or this is no worker.

    Raises:
        RuntimeError: it has no file.
        Exception: whatever the script raises.
    """
    global _importing, _imported
    if _script is None or _importing or _imported:
        return False
    if not _script:
        raise RuntimeError(
            "the main script cannot be imported by worker processes, because it came from standard "
            "input, `python -c` or a notebook; put what workers need into a module (a file), and "
            "import it from there"
        )
    _importing = True
    try:
        spawn.prepare(_script)
    finally:
        _importing = False
    _imported = True
    return True


def forbid_while_importing_main_script() -> None:
    """Refuse to start a worker while this one imports the main script.

    Raises:
        RuntimeError: it does, so the script starts workers without a guard.
    """
    if _importing:
        raise RuntimeError(
            "worker processes import the main script, because they need something that is defined "
            "there, and the script starts worker processes when it is imported; put that part of "
            'it under `if __name__ == "__main__":`, or what workers need into a module of its own'
        )


def _ask_main_script(name: str) -> Any:
    """Return an attribute of the main script: `__getattr__` of a worker's own `__main__`."""
    if name.startswith("__") or not import_main_script():
        raise AttributeError(f"the main script has no {name!r}", name=name)
    return getattr(sys.modules["__main__"], name)


def run(start: BinaryIO, pipe_fd: int) -> None:
    """Run a worker: without Ctrl-C, with one torch thread.

    The first message of a worker reports its start: None, or the error that prevented it.

    Args:
        start: holds, pickled, the `main_script` of the process that started this one, and then the
            worker's function and its arguments.
        pipe_fd: file descriptor of the worker's end of its pipe.
    """
    global _script
    pipe = Pipe(pipe_fd)
    os.set_inheritable(pipe_fd, False)
    # The process that started this one handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Leave by way of `finally` and `atexit`: a game's engine must not outlive its worker.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    # Workers take a core each; torch's threads would compete for the cores. Torch is imported with
    # the function, or later, and then reads the variable.
    os.environ["OMP_NUM_THREADS"] = "1"
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with start:
                _script = pickle.load(start)
                sys.modules["__main__"].__getattr__ = _ask_main_script  # type: ignore[method-assign]
                main: Callable[..., None]
                main, args = pickle.load(start)
        except Exception as error:
            pipe.send(picklable(error))
            return
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        pipe.send(None)
        main(pipe, *args)


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def picklable(error: Exception) -> Exception:
    """Return the error with its traceback as a note; a RuntimeError if it cannot be pickled."""
    text = "".join(traceback.format_exception(error))
    copy: Exception = RuntimeError(f"{type(error).__name__}: {error}")
    with contextlib.suppress(Exception):
        again = pickle.loads(pickle.dumps(error))
        if isinstance(again, Exception):
            copy = again
    copy.add_note(f"in the worker:\n{text}")
    return copy

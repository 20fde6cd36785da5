"""Doom's engine in a process of its own: if it dies, there is an exception and nothing more.

`DoomEngine` starts `doom_process` and talks to it. The calling process's working directory,
environment variables, signal handlers and umask are left alone. However the calling process ends,
the engine ends with it, and its temporary folder is removed.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import IO

import numpy as np

from worldmodels_fast.envs import doom_process
from worldmodels_fast.envs.doom_process import ANSWER, NEW_EPISODE, REQUEST, STEP
from worldmodels_fast.types import Frame

__all__ = ["START_SECONDS", "DoomEngine", "EngineError"]

START_SECONDS = 120.0
"""Deadline of the engine's start, which takes about half a second on an idle machine."""

_CLOSE_SECONDS = 5.0
"""Deadline of an orderly end; then the engine is killed."""


class EngineError(RuntimeError):
    """The engine did not start, or it died; the message says what is known of the cause."""


class DoomEngine:
    """A running engine with one player, who has two buttons: left and right.

    Args:
        scenario: the name of one of ViZDoom's scenario files, as "take_cover.cfg".
        skill: Doom's difficulty, 1 to 5.
        resolution: columns and rows, as "160x120".
        visible: show Doom's window.

    Attributes:
        screen: uint8 (rows, columns, 3), what was drawn last, in memory shared with the engine's
            process: the next step overwrites it.

    Raises:
        EngineError: the engine did not start within `START_SECONDS`, or it died.
    """

    def __init__(self, *, scenario: str, skill: int, resolution: str, visible: bool) -> None:
        columns, rows = map(int, resolution.split("x"))
        folder = Path(tempfile.mkdtemp(prefix="take-cover-"))
        self._log = folder / "engine.log"
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(1.0)  # how often `_read` looks whether the process has ended
        self._process = _Process(folder, self._channel)
        self._stop = weakref.finalize(self, self._process.stop)
        try:
            with theirs, _memory_file(rows * columns * 3) as frames, self._log.open("wb") as log:
                memory = mmap.mmap(frames.fileno(), 0)
                self.screen: Frame = np.frombuffer(memory, np.uint8).reshape(rows, columns, 3)
                self._process.start(
                    log,
                    (theirs.fileno(), frames.fileno()),
                    {
                        "scenario": scenario,
                        "skill": skill,
                        "resolution": resolution,
                        "visible": visible,
                        "channel": theirs.fileno(),
                        "frames": frames.fileno(),
                    },
                )
            _, _, files = self._answer(START_SECONDS)
            self._process.shared_memory = files.splitlines()
        except BaseException:
            self.close()
            raise

    def new_episode(self, seed: int) -> float:
        """Begin an episode of this seed; return the player's health.

        Raises:
            EngineError: the engine died, or is closed.
        """
        _, health = self._ask(NEW_EPISODE, seed)
        return health

    def step(self, left: bool, right: bool) -> tuple[bool, float]:
        """Play one tic with these buttons; return whether the player is dead, and his health.

        `screen` is drawn only while he lives.

        Raises:
            EngineError: the engine died, or is closed.
        """
        return self._ask(STEP, left | right << 1)

    def close(self) -> None:
        """End the engine and its process, and remove its files; in the process that made it."""
        self._stop()

    def _ask(self, command: bytes, number: int) -> tuple[bool, float]:
        if os.getpid() != self._process.owner:
            raise RuntimeError(
                f"Doom's engine belongs to process {self._process.owner}, from which this one, "
                f"{os.getpid()}, was forked: make an environment of its own in each process"
            )
        if not self._stop.alive:
            raise EngineError("closed")
        try:
            with contextlib.suppress(OSError):  # the process has ended: there is no answer
                self._channel.sendall(REQUEST.pack(command, number))
            dead, health, _ = self._answer()
        except BaseException:  # also KeyboardInterrupt: the next request would get this answer
            self.close()
            raise
        return dead, health

    def _answer(self, seconds: float = float("inf")) -> tuple[bool, float, str]:
        deadline = time.monotonic() + seconds
        failed, dead, health, length = ANSWER.unpack(self._read(ANSWER.size, deadline))
        text = self._read(length, deadline).decode() if length else ""
        if failed:
            raise EngineError(self._with_log(text))
        return dead, health, text

    def _read(self, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self._channel.recv(size - len(data))
            except TimeoutError:
                if self._process.running() and time.monotonic() < deadline:
                    continue
                more = b""
            except OSError:
                more = b""
            if not more:
                raise EngineError(self._with_log(self._process.end()))
            data += more
        return data

    def _with_log(self, text: str) -> str:
        """Return the text and the last line that the engine has written, if there is one."""
        log = ""
        with contextlib.suppress(FileNotFoundError):  # it is removed once the engine has ended
            log = self._log.read_text(encoding="utf-8", errors="replace")
        said = [line.strip() for line in log.split("\n") if line.strip()]
        return f"{text}; the engine's last line: {said[-1]}" if said else text


class _Process:
    """The engine's process, its folder and its files in shared memory, to be ended and removed."""

    def __init__(self, folder: Path, channel: socket.socket) -> None:
        self.owner = os.getpid()
        self.shared_memory: list[str] = []
        self._folder, self._channel = folder, channel
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, log: IO[bytes], fds: tuple[int, ...], settings: dict[str, object]) -> None:
        path = [str(Path(entry).absolute()) for entry in sys.path]
        settings = {**settings, "parent": self.owner, "path": path}
        self._process = subprocess.Popen(
            [get_executable(), "-I", "-S", doom_process.__file__, json.dumps(settings)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=self._folder,
            start_new_session=True,  # a Ctrl-C in the terminal is the calling process's
        )

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> str:
        """Return how the process has ended, after its socket has."""
        assert self._process is not None
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return "no answer"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def stop(self) -> None:
        """End the process, orderly if possible, and remove its files.

        Shutting the socket down ends it also for processes that hold a fork's copy.
        """
        if os.getpid() != self.owner:  # a fork has a copy of this object, and of the socket
            return
        self._channel.settimeout(_CLOSE_SECONDS)
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
            while self._process is not None and self._channel.recv(4096):
                pass  # until the process has ended
        self._channel.close()
        if self._process is not None:
            orderly = False
            with contextlib.suppress(subprocess.TimeoutExpired):
                orderly = self._process.wait(1.0) == 0
            if not orderly:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                for path in self.shared_memory:
                    Path(path).unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _memory_file(size: int) -> IO[bytes]:
    """Return an open file of `size` zeros without a name, in memory where the system can."""
    in_memory = hasattr(os, "memfd_create")
    file = open(os.memfd_create("doom"), "r+b") if in_memory else tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file

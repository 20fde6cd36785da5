"""How much memory a stage took: this process, and all that it started."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PeakMemory"]

_LOOK_SECONDS = 0.5


class PeakMemory:
    """Peak resident memory while a `with` block runs.

    The process's own is the system's account. That of the processes that it started is looked at
    twice a second (Linux; elsewhere only the process's own is known, and since it began): what
    `getrusage` says of children begins with the memory of the parent that forked them.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._own = self._seen = self._all = 0.0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # a new peak begins
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._own = max(_peak(), self._seen)  # a block inside this one has made the peak forget

    def megabytes(self) -> dict[str, float]:
        """Peaks in MB (1e6 bytes): of the process, and of it and its children together.

        The latter counts memory that several share for each of them.
        """
        own = self._own or _peak()  # so far, while the block still runs
        every = max(own, self._all)
        return {"process": round(own / 1e6, 1), "with_children": round(every / 1e6, 1)}

    def _look(self) -> None:
        while not self._over.is_set():
            own, *others = map(_resident, _family(os.getpid()))
            self._seen = max(self._seen, own)
            self._all = max(self._all, own + sum(others))
            self._over.wait(_LOOK_SECONDS)


def _peak() -> float:
    """Bytes that this process has had in memory at most."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _family(pid: int) -> Iterator[int]:
    """A process and all that it and its children started."""
    yield pid
    with contextlib.suppress(OSError):  # it may end at any time
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text(encoding="utf-8").split():
                    yield from _family(int(child))


def _resident(pid: int) -> int:
    """Bytes of a process in memory now; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

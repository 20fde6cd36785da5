"""Peak memory of this process, and of it together with the processes that it started."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PeakMemory"]

_SAMPLE_SECONDS = 0.5


class PeakMemory:
    """Peak resident memory while a `with` block runs.

    This process: `getrusage`; its children: sampled every 0.5 s, because `getrusage` counts a
    child's memory from that of the parent that forked it. Children are sampled on Linux alone;
    elsewhere the peak is this process's own since it began.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._own = self._sampled = self._all = 0.0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # a new peak begins
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._own = max(_peak(), self._sampled)  # a block inside this one has reset the peak

    def megabytes(self) -> dict[str, float]:
        """Return the peaks in MB (1e6 bytes): "process" and "with_children".

        While the block runs they are the peaks so far. Memory that processes share is counted for
        each of them.
        """
        own = self._own or _peak()
        family = max(own, self._all)
        return {"process": round(own / 1e6, 1), "with_children": round(family / 1e6, 1)}

    def _sample(self) -> None:
        while not self._over.is_set():
            own, *others = map(_resident, _family(os.getpid()))
            self._sampled = max(self._sampled, own)
            self._all = max(self._all, own + sum(others))
            self._over.wait(_SAMPLE_SECONDS)


def _peak() -> float:
    """Return the peak of this process's resident memory in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _family(pid: int) -> Iterator[int]:
    """Yield the ids of a process, its children, their children, and so on."""
    yield pid
    with contextlib.suppress(OSError):  # the process may end at any time
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text(encoding="utf-8").split():
                    yield from _family(int(child))


def _resident(pid: int) -> int:
    """Return a process's resident memory in bytes; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

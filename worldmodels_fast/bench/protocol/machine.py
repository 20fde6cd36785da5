"""The machine that a benchmark runs on: processors, versions, load."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from worldmodels_fast import ops

PROC, STAT = Path("/proc"), Path("/proc/stat")

DISTRIBUTIONS = ("worldmodels-fast", "numpy", "torch", "jax", "jaxlib", "onnxruntime")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions of all that takes part, date and load, as JSON."""
    return {
        "cpu": cpu_name(),
        "cores": len(allowed_cpus()),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in DISTRIBUTIONS if (found := _version(name))},
        "backend": ops.default_backend(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": load(),
    }


def load() -> float | None:
    """Return the load average of the last minute; None where it is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@functools.cache
def cpu_name() -> str:
    """The processor as Linux calls it, or as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def allowed_cpus() -> list[int]:
    """The logical processors that this process may run on."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def choose_cpus(threads: int) -> list[int]:
    """Processors for so many threads: one on every core before a second on any.

    Raises:
        ValueError: fewer than 1, or more than there are.
    """
    cpus = allowed_cpus()
    if not 1 <= threads <= len(cpus):
        raise ValueError(
            f"threads: expected 1 to {len(cpus)}, the processors of this machine, got {threads}"
        )
    seen: dict[str, int] = {}
    ranked = []
    for cpu in cpus:
        core = _siblings(cpu)
        ranked.append((seen.get(core, 0), cpu))
        seen[core] = seen.get(core, 0) + 1
    return sorted(cpu for _, cpu in sorted(ranked)[:threads])


class Others:
    """Processor time that other processes take from now on.

    Args:
        pids: of the processes that belong to us, this one apart.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._began = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds(self._pids)

    def cores(self) -> float | None:
        """Return the mean number of cores that others kept busy; None where it is not known."""
        if self._busy is None or (busy := _busy_seconds()) is None:
            return None
        others = (busy - self._busy) - (_own_seconds(self._pids) - self._own)
        return round(max(0.0, others / (time.monotonic() - self._began)), 2)


def _busy_seconds() -> float | None:
    """Return the busy time in s of the processors that we may use, since the machine started."""
    if not STAT.is_file():
        return None
    names = {f"cpu{cpu}" for cpu in allowed_cpus()}
    ticks = 0
    for line in STAT.read_text(encoding="utf-8").splitlines():
        name, *values = line.split()
        if name in names:  # user, nice, system, idle, iowait, irq, softirq, steal, ...
            ticks += sum(map(int, values[:3])) + sum(map(int, values[5:8]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_seconds(pids: Sequence[int]) -> float:
    """Return the processor time in s of these processes and of their finished children."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # no /proc, or the process is over
            text = (PROC / str(pid) / "stat").read_text(encoding="utf-8")
            # After the name in brackets: utime, stime, cutime, cstime are numbers 14 to 17 of all.
            ticks += sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _siblings(cpu: int) -> str:
    """Which processors share this one's core."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return str(cpu)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""What a benchmark ran on."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from worldmodels_fast import ops

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
    """How many processes wanted to run in the last minute; None where that is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@functools.cache
def cpu_name() -> str:
    """The processor as Linux calls it, or as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
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


def _siblings(cpu: int) -> str:
    """Which processors share this one's core."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

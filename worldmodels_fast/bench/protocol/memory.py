"""Memory of a generation, measured in a process that does nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import numpy as np

from worldmodels_fast.bench.protocol.cases import NEVER_DONE
from worldmodels_fast.world.pretrained import load_pretrained

STEPS = 16
"""Of each dream; what it takes does not depend on how long it is."""

STATUS = Path("/proc/self/status")


def evaluation_bytes(members: int, rollouts: int, precision: str, threads: int) -> dict[str, int]:
    """Return the memory that one `Dream.evaluate` of the bundled world adds to this process.

    Call it in a fresh process: where the system cannot forget a peak, an earlier one would hide
    this. The population and the packed weights are there before; what the call itself needs, and
    what it returns, is counted.

    Returns:
        population, weights (packed), evaluate (the peak while it runs, over what was in use when
        it began), process (that peak, all of it): bytes.
    """
    world = load_pretrained("take-cover")
    population = np.zeros((members, world.controller.n_params), np.float32)
    population += 0.1  # so that its memory is there
    dream = world.dream(
        precision=precision, threads=threads, max_steps=STEPS, done_threshold=NEVER_DONE
    )
    _give_back()
    before = _forget_peak()
    dream.evaluate(population, rollouts=rollouts)
    peak = _peak()
    return {
        "population": population.nbytes,
        "weights": dream.model.nbytes,
        "evaluate": peak - before,
        "process": peak,
    }


def _peak() -> int:
    """The most bytes of memory that this process has had."""
    if STATUS.is_file():  # ru_maxrss would also count what the process was forked from
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> int:
    """Begin with a new peak, where the system can; return the peak there is then."""
    clear = Path("/proc/self/clear_refs")
    if clear.is_file():
        clear.write_text("5", encoding="utf-8")
    return _peak()


def _give_back() -> None:
    """Give memory that is free back to the system, or it would be used again unseen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    value = next(line for line in lines if line.startswith(f"{field}:"))
    return int(value.split()[1]) * 1024

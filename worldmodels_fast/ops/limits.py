"""The machine's limits, measured: operations and bytes per second."""

from __future__ import annotations

from worldmodels_fast import _core
from worldmodels_fast.ops.backends import cuda_number
from worldmodels_fast.utils.arguments import checked_integer


def peak_rate(
    precision: str = "fp32", *, backend: str | None = None, threads: int = 1, seconds: float = 0.05
) -> float:
    """Measure how many operations per second this machine multiplies at, in registers alone.

    What a kernel of this precision can reach at most, and what benchmarks give fractions of.

    Args:
        precision: "fp32", "fp16", "bf16" or "int8", as the backend has it; see `pack_mdn_rnn`.
        backend: one of `available_backends()`; None is `default_backend()`.
        threads: how many threads of the CPU multiply at once; on CUDA it is the whole device.
        seconds: for how long; the best of many short stretches counts.

    Returns:
        Operations per second, all threads together; a multiply-add is two.

    Raises:
        ValueError: an unknown precision or backend, threads < 1, seconds not above 0.
    """
    threads = checked_integer("threads", threads, low=1)
    return _core.peak_rate(precision, backend or "", threads, _seconds(seconds))


def read_rate(
    nbytes: int, *, backend: str | None = None, threads: int = 1, seconds: float = 0.05
) -> float:
    """Measure how fast this machine reads nbytes of memory over and over.

    Args:
        nbytes: per thread, each has its own; what fits into a cache is read from there. On CUDA all
            multiprocessors read the same nbytes, as they do with a model's weights.
        backend: one of `available_backends()`; None is `default_backend()`.
        threads: how many threads of the CPU read at once.
        seconds: for how long; the best of many short stretches counts.

    Returns:
        Bytes per second, all threads together.

    Raises:
        ValueError: nbytes or threads < 1, an unknown backend, seconds not above 0.
        MemoryError: nbytes * threads cannot be had.
    """
    threads = checked_integer("threads", threads, low=1)
    nbytes = checked_integer("nbytes", nbytes, low=1, high=2**40)
    return _core.read_rate(nbytes, backend or "", threads, _seconds(seconds))


def shared_rate(device: str = "cuda", *, seconds: float = 0.05) -> float:
    """Measure how many bytes per second a CUDA device's multiprocessors read of shared memory.

    Raises:
        ValueError: no such device, seconds not above 0.
    """
    return _core.shared_rate(cuda_number(device), _seconds(seconds))


def _seconds(value: float) -> float:
    if not 0 < value <= 3600:
        raise ValueError(f"seconds: expected a number above 0, up to 3600, got {value!r}")
    return float(value)

"""Dream steps per second, ours against torch eager, as a markdown table.

    python benchmarks/dream_table.py [--threads 2] [--seconds 1.5] [--backend avx2]

See benchmarks/README.md for what is counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from cases import Case, TorchDream, check_torch_dream, make_case, ours

from worldmodels_fast import ops

# N = members x rollouts
SIZES = [(1, 1), (1, 16), (4, 16), (64, 16)]


PAUSE = 0.05
"""Seconds before each run, in which the threads of the one before stop spinning for more work."""


def alternate(runs: list[Callable[[], object]], seconds: float) -> list[float]:
    """Median time of each run; they take turns, so that whatever else the machine does hits all."""
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(times[0]) < 3:
        for run, taken in zip(runs, times, strict=True):
            time.sleep(PAUSE)
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken) for taken in times]


def steps_for(case: Case, n: int) -> int:
    """So many steps that one run takes some tens of milliseconds."""
    return max(5, int(4e10 / case.flops_per_step / max(n, 16)))


def row(case: Case, members: int, rollouts: int, args: argparse.Namespace) -> str:
    """One line of the table."""
    n = members * rollouts
    torch.set_num_threads(args.threads)
    params = case.params(members)
    rival = TorchDream(case, params, rollouts)
    ours_steps = steps_for(case, n)
    rival_steps = max(5, ours_steps // 3)
    run = ours(case, params, rollouts, ours_steps, args.threads, args.backend)
    assert (run() == ours_steps).all()
    assert (rival.run(5) == 5).all()
    ours_time, rival_time = alternate([run, lambda: rival.run(rival_steps)], args.seconds)
    ours_rate, rival_rate = n * ours_steps / ours_time, n * rival_steps / rival_time
    gflops = ours_rate * case.flops_per_step / 1e9
    return (
        f"| {case.name} | {n:,} | {args.threads} | {ours_rate:,.0f} | {gflops:,.0f} "
        f"| {rival_rate:,.0f} | {ours_rate / rival_rate:.1f}x |"
    )


def cpu_name() -> str:
    """The processor as Linux calls it, or as Python does."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="per cell")
    parser.add_argument(
        "--backend", choices=ops.available_backends(), default=ops.default_backend()
    )
    args = parser.parse_args()
    print(
        f"{cpu_name()}, {os.cpu_count()} cores, backend {args.backend}, Python "
        f"{platform.python_version()}, torch {torch.__version__}\n"
    )
    print("| model | N | threads | ours, steps/s | GFLOP/s | torch eager, steps/s | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in ("car_racing", "doom"):
        case = make_case(name)
        check_torch_dream(case)
        for members, rollouts in SIZES:
            print(row(case, members, rollouts, args), flush=True)


if __name__ == "__main__":
    main()

"""Section `ops`: the single operations, as people call them in a loop of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worldmodels_fast.bench import ours
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.protocol.cases import make_case
from worldmodels_fast.bench.protocol.contest import Contest
from worldmodels_fast.bench.protocol.op_inputs import OPS
from worldmodels_fast.bench.protocol.processes import Libraries
from worldmodels_fast.bench.rivals.registry import RIVALS

SIZES = (1, 16, 256, 1024)

THREADS = 1
"""Of everybody: two of our three operations have no more."""


def cells(config: BenchConfig) -> list[tuple[str, str, int]]:
    """(op, model, N) of every comparison; N 0 is our own call of next to no work."""
    cells = [(op, model, n) for op in OPS for model in config.models for n in SIZES]
    return cells + [(op, "tiny", 0) for op in OPS]


def run_ops(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield a row of `bench.json` for each of `cells`: calls per second."""
    for op, model, n in cells(config):
        with Contest(libraries, THREADS, left_out) as contest:
            if n == 0:
                contest.add("ours fp32", "ours", ours.make_tiny_op, op)
            else:
                _add_all(contest, config, op, model, n)
            rates = contest.rates(config.seconds / 2)
        yield {
            "op": op,
            "model": model,
            "n": n,
            "threads": THREADS,
            "others": contest.others,
            "microseconds": {name: 1e6 / rate.median for name, rate in rates.items()},
            "calls_per_second": {name: rate.json() for name, rate in rates.items()},
        }


def _add_all(contest: Contest, config: BenchConfig, op: str, model: str, n: int) -> None:
    case = make_case(model)
    for precision in config.precisions if op == "mdn_rnn_step" else ("fp32",):
        arguments = (op, case, n, precision)
        contest.add(f"ours {precision}", "ours", ours.make_op, *arguments, THREADS)
        for name in config.rivals:
            rival = RIVALS[name]
            if rival.make_op is not None and (op, precision) in rival.ops:
                contest.add(f"{name} {precision}", rival.library, rival.make_op, *arguments)

"""Section `growth`: time against N, T and H, memory, packing, and the start."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodels_fast.bench import ours
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.protocol.cases import PRECISIONS, make_case
from worldmodels_fast.bench.protocol.contest import Contest
from worldmodels_fast.bench.protocol.memory import evaluation_bytes
from worldmodels_fast.bench.protocol.processes import Libraries, Library

AXES = {
    "N": (1, 4, 16, 64, 256, 1024, 4096),
    "T": (4, 16, 64, 256, 1024, 4096),
    "H": (64, 128, 256, 512, 1024),
}
FITTED_FROM = {"N": 64, "T": 64, "H": 128}
"""Exponents are fitted from here on: below, a tile is not full, or the call itself counts."""

MODEL = "car_racing"
FIXED = {"N": 64, "T": 64, "H": 256}
"""The two that do not grow."""

POPULATIONS = ((64, 16), (4096, 16))
COLD_STARTS = 3

COLD_START = """
import json, time
begin = time.perf_counter()
import numpy, torch
libraries = time.perf_counter()
import worldmodels_fast as wmf
imported = time.perf_counter()
world = wmf.load_pretrained("take-cover")
loaded = time.perf_counter()
dream = world.dream(max_steps=100)
made = time.perf_counter()
population = world.controller.flat.detach().numpy()[None]
calls = [time.perf_counter()]
for _ in range(2):
    dream.evaluate(population, rollouts=1)
    calls.append(time.perf_counter())
print(json.dumps({
    "import_numpy_and_torch": libraries - begin,
    "import_worldmodels_fast": imported - libraries,
    "load_pretrained": loaded - imported,
    "make_dream": made - loaded,
    "first_call": calls[1] - calls[0],
    "second_call": calls[2] - calls[1],
}))
"""


def cells(config: BenchConfig) -> list[str]:
    """Return the comparisons of this section."""
    return [*AXES, "memory", "packing", "start"]


def run_growth(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield {"kind", "rows"} for each of `cells`."""
    for kind in cells(config):
        if kind in AXES:
            rows = _against(kind, config, libraries, left_out)
        elif kind == "memory":
            rows = [
                _memory(members, rollouts, precision, config.threads)
                for members, rollouts in POPULATIONS
                for precision in config.precisions
                if f"ours {precision}" not in left_out
            ]
        elif kind == "packing":
            rows = _packing(config, libraries, left_out)
        else:
            rows = [_cold_start()]
        yield {"kind": kind, "rows": rows}


def _against(
    axis: str, config: BenchConfig, libraries: Libraries, left_out: dict[str, str]
) -> list[dict[str, Any]]:
    """Seconds of a call while one of N, T, H grows, in each precision."""
    with Contest(libraries, config.threads, left_out) as contest:
        for precision in config.precisions:
            for value in AXES[axis]:
                size = {**FIXED, axis: value}
                case = make_case(MODEL, hidden_dim=size["H"])
                if f"ours {precision}" not in left_out:
                    contest.add(
                        f"{precision} {value}",
                        "ours",
                        ours.make_calls,
                        case,
                        size["N"],
                        precision,
                        config.threads,
                        size["T"],
                    )
        rates = contest.rates(config.seconds / 2)
    rows = []
    for precision in config.precisions:
        values = [value for value in AXES[axis] if f"{precision} {value}" in rates]
        if not values:
            continue
        seconds = [1.0 / rates[f"{precision} {value}"].median for value in values]
        work = [make_case(MODEL, hidden_dim=h).flops_per_step for h in AXES["H"]]
        rows.append(
            {
                "precision": precision,
                "model": MODEL,
                "others": contest.others,
                "fixed": {name: x for name, x in FIXED.items() if name != axis},
                "values": values,
                "seconds": seconds,
                "exponent": exponent(values, seconds, FITTED_FROM[axis]),
                "exponent_of_operations": exponent(AXES["H"], work, FITTED_FROM["H"])
                if axis == "H"
                else 1.0,
                "fitted_from": FITTED_FROM[axis],
            }
        )
    return rows


def exponent(values: Any, seconds: Any, fitted_from: float) -> float:
    """The slope of log(seconds) over log(values), by least squares from `fitted_from` on."""
    x, y = np.asarray(values, float), np.asarray(seconds, float)
    use = x >= fitted_from
    return float(np.polyfit(np.log(x[use]), np.log(y[use]), 1)[0])


def _memory(members: int, rollouts: int, precision: str, threads: int) -> dict[str, Any]:
    with Libraries() as fresh:
        process: Library = fresh.get("ours", threads)
        used = process.call(evaluation_bytes, members, rollouts, precision, threads)
    return {"members": members, "rollouts": rollouts, "precision": precision, **used}


def _packing(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str]
) -> list[dict[str, Any]]:
    with Contest(libraries, 1, left_out) as contest:
        for model in config.models:
            for precision in config.precisions:
                if f"ours {precision}" not in left_out:
                    case = make_case(model)
                    contest.add(f"{model} {precision}", "ours", ours.make_packing, case, precision)
        rates = contest.rates(config.seconds / 2)
    return [
        {
            "model": model,
            "precision": precision,
            "others": contest.others,
            "nbytes": ours.pack(make_case(model), precision).nbytes,
            "seconds": 1.0 / rates[f"{model} {precision}"].median,
        }
        for model in config.models
        for precision in PRECISIONS
        if f"{model} {precision}" in rates
    ]


def _cold_start() -> dict[str, float]:
    """Medians of the seconds that a new process takes until it has dreamt."""
    runs = []
    for _ in range(COLD_STARTS):
        done = subprocess.run(
            [sys.executable, "-c", COLD_START], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"a new process could not dream: {done.stderr.strip()}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

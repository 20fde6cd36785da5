"""Section `limits`: ours against what the machine itself can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worldmodels_fast.bench import ours
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.protocol.cases import Case, make_case
from worldmodels_fast.bench.protocol.contest import Contest
from worldmodels_fast.bench.protocol.processes import Libraries
from worldmodels_fast.bench.protocol.timing import Rate

LARGE = (64, 1024)
"""N from which on arithmetic is the limit."""

GENERATION_STEPS = 2100
"""When a rollout of the generation ends at the latest, as in evolution."""

FULL_SECONDS = 2.0
"""Of the dreams without an end that it is compared with."""


def cells(config: BenchConfig) -> list[tuple[str, str]]:
    """(what, model) of every comparison."""
    kinds = ["one rollout", *(f"peak {n}" for n in LARGE)]
    if config.threads > 1:
        kinds.append("threads")
    cells: list[tuple[str, str]] = [(kind, model) for model in config.models for kind in kinds]
    return [*cells, ("generation", "take-cover")]


def run_limits(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of each of `cells`, one for each precision, as {"kind", "rows"}."""
    for kind, model in cells(config):
        case = make_case(model)
        if kind == "one rollout":
            rows = _against_reading(config, libraries, left_out, case)
        elif kind == "threads":
            rows = _threads(config, libraries, left_out, case)
        elif kind == "generation":
            rows = _generation(config, libraries, left_out, case)
        else:
            rows = _against_peak(config, libraries, left_out, case, int(kind.split()[1]))
        yield {"kind": kind.split()[0] if kind.startswith("peak") else kind, "rows": rows}


def _against_reading(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str], case: Case
) -> list[dict[str, Any]]:
    """One rollout on one thread; each step must read all of the weights."""
    with Contest(libraries, 1, left_out) as contest:
        for precision in config.precisions:
            contest.add(f"ours {precision}", "ours", ours.make_dream, case, 1, precision, 1)
            if f"ours {precision}" not in left_out:
                contest.add(f"read {precision}", "ours", ours.Read, case, precision, 1)
        rates = contest.rates(config.seconds)
    return [
        {
            "model": case.name,
            "precision": precision,
            "others": contest.others,
            "nbytes": ours.pack(case, precision).nbytes,
            "steps_per_second": rates[f"ours {precision}"].json(),
            "reads_per_second": rates[f"read {precision}"].json(),
            "over_reading": rates[f"read {precision}"].median / rates[f"ours {precision}"].median,
        }
        for precision in _present(config, rates)
    ]


def _against_peak(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str], case: Case, n: int
) -> list[dict[str, Any]]:
    with Contest(libraries, config.threads, left_out) as contest:
        for precision in config.precisions:
            arguments = (case, n, precision, config.threads)
            contest.add(f"ours {precision}", "ours", ours.make_dream, *arguments)
            if f"ours {precision}" not in left_out:
                contest.add(f"peak {precision}", "ours", ours.Peak, precision, config.threads)
        rates = contest.rates(config.seconds)
    return [
        {
            "model": case.name,
            "precision": precision,
            "others": contest.others,
            "n": n,
            "threads": config.threads,
            "steps_per_second": rates[f"ours {precision}"].json(),
            "peak": rates[f"peak {precision}"].json(),
            "of_peak": rates[f"ours {precision}"].median
            * case.flops_per_step
            / rates[f"peak {precision}"].median,
        }
        for precision in _present(config, rates)
    ]


def _threads(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str], case: Case
) -> list[dict[str, Any]]:
    """One thread against all of them, both in the process that may use as many processors."""
    n = max(LARGE)
    with Contest(libraries, config.threads, left_out) as contest:
        for precision in config.precisions:
            for threads in (1, config.threads):
                name = f"ours {precision}" if threads > 1 else f"ours {precision}, 1 thread"
                if f"ours {precision}" not in left_out:
                    contest.add(name, "ours", ours.make_dream, case, n, precision, threads)
        rates = contest.rates(config.seconds)
    return [
        {
            "model": case.name,
            "precision": precision,
            "others": contest.others,
            "n": n,
            "threads": config.threads,
            "one": rates[f"ours {precision}, 1 thread"].json(),
            "all": rates[f"ours {precision}"].json(),
            "speedup": rates[f"ours {precision}"].median
            / rates[f"ours {precision}, 1 thread"].median,
        }
        for precision in _present(config, rates)
    ]


def _generation(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str], case: Case
) -> list[dict[str, Any]]:
    """Dreams of a real generation, which end at all times, against dreams that never do."""
    n = ours.Generation.MEMBERS * ours.Generation.ROLLOUTS
    with Contest(libraries, config.threads, left_out) as contest:
        for precision in config.precisions:
            arguments = (case, n, precision, config.threads)
            # As long as a generation takes, so that whatever disturbs them disturbs both.
            contest.add(
                f"ours {precision}", "ours", ours.make_dream, *arguments, seconds=FULL_SECONDS
            )
            if f"ours {precision}" not in left_out:
                settings = (precision, config.threads, GENERATION_STEPS)
                contest.add(f"generation {precision}", "ours", ours.Generation, *settings)
        rates = contest.rates(config.seconds)
        lengths = {
            precision: contest.get(f"generation {precision}", "mean_length")
            for precision in _present(config, rates)
        }
    return [
        {
            "model": case.name,
            "precision": precision,
            "others": contest.others,
            "n": n,
            "threads": config.threads,
            "useful": rates[f"generation {precision}"].json(),
            "full": rates[f"ours {precision}"].json(),
            "of_full": rates[f"generation {precision}"].median / rates[f"ours {precision}"].median,
            "mean_length": lengths[precision],
        }
        for precision in _present(config, rates)
    ]


def _present(config: BenchConfig, rates: dict[str, Rate]) -> list[str]:
    return [precision for precision in config.precisions if f"ours {precision}" in rates]

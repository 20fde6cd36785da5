"""Section `dream`: whole dreams, ours and everybody's, for every model and N."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worldmodels_fast.bench import ours
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.protocol.cases import make_case
from worldmodels_fast.bench.protocol.contest import Contest
from worldmodels_fast.bench.protocol.processes import Libraries
from worldmodels_fast.bench.protocol.timing import Rate
from worldmodels_fast.bench.rivals.registry import BASELINE, RIVAL_PRECISIONS, RIVALS


def cells(config: BenchConfig) -> list[tuple[str, int, int]]:
    """(model, N, threads) of every comparison; one rollout alone also with one thread."""
    return [
        (model, n, threads)
        for model in config.models
        for n in sorted(set(config.sizes))
        for threads in sorted({1, config.threads} if n == 1 else {config.threads})
    ]


def run_dreams(
    config: BenchConfig, libraries: Libraries, left_out: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield a row of `bench.json` for each of `cells`."""
    for model, n, threads in cells(config):
        case = make_case(model)
        with Contest(libraries, threads, left_out) as contest:
            for precision in config.precisions:
                who = f"ours {precision}"
                contest.add(who, "ours", ours.make_dream, case, n, precision, threads)
                if who not in left_out:
                    contest.add(f"peak {precision}", "ours", ours.Peak, precision, threads)
                    contest.add(f"read {precision}", "ours", ours.Read, case, precision, threads)
                for name in config.rivals:
                    make = RIVALS[name].make_dream
                    if make is not None and precision in RIVAL_PRECISIONS:
                        rival = f"{name} {precision}"
                        contest.add(rival, RIVALS[name].library, make, case, n, precision)
            rates = contest.rates(config.seconds)
        yield {
            "model": model,
            "n": n,
            "threads": threads,
            "flops_per_step": case.flops_per_step,
            "others": contest.others,
            "rates": {name: rate.json() for name, rate in rates.items()},
            "ours": {
                precision: derive(rates, precision, n, case.flops_per_step)
                for precision in config.precisions
                if f"ours {precision}" in rates
            },
        }


def derive(rates: dict[str, Rate], precision: str, n: int, flops_per_step: int) -> dict[str, Any]:
    """Return the figures of one comparison for our side in one precision.

    Args:
        rates: steps per second of "ours ..." and of the rivals; operations per second of
            "peak ..."; how often per second the weights can be read, of "read ...".
        precision: which of ours.
        n: rollouts side by side.
        flops_per_step: of one rollout.

    Returns:
        gflops, of_peak; limit, what multiplying and reading the weights once for all N rollouts
        would allow; over_baseline, our rate by that of torch eager fp32; fastest_rival of the same
        precision and over_fastest. None where nobody was there to compare with.
    """
    rate = rates[f"ours {precision}"].median
    peak, read = rates[f"peak {precision}"].median, rates[f"read {precision}"].median
    rivals = {
        name: r.median
        for name, r in rates.items()
        if name.endswith(f" {precision}") and name.split(" ")[0] in RIVALS
    }
    fastest = max(rivals, key=rivals.__getitem__, default=None)
    return {
        "gflops": rate * flops_per_step / 1e9,
        "of_peak": rate * flops_per_step / peak,
        "limit": min(peak / flops_per_step, n * read),
        "over_baseline": rate / rates[BASELINE].median if BASELINE in rates else None,
        "fastest_rival": fastest,
        "over_fastest": rate / rivals[fastest] if fastest is not None else None,
    }

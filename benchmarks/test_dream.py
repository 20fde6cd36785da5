"""Whole dreams: one group per model and N, with everybody in it, each checked before it is timed.

`extra_info` holds the dream steps per second. `worldmodels-fast bench` measures the same in turns.
"""

import pytest
from contestants import THREADS, checked

from worldmodels_fast.bench import ours
from worldmodels_fast.bench.protocol.cases import PRECISIONS, make_case
from worldmodels_fast.bench.rivals.registry import RIVAL_PRECISIONS, RIVALS

CONTESTANTS = [("ours", precision) for precision in PRECISIONS] + [
    (name, precision)
    for name, rival in RIVALS.items()
    if rival.make_dream is not None
    for precision in RIVAL_PRECISIONS
]


@pytest.mark.parametrize("n", [1, 64, 1024])
@pytest.mark.parametrize("model", ["car_racing", "doom"])
@pytest.mark.parametrize(("who", "precision"), CONTESTANTS)
def test_dream(benchmark, rival_threads, model, n, who, precision):
    benchmark.group = f"dream {model} N={n}, {THREADS} threads"
    rival_threads(THREADS)
    case = make_case(model)
    if who == "ours":
        loop = checked(ours.make_dream, case, n, precision, THREADS)
    else:
        loop = checked(RIVALS[who].make_dream, case, n, precision)
    steps = loop.count() if benchmark.enabled else loop.least
    benchmark(loop.run, steps)
    if benchmark.enabled:
        benchmark.extra_info["steps_per_second"] = n * steps / benchmark.stats["median"]

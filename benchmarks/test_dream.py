"""Whole dreams: one group per model and N, ours and torch eager in the same group.

Checked before timed. `extra_info` holds the dream steps per second.
"""

import pytest
import torch
from cases import TorchDream, check_torch_dream, make_case, ours

THREADS = 2
SIZES = {1: (1, 1), 1024: (64, 16)}  # N: members, rollouts
STEPS = {("car_racing", 1): 500, ("car_racing", 1024): 30, ("doom", 1): 200, ("doom", 1024): 8}


@pytest.fixture(params=["car_racing", "doom"])
def case(request):
    case = make_case(request.param)
    check_torch_dream(case)
    return case


@pytest.fixture(autouse=True)
def torch_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("who", ["ours", "torch eager"])
def test_dream(benchmark, case, n, who):
    benchmark.group = f"dream {case.name} N={n}"
    members, rollouts = SIZES[n]
    steps = STEPS[case.name, n]
    threads = THREADS
    params = case.params(members)
    if who == "ours":
        run = ours(case, params, rollouts, steps, threads)
    else:
        torch.set_num_threads(threads)
        dream = TorchDream(case, params, rollouts)

        def run():
            return dream.run(steps)

    assert (run() == steps).all()
    benchmark(run)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["steps_per_second"] = n * steps / benchmark.stats["median"]

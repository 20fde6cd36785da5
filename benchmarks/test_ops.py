"""The single operations, as people call them in their own loop: one group per operation and size.

Everybody has one thread, and is checked before it is timed.
"""

import pytest
from contestants import checked

from worldmodels_fast.bench import ours
from worldmodels_fast.bench.protocol.cases import PRECISIONS, make_case
from worldmodels_fast.bench.protocol.op_inputs import OPS
from worldmodels_fast.bench.rivals.registry import RIVALS

CONTESTANTS = [
    *(("mdn_rnn_step", "ours", precision) for precision in PRECISIONS),
    *((op, "ours", "fp32") for op in OPS if op != "mdn_rnn_step"),
    *((op, name, precision) for name, rival in RIVALS.items() for op, precision in rival.ops),
]


@pytest.mark.parametrize("n", [1, 1024])
@pytest.mark.parametrize("model", ["car_racing", "doom"])
@pytest.mark.parametrize(("op", "who", "precision"), CONTESTANTS)
def test_op(benchmark, rival_threads, op, model, n, who, precision):
    benchmark.group = f"{op} {model} N={n}, 1 thread"
    rival_threads(1)
    case = make_case(model)
    if who == "ours":
        loop = checked(ours.make_op, op, case, n, precision, 1)
    else:
        loop = checked(RIVALS[who].make_op, op, case, n, precision)
    benchmark(loop.run, 1)


@pytest.mark.parametrize("op", OPS)
def test_call(benchmark, op):
    benchmark.group = "our call itself: a model with one of everything"
    benchmark(ours.make_tiny_op(op).run, 1)

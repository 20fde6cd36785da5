"""The libraries that our kernels are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worldmodels_fast.bench.protocol.cases import Case
from worldmodels_fast.bench.protocol.op_inputs import OPS
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.bench.rivals import jax_scan, onnx_step, torch_compile, torch_eager


@dataclass(frozen=True)
class Rival:
    """A library, used one way.

    Attributes:
        library: whose process it lives in.
        make_dream: (case, N, precision) -> whole dreams to be timed; None if it has none.
        make_op: (op, case, N, precision) -> a single operation to be timed; None likewise.
        ops: the (operation, precision) that it has.
    """

    library: str
    make_dream: Callable[[Case, int, str], Loop] | None
    make_op: Callable[[str, Case, int, str], Loop] | None
    ops: tuple[tuple[str, str], ...] = ()


# Sampling and the controller are float32 in every precision.
OPS_OF_TORCH = (*((op, "fp32") for op in OPS), ("mdn_rnn_step", "bf16"))

RIVALS = {
    "torch-eager": Rival("torch", torch_eager.make_dream, torch_eager.make_op, OPS_OF_TORCH),
    "torch-compile": Rival("torch", torch_compile.make_dream, torch_compile.make_op, OPS_OF_TORCH),
    "jax": Rival("jax", jax_scan.make_dream, None),
    "onnxruntime": Rival("onnxruntime", None, onnx_step.make_op, (("mdn_rnn_step", "fp32"),)),
}

RIVAL_PRECISIONS = ("fp32", "bf16")

BASELINE = "torch-eager fp32"
"""The rival that every ratio is taken against."""

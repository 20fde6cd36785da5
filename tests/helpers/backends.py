"""What the tests of the kernels run over: every backend of this machine, in all its precisions."""

from worldmodels_fast import ops

BACKENDS = ops.available_backends()
LEVELS = tuple(backend for backend in BACKENDS if backend != "cuda")
PRECISIONS = ("fp32", "bf16", "int8")
"""Of the levels of the CPU; CUDA has fp32 and fp16."""


def precisions_of(backend: str) -> tuple[str, ...]:
    return ("fp32", "fp16") if backend == "cuda" else PRECISIONS


COMBINATIONS = [
    (backend, precision) for backend in BACKENDS for precision in precisions_of(backend)
]

"""PyTorch's fastest ways to dream on a CUDA device: steps captured in a graph, compiled or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from worldmodels_fast.bench.protocol.cases import NEVER_DONE, Case, split
from worldmodels_fast.bench.protocol.check import check_advance
from worldmodels_fast.bench.protocol.processes import Unavailable
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.bench.rivals import jax_scan, torch_eager
from worldmodels_fast.bench.rivals.torch_compile import CompiledDream, State
from worldmodels_fast.bench.rivals.torch_eager import EagerDream
from worldmodels_fast.types import Floats

STEPS_IN_GRAPH = 16

JAX_AT_ONCE = 1e12
"""Operations of one call of JAX: some ten milliseconds of a large GPU."""


def need_torch_cuda() -> None:
    """Check that torch can use a CUDA device.

    Raises:
        Unavailable: it cannot.
    """
    if not torch.cuda.is_available():
        raise Unavailable(f"torch {torch.__version__} finds no CUDA device that it can use")


class GraphDream(EagerDream):
    """N = P * R rollouts side by side; a graph of `depth` of the eager steps is replayed.

    In the graph are the random numbers, too. Its state stays in the same tensors.
    """

    depth = STEPS_IN_GRAPH

    def __init__(self, case: Case, params: Floats, rollouts: int, precision: str) -> None:
        super().__init__(case, params, rollouts, precision, "cuda")
        w = case.weights
        self.z = torch.zeros(self.n, w.latent_dim, device="cuda")
        self.h, self.c = torch.zeros(2, self.n, w.hidden_dim, device="cuda")
        self.length, self.alive = torch.zeros(2, self.n, device="cuda")
        self.done = torch.zeros(self.n, int(w.predicts_done), device="cuda")
        self.restart = torch.zeros(1, device="cuda")
        self.uniform = torch.zeros(self.depth, self.n, 1, w.latent_dim, device="cuda")
        self.normal = torch.zeros(self.depth, self.n, w.latent_dim, device="cuda")
        self._timed, self._checked = capture(self._drawn), capture(self._steps)

    def _steps(self) -> None:
        z, h, c = self.z, self.h, self.c
        for t in range(self.depth):
            self.x_restart.copy_(self.restart.expand_as(self.x_restart))
            z, h, c, done = self.step(z, h, c, self.uniform[t], self.normal[t])
            self.restart.zero_()
            self.length += self.alive
            self.done.copy_(done)
            if self.model.case.weights.predicts_done:
                self.alive *= self.done[:, 0] <= NEVER_DONE
        for static, new in ((self.z, z), (self.h, h), (self.c, c)):
            static.copy_(new)

    def _drawn(self) -> None:
        self.uniform.uniform_()
        self.normal.normal_()
        self._steps()

    def _begin(self) -> None:
        self.z.normal_()
        for zero in (self.h, self.c, self.length):
            zero.zero_()
        for one in (self.alive, self.restart):
            one.fill_(1.0)

    @torch.inference_mode()
    def run(self, steps: int) -> Floats:
        """So many steps, a multiple of `depth`, of all rollouts; their lengths (N,)."""
        self._begin()
        for _ in range(steps // self.depth):
            self._timed.replay()
        return np.asarray(self.length.cpu())

    @torch.inference_mode()
    def advance(
        self, z: Floats, h: Floats, c: Floats, uniform: Floats, normal: Floats
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """See `check.Advances`."""
        self._begin()
        given = (z, h, c, uniform[:, :, None], normal)
        static = (self.z, self.h, self.c, self.uniform, self.normal)
        for there, here in zip(static, given, strict=True):
            there.copy_(torch.from_numpy(here))
        self._checked.replay()
        z, h, c, done = (x.cpu().numpy() for x in (self.z, self.h, self.c, self.done))
        return z, h, c, done[:, 0] if done.size else None


class CompiledGraphDream(CompiledDream):
    """The same with the compiler's kernels: torch.compile's steps, captured in a graph."""

    def __init__(self, case: Case, params: Floats, rollouts: int, precision: str) -> None:
        super().__init__(case, params, rollouts, precision, "cuda")
        # The compiled function takes `depth` steps in a call; a graph is of several calls.
        per_call = self.depth
        depth = max(per_call, STEPS_IN_GRAPH)
        self._calls = [slice(t, t + per_call) for t in range(0, depth, per_call)]
        shape = (depth, self.n, case.weights.latent_dim)
        self.uniform, self.normal = torch.zeros(2, *shape, device="cuda")
        z = torch.zeros(*shape[1:], device="cuda")
        h, c = torch.zeros(2, self.n, case.weights.hidden_dim, device="cuda")
        z, h, c, restart, length, alive, done = self._begin(z, h, c)
        # No two of them the same tensor.
        self.state: State = (z, h, c, restart, length, alive.clone(), done.clone())
        self._timed, self._checked = capture(self._drawn), capture(self._all_steps)
        self.depth = depth

    def _all_steps(self) -> None:
        state = self.state
        for steps in self._calls:
            state = self._steps(state, self.uniform[steps], self.normal[steps])
        for static, new in zip(self.state, state, strict=True):
            static.copy_(new)

    def _drawn(self) -> None:
        self.uniform.uniform_()
        self.normal.normal_()
        self._all_steps()

    def _restart(self) -> None:
        z, h, c, restart, length, alive, done = self.state
        z.normal_()
        for zero in (h, c, length, done):
            zero.zero_()
        for one in (restart, alive):
            one.fill_(1.0)

    @torch.inference_mode()
    def run(self, steps: int) -> Floats:
        """So many steps, a multiple of `depth`, of all rollouts; their lengths (N,)."""
        self._restart()
        for _ in range(steps // self.depth):
            self._timed.replay()
        return np.asarray(self.state[4][:, 0].cpu())

    @torch.inference_mode()
    def advance(
        self, z: Floats, h: Floats, c: Floats, uniform: Floats, normal: Floats
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """See `check.Advances`."""
        self._restart()
        static = (*self.state[:3], self.uniform, self.normal)
        for there, here in zip(static, (z, h, c, uniform, normal), strict=True):
            there.copy_(torch.from_numpy(here))
        self._checked.replay()
        done = self.state[6][:, 0].cpu().numpy() if self.model.case.weights.predicts_done else None
        got = [x.cpu().numpy() for x in self.state[:3]]
        return got[0], got[1], got[2], done


@torch.inference_mode()
def capture(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Record work on the current device's tensors, after a few runs of it that make it warm."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def make_eager(case: Case, n: int, precision: str) -> Loop:
    """Eager steps, launched one operation at a time; checked. Its unit is a dream step."""
    need_torch_cuda()
    return torch_eager.make_dream(case, n, precision, "cuda")


def make_graph(case: Case, n: int, precision: str) -> Loop:
    """Eager steps in a CUDA graph; checked. Its unit is a dream step."""
    need_torch_cuda()
    members, rollouts = split(n)
    params = case.params(members)
    dream = GraphDream(case, params, rollouts, precision)
    check_advance(f"torch CUDA graph {precision}", dream, case, params, precision)
    return Loop(dream.run, per_count=n, multiple=dream.depth)


def make_compiled(case: Case, n: int, precision: str) -> Loop:
    """Compiled steps in a CUDA graph; checked. Its unit is a dream step."""
    need_torch_cuda()
    torch.compiler.reset()
    members, rollouts = split(n)
    params = case.params(members)
    dream = CompiledGraphDream(case, params, rollouts, precision)
    check_advance(f"torch.compile {precision}", dream, case, params, precision)
    return Loop(dream.run, per_count=n, multiple=dream.depth)


def make_jax(case: Case, n: int, precision: str) -> Loop:
    """JAX's scan over steps; checked. Its unit is a dream step."""
    jax = jax_scan.import_jax()
    if jax.default_backend() not in ("gpu", "cuda"):
        raise Unavailable(f"jax {jax.__version__} has no CUDA device: it runs on the CPU")
    return jax_scan.make_dream(case, n, precision, JAX_AT_ONCE)


Maker = Callable[[Case, int, str], Loop]

RIVALS: dict[str, tuple[str, Maker]] = {
    "torch-eager": ("torch", make_eager),
    "torch-graph": ("torch", make_graph),
    "torch-compile": ("torch", make_compiled),
    "jax": ("jax", make_jax),
}
"""(the library whose process it lives in, how it is made)"""

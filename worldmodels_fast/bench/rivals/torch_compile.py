"""PyTorch with torch.compile: whole dream steps, several of them at once where they are small."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels_fast.bench.protocol.cases import NEVER_DONE, TEMPERATURE, Case, split
from worldmodels_fast.bench.protocol.check import check_advance
from worldmodels_fast.bench.protocol.op_inputs import Op, OpInputs, checked_loop
from worldmodels_fast.bench.protocol.processes import Unavailable
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.bench.rivals.torch_eager import (
    DTYPES,
    NOISE_AT_ONCE,
    TorchModel,
    mixture_planes,
)
from worldmodels_fast.types import Floats

SMALL = 16
"""Up to so many rollouts the cost of a call counts: the graph holds several steps, and its wrapper
is compiled, too."""

STEPS_AT_ONCE = 8


class CompiledModel(TorchModel):
    """The same model, with nothing in place: the compiler fuses what can be fused."""

    def act(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Actions (N, A): one batched product for all controllers."""
        given = {"z": z, "h": h, "c": c}
        x = torch.cat([given[name] for name in self.case.spec.features], dim=1)
        x = x.view(self.members, -1, x.shape[1])
        return torch.tanh(torch.bmm(x, self.control) + self.control_bias).view(len(z), -1)

    def step(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """LSTM and head: x (N, X + H), c (N, H) -> out (N, O), h, c, all float32."""
        gates = torch.addmm(self.lstm_bias, x.to(self.dtype), self.lstm).float()
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return torch.addmm(self.head_bias, h.to(self.dtype), self.head).float(), h, c


def draw(mixture: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Sample z' (N, Z) from mixtures (N, 3, K, Z) with uniform and normal (N, Z).

    Written out over the K components, which the compiler makes one loop of.
    """
    n_mixtures = mixture.shape[2]
    logmix, mu, logstd = mixture.unbind(1)
    weight = torch.exp((logmix - logmix.amax(1, keepdim=True)) * (1.0 / TEMPERATURE))
    cumulative = [weight[:, 0]]
    for k in range(1, n_mixtures):
        cumulative.append(cumulative[-1] + weight[:, k])
    target = uniform * cumulative[-1]
    mu_k, logstd_k = mu[:, 0], logstd[:, 0]
    for k in range(1, n_mixtures):
        beyond = cumulative[k - 1] <= target
        mu_k = torch.where(beyond, mu[:, k], mu_k)
        logstd_k = torch.where(beyond, logstd[:, k], logstd_k)
    return mu_k + torch.exp(logstd_k.clamp(max=10.0)) * math.sqrt(TEMPERATURE) * normal


State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""z, h, c, restart (N, 1), length (N, 1), alive (N, 1), done logit (N, 1), 0 if M has none."""


class CompiledDream:
    """N = P * R rollouts side by side, `depth` steps in a graph."""

    def __init__(
        self, case: Case, params: Floats, rollouts: int, precision: str, device: str = "cpu"
    ) -> None:
        self.device = device
        self.model = CompiledModel(case, params, DTYPES[precision], device)
        self.n = params.shape[0] * rollouts
        self.depth = STEPS_AT_ONCE if self.n <= SMALL else 1
        self._steps = compiled(self._written_out, self.n, device)

    def _written_out(self, state: State, uniform: Tensor, normal: Tensor) -> State:
        w, model = self.model.case.weights, self.model
        z, h, c, restart, length, alive, done = state
        for t in range(len(uniform)):
            parts = [z, model.act(z, h, c), h]
            if w.predicts_done:
                parts.insert(2, restart)
            out, h, c = model.step(torch.cat(parts, dim=1), c)
            mixture = out[:, : model.mixture_size].view(-1, 3, w.n_mixtures, w.latent_dim)
            z = draw(mixture, uniform[t], normal[t])
            length = length + alive
            if w.predicts_done:
                done = out[:, -1:]
                alive = alive * (done <= NEVER_DONE)
            restart = torch.zeros_like(restart)
        return z, h, c, restart, length, alive, done

    def _begin(self, z: Tensor, h: Tensor, c: Tensor) -> State:
        one = torch.ones(self.n, 1, device=self.device)
        zero = torch.zeros_like(one)
        return z, h, c, one, zero, one, zero

    @torch.inference_mode()
    def run(self, steps: int) -> Floats:
        """So many steps, a multiple of `depth`, of all rollouts; their lengths (N,)."""
        w = self.model.case.weights
        h, c = torch.zeros(2, self.n, w.hidden_dim)
        state = self._begin(torch.randn(self.n, w.latent_dim), h, c)
        calls = steps // self.depth
        shape = (self.depth, self.n, w.latent_dim)
        at_once = min(calls, max(1, NOISE_AT_ONCE // math.prod(shape)))
        for call in range(calls):
            if call % at_once == 0:
                uniform, normal = torch.rand(at_once, *shape), torch.randn(at_once, *shape)
            state = self._steps(state, uniform[call % at_once], normal[call % at_once])
        return np.asarray(state[4][:, 0])

    @torch.inference_mode()
    def advance(
        self, z: Floats, h: Floats, c: Floats, uniform: Floats, normal: Floats
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """See `check.Advances`."""
        state = self._begin(*map(torch.from_numpy, (z, h, c)))
        got = self._steps(state, torch.from_numpy(uniform), torch.from_numpy(normal))
        done = got[6][:, 0].numpy() if self.model.case.weights.predicts_done else None
        return got[0].numpy(), got[1].numpy(), got[2].numpy(), done


def compiled(function: Callable[..., Any], n: int, device: str = "cpu") -> Callable[..., Any]:
    """`function` compiled for N rows.

    Measured and left out, since they gained nothing here: weights as constants of the graph
    (freezing), max_autotune's own matrix products.
    """
    options: dict[str, str | int | bool | Callable[..., Any]] = {"compile_threads": 1}
    if n <= SMALL and device == "cpu":
        options["cpp_wrapper"] = True
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def make_dream(case: Case, n: int, precision: str) -> Loop:
    """A dream of N rollouts to be timed, checked; its unit is a dream step.

    Raises:
        Unavailable: it cannot be compiled here.
    """
    torch.compiler.reset()  # of the sizes before; the compiled code itself is kept on disk
    members, rollouts = split(n)
    params = case.params(members)
    dream = CompiledDream(case, params, rollouts, precision)
    _compile(lambda: dream.run(dream.depth))
    check_advance(f"torch.compile {precision}", dream, case, params, precision)
    return Loop(dream.run, per_count=n, multiple=dream.depth)


def make_op(op: str, case: Case, n: int, precision: str) -> Loop:
    """One of the single operations to be timed, checked; its unit is a call.

    Raises:
        Unavailable: it cannot be compiled here.
    """
    torch.compiler.reset()
    inputs = OpInputs.make(case, n)
    contestant = {
        "mdn_rnn_step": _step_op,
        "mixture_sample": _sample_op,
        "controller_forward": _control_op,
    }[op](inputs, DTYPES[precision])
    _compile(contestant.call)
    return checked_loop(f"torch.compile {precision}", op, contestant, inputs, precision)


def _compile(call: Callable[[], object]) -> None:
    """Call for the first time, which compiles."""
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch's, about torch
            call()
    except BackendCompilerFailed as error:
        reason = error.inner_exception
        if not isinstance(reason, (CppCompileError, InvalidCxxCompiler)):
            raise
        text = " ".join(str(reason).split())[:200]
        raise Unavailable(f"torch.compile cannot compile here: {text}") from error


def _step_op(inputs: OpInputs, dtype: torch.dtype) -> Op:
    model = CompiledModel(inputs.case, inputs.params, dtype)
    parts = [inputs.z, inputs.action, inputs.h]
    if inputs.case.weights.predicts_done:
        parts.insert(2, inputs.restart[:, None])
    tensors, c = [torch.from_numpy(part) for part in parts], torch.from_numpy(inputs.c)
    step = compiled(lambda parts, c: model.step(torch.cat(parts, dim=1), c), inputs.n)

    @torch.inference_mode()
    def call() -> tuple[Tensor, Tensor, Tensor]:
        got: tuple[Tensor, Tensor, Tensor] = step(tensors, c)
        return got

    return Op(call, lambda: inputs.step_answer(*(x.numpy() for x in call())))


def _sample_op(inputs: OpInputs, dtype: torch.dtype) -> Op:
    mixture, shape = mixture_planes(inputs), inputs.z.shape
    uniform, normal = torch.from_numpy(inputs.uniform), torch.from_numpy(inputs.normal)
    sample = compiled(draw, inputs.n)

    @torch.inference_mode()
    def call() -> Tensor:
        z: Tensor = sample(mixture, torch.rand(shape), torch.randn(shape))
        return z

    @torch.inference_mode()
    def answer() -> dict[str, Tensor]:
        return {"z": sample(mixture, uniform, normal)}

    return Op(call, answer)


def _control_op(inputs: OpInputs, dtype: torch.dtype) -> Op:
    model = CompiledModel(inputs.case, inputs.params, dtype)
    state = [torch.from_numpy(x) for x in (inputs.z, inputs.h, inputs.c)]
    act = compiled(model.act, inputs.n)

    @torch.inference_mode()
    def call() -> Tensor:
        action: Tensor = act(*state)
        return action

    return Op(call, lambda: {"action": call()})

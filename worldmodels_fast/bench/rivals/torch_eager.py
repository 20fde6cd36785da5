"""PyTorch without a compiler, as well as it can be written: few, large operations, in place."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worldmodels_fast.bench.protocol.cases import NEVER_DONE, TEMPERATURE, Case, split
from worldmodels_fast.bench.protocol.check import check_advance
from worldmodels_fast.bench.protocol.op_inputs import Op, OpInputs, checked_loop
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.bench.rivals.packing import rival_weights
from worldmodels_fast.types import Floats

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NOISE_AT_ONCE = 1 << 16
"""Random numbers are drawn for several steps at once, up to so many."""


class TorchModel:
    """M and controllers as tensors; products in `dtype`, everything else in float32."""

    def __init__(self, case: Case, params: Floats, dtype: torch.dtype, device: str = "cpu") -> None:
        packed, w = rival_weights(case, params), case.weights
        self.case, self.dtype = case, dtype
        self.lstm = torch.from_numpy(packed.lstm).to(device, dtype)
        self.lstm_bias = torch.from_numpy(packed.lstm_bias).to(device, dtype)
        self.head = torch.from_numpy(packed.head).to(device, dtype)
        self.head_bias = torch.from_numpy(packed.head_bias).to(device, dtype)
        self.control = torch.from_numpy(packed.control).to(device)
        self.control_bias = torch.from_numpy(packed.control_bias).to(device)
        self.members = params.shape[0]
        self.mixture_size = 3 * w.n_mixtures * w.latent_dim

    def act(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Actions (N, A): one batched product for all controllers."""
        given = {"z": z, "h": h, "c": c}
        x = torch.cat([given[name] for name in self.case.spec.features], dim=1)
        x = x.view(self.members, -1, x.shape[1])
        return torch.baddbmm(self.control_bias, x, self.control).tanh_().view(len(z), -1)

    def step(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """LSTM and head: x (N, X + H) in `dtype`, c (N, H) -> out (N, O) in `dtype`, h, c."""
        gates = torch.addmm(self.lstm_bias, x, self.lstm).float()
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.addcmul(f.sigmoid_().mul_(c), i.sigmoid_(), g.tanh_())
        h = torch.tanh(c).mul_(o.sigmoid_())
        return torch.addmm(self.head_bias, h.to(self.dtype), self.head), h, c


def draw(mixture: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Sample z' (N, Z) from mixtures (N, 3, K, Z) with uniform (N, 1, Z) and normal (N, Z)."""
    share = torch.softmax(mixture[:, 0] / TEMPERATURE, dim=1)
    k = (share.cumsum(dim=1) <= uniform).sum(dim=1, keepdim=True)
    k.clamp_(max=mixture.shape[2] - 1)
    mu = mixture[:, 1].gather(1, k)[:, 0]
    std = mixture[:, 2].gather(1, k)[:, 0].clamp_(max=10.0).exp_()
    return torch.addcmul(mu, std, normal, value=math.sqrt(TEMPERATURE))


class EagerDream:
    """N = P * R rollouts side by side."""

    depth = 1

    def __init__(
        self, case: Case, params: Floats, rollouts: int, precision: str, device: str = "cpu"
    ) -> None:
        self.device = device
        self.model = TorchModel(case, params, DTYPES[precision], device)
        self.n = params.shape[0] * rollouts
        w = case.weights
        a, done = w.latent_dim + w.action_dim, int(w.predicts_done)
        # What the LSTM's product reads, [z | action | restart | h]; its parts are written in place.
        self.x = torch.zeros(self.n, a + done + w.hidden_dim, dtype=self.model.dtype, device=device)
        self.x_z, self.x_action = self.x[:, : w.latent_dim], self.x[:, w.latent_dim : a]
        self.x_restart, self.x_h = self.x[:, a : a + done], self.x[:, a + done :]

    def step(
        self, z: Tensor, h: Tensor, c: Tensor, uniform: Tensor, normal: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One dream step: z', h', c' and the done logits (N, 1), or (N, 0) if M has none."""
        w, model = self.model.case.weights, self.model
        self.x_z.copy_(z)
        self.x_action.copy_(model.act(z, h, c))
        self.x_h.copy_(h)
        out, h, c = model.step(self.x, c)
        mixture = out[:, : model.mixture_size].float().view(self.n, 3, w.n_mixtures, w.latent_dim)
        return draw(mixture, uniform, normal), h, c, out[:, model.mixture_size :]

    @torch.inference_mode()
    def run(self, steps: int) -> Floats:
        """So many steps of all rollouts; their lengths (N,)."""
        w = self.model.case.weights
        z = torch.randn(self.n, w.latent_dim, device=self.device)
        h, c = torch.zeros(2, self.n, w.hidden_dim, device=self.device)
        length, alive = (
            torch.zeros(self.n, device=self.device),
            torch.ones(self.n, dtype=torch.bool, device=self.device),
        )
        most = NOISE_AT_ONCE if self.device == "cpu" else 64 * NOISE_AT_ONCE
        at_once = min(steps, max(1, most // z.numel()))
        for t in range(steps):
            if t < 2:
                self.x_restart.fill_(float(t == 0))
            if t % at_once == 0:
                uniform = torch.rand(at_once, self.n, 1, w.latent_dim, device=self.device)
                normal = torch.randn(at_once, self.n, w.latent_dim, device=self.device)
            z, h, c, done = self.step(z, h, c, uniform[t % at_once], normal[t % at_once])
            length += alive
            if w.predicts_done:
                alive &= done[:, 0] <= NEVER_DONE
        return np.asarray(length.cpu())

    @torch.inference_mode()
    def advance(
        self, z: Floats, h: Floats, c: Floats, uniform: Floats, normal: Floats
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """See `check.Advances`."""
        self.x_restart.fill_(1.0)
        given = (z, h, c, uniform[0][:, None], normal[0])
        got = self.step(*(torch.from_numpy(x).to(self.device) for x in given))
        z, h, c, done = (x.float().cpu().numpy() for x in got)
        return z, h, c, done[:, 0] if done.size else None


def make_dream(case: Case, n: int, precision: str, device: str = "cpu") -> Loop:
    """A dream of N rollouts to be timed, checked; its unit is a dream step."""
    members, rollouts = split(n)
    params = case.params(members)
    dream = EagerDream(case, params, rollouts, precision, device)
    check_advance(f"torch eager {precision}", dream, case, params, precision)
    return Loop(dream.run, per_count=n)


def make_op(op: str, case: Case, n: int, precision: str) -> Loop:
    """One of the single operations to be timed, checked; its unit is a call."""
    inputs = OpInputs.make(case, n)
    with torch.inference_mode():
        contestant = {
            "mdn_rnn_step": _step_op,
            "mixture_sample": _sample_op,
            "controller_forward": _control_op,
        }[op](inputs, DTYPES[precision])
    return checked_loop(f"torch eager {precision}", op, contestant, inputs, precision)


def _step_op(inputs: OpInputs, dtype: torch.dtype) -> Op:
    model = TorchModel(inputs.case, inputs.params, dtype)
    parts = [inputs.z, inputs.action, inputs.h]
    if inputs.case.weights.predicts_done:
        parts.insert(2, inputs.restart[:, None])
    tensors, c = [torch.from_numpy(part) for part in parts], torch.from_numpy(inputs.c)

    @torch.inference_mode()
    def call() -> tuple[Tensor, Tensor, Tensor]:
        return model.step(torch.cat(tensors, dim=1).to(dtype), c)

    return Op(call, lambda: inputs.step_answer(*(x.float().numpy() for x in call())))


def mixture_planes(inputs: OpInputs) -> Tensor:
    """The mixtures (N, 3, K, Z), as the rivals' heads give them."""
    mixture = np.stack([inputs.logmix, inputs.mu, inputs.logstd], axis=1)
    return torch.from_numpy(np.ascontiguousarray(mixture.swapaxes(2, 3)))


def _sample_op(inputs: OpInputs, dtype: torch.dtype) -> Op:
    mixture, shape = mixture_planes(inputs), inputs.z.shape
    uniform = torch.from_numpy(inputs.uniform)[:, None]
    normal = torch.from_numpy(inputs.normal)

    @torch.inference_mode()
    def call() -> Tensor:
        return draw(mixture, torch.rand(shape)[:, None], torch.randn(shape))

    @torch.inference_mode()
    def answer() -> dict[str, Tensor]:
        return {"z": draw(mixture, uniform, normal)}

    return Op(call, answer)


def _control_op(inputs: OpInputs, dtype: torch.dtype) -> Op:
    model = TorchModel(inputs.case, inputs.params, dtype)
    state = [torch.from_numpy(x) for x in (inputs.z, inputs.h, inputs.c)]

    @torch.inference_mode()
    def call() -> Tensor:
        return model.act(*state)

    return Op(call, lambda: {"action": call()})

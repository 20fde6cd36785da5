"""What the benchmarks run: the paper's two models with random weights, and torch's version of the
dream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from worldmodels_fast import ops, reference

F32 = npt.NDArray[np.float32]
TEMPERATURE = 1.15
NEVER_DONE = (
    1e30  # as done_threshold: every rollout has its full length, so that work can be counted
)


@dataclass(frozen=True)
class Case:
    """One of the paper's models, a population of controllers for it, and first latents."""

    name: str
    weights: ops.MDNRNNWeights
    spec: ops.ControllerSpec
    initial_mu: F32
    initial_logvar: F32

    @property
    def flops_per_step(self) -> int:
        """Additions and multiplications of one dream step of one rollout: LSTM, head,
        controller."""
        w = self.weights
        lstm = w.weight_ih.size + w.weight_hh.size
        return int(2 * (lstm + w.head_weight.size + self.spec.n_params))

    def params(self, members: int) -> F32:
        """Random controllers (members, n_params), of the size that evolution reaches."""
        rng = np.random.default_rng(members)
        return (0.1 * rng.standard_normal((members, self.spec.n_params))).astype(np.float32)


def make_case(name: str) -> Case:
    """Build "car_racing" (Z 32, A 3, H 256, K 5) or "doom" (Z 64, A 1, H 512, K 5, done head)."""
    z, a, h, k, done = {"car_racing": (32, 3, 256, 5, False), "doom": (64, 1, 512, 5, True)}[name]
    rng = np.random.default_rng(0)

    def uniform(*shape: int) -> F32:  # as torch initialises an LSTM
        return (rng.uniform(-1, 1, shape) / np.sqrt(h)).astype(np.float32)

    x, o = z + a + done, 3 * k * z + done
    weights = ops.MDNRNNWeights(
        uniform(4 * h, x),
        uniform(4 * h, h),
        uniform(4 * h),
        uniform(o, h),
        uniform(o),
        z,
        a,
        h,
        k,
        done,
    )
    features = ("z", "c", "h") if done else ("z", "h")
    spec = ops.ControllerSpec(features, z, h, a, bias=not done)
    initial = rng.standard_normal((100, z)).astype(np.float32)
    return Case(name, weights, spec, initial, np.full_like(initial, -2.0))


class TorchDream:
    """The dream in eager PyTorch fp32: every tensor batched over the N = P * R rollouts."""

    def __init__(self, case: Case, params: F32, rollouts: int) -> None:
        """Hold the weights as torch would: transposed once, LSTM input and recurrence as one
        product."""
        w = case.weights
        self.case, self.rollouts = case, rollouts
        self.n = params.shape[0] * rollouts
        joined = np.concatenate([w.weight_ih, w.weight_hh], axis=1)
        self.lstm_weight = torch.from_numpy(joined).t().contiguous()
        self.lstm_bias = torch.from_numpy(w.bias)
        self.head_weight = torch.from_numpy(w.head_weight).t().contiguous()
        self.head_bias = torch.from_numpy(w.head_bias)
        flat = torch.from_numpy(params)  # (P, n_params)
        a = w.action_dim if case.spec.bias else 0
        self.control_bias = flat[:, None, :a].contiguous() if a else torch.zeros(())
        self.control_weight = flat[:, a:].reshape(params.shape[0], -1, w.action_dim).contiguous()

    def control(self, z: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Actions (N, A)."""
        given = {"z": z, "h": h, "c": c}
        x = torch.cat([given[name] for name in self.case.spec.features], dim=1)
        x = x.view(self.control_weight.shape[0], self.rollouts, -1)
        return torch.tanh(torch.bmm(x, self.control_weight) + self.control_bias).view(self.n, -1)

    def step(
        self,
        z: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        restart: torch.Tensor,
        uniform: torch.Tensor,
        normal: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """One dream step: (z', h', c', done logit)."""
        w = self.case.weights
        action = self.control(z, h, c)
        inputs = [z, action, restart, h] if w.predicts_done else [z, action, h]
        gates = torch.addmm(self.lstm_bias, torch.cat(inputs, dim=1), self.lstm_weight)
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out = torch.addmm(self.head_bias, h, self.head_weight)
        done = None
        if w.predicts_done:
            done, out = out[:, 0], out[:, 1:]
        mixture = out.reshape(self.n, w.latent_dim, 3, w.n_mixtures)
        logmix, mu, logstd = mixture.unbind(2)
        cumulative = torch.softmax(logmix / TEMPERATURE, dim=2).cumsum(dim=2)
        k = (cumulative[..., :-1] <= uniform).sum(dim=2, keepdim=True)
        mu_k = mu.gather(2, k)[..., 0]
        logstd_k = logstd.gather(2, k)[..., 0]
        z = mu_k + torch.exp(logstd_k.clamp(max=10.0)) * (TEMPERATURE**0.5) * normal
        return z, h, c, done

    @torch.inference_mode()
    def run(self, steps: int) -> torch.Tensor:
        """N rollouts of `steps` steps; their lengths."""
        w = self.case.weights
        z = torch.randn(self.n, w.latent_dim)
        h = torch.zeros(self.n, w.hidden_dim)
        c = torch.zeros(self.n, w.hidden_dim)
        restart, length = torch.ones(self.n, 1), torch.zeros(self.n)
        for _ in range(steps):
            uniform = torch.rand(self.n, w.latent_dim, 1)
            z, h, c, done = self.step(z, h, c, restart, uniform, torch.randn(self.n, w.latent_dim))
            length += 1.0
            if done is not None:
                length *= (done <= NEVER_DONE).float()
            restart = torch.zeros(self.n, 1)
        return length


def check_torch_dream(case: Case) -> None:
    """One step of TorchDream, given our noise, must be one step of the reference."""
    w, members, rollouts = case.weights, 3, 4
    n = members * rollouts
    params = case.params(members)
    rng = np.random.default_rng(1)
    z, h, c = (rng.standard_normal((n, d)) for d in (w.latent_dim, w.hidden_dim, w.hidden_dim))
    restart = np.ones(n)
    action = reference.controller_forward(case.spec, params, z, h, c)
    step = reference.mdn_rnn_step(w, z, action, h, c, restart if w.predicts_done else None)
    mixture = (step.logmix, step.mu, step.logstd)
    expected = reference.mixture_sample(*mixture, TEMPERATURE, seed=2, rollout=0, step=5)
    uniform, normal = reference.noise(2, np.arange(n), 5, w.latent_dim, reference.MIXTURE)
    inputs = (z, h, c, restart[:, None], uniform[:, :, None], normal)
    rival = TorchDream(case, params, rollouts)
    got = rival.step(*(torch.from_numpy(x.astype(np.float32)) for x in inputs))
    wanted = (expected, step.h, step.c, step.done_logit)
    for g, x in zip(got, wanted, strict=True):
        assert (g is None) == (x is None)
        if g is not None:
            assert np.abs(g.numpy() - x).max() < 1e-4


def ours(
    case: Case, params: F32, rollouts: int, steps: int, threads: int, backend: str | None = None
):
    """Return a function that runs the same dream in our kernels."""
    model = ops.pack_mdn_rnn(case.weights, backend=backend)

    def run() -> F32:
        returns, _ = ops.dream_rollout(
            model,
            case.spec,
            params,
            case.initial_mu,
            case.initial_logvar,
            rollouts=rollouts,
            seed=0,
            temperature=TEMPERATURE,
            max_steps=steps,
            done_threshold=NEVER_DONE,
            threads=threads,
        )
        return returns

    return run

"""M: an LSTM with a mixture density head, p(z' | z, a, h) and, for Doom, p(done) (appendix A.2).

Beyond the paper, M can predict the reward of the step, too, for dreams of games that are not about
survival.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from worldmodels_fast import ops
from worldmodels_fast.utils.arguments import checked_integer

LOG_SQRT_2PI = 0.9189385332046727


class MDNRNNOutput(NamedTuple):
    """M's predictions, over T steps of N sequences.

    Attributes:
        logmix: (T, N, Z, K) unnormalised log-weights of the mixture.
        mu: (T, N, Z, K) means.
        logstd: (T, N, Z, K) log standard deviations.
        done_logit: (T, N), or None where M predicts no end.
        h: (N, H) hidden state after the last step.
        c: (N, H) cell after the last step.
        reward: (T, N) expected reward of the step, in the environment's own units, or None where M
            predicts no reward.
    """

    logmix: Tensor
    mu: Tensor
    logstd: Tensor
    done_logit: Tensor | None
    h: Tensor
    c: Tensor
    reward: Tensor | None = None


class MDNRNN(nn.Module):
    """The paper's M.

    CarRacing's (32, 3, 256) has 422,368 parameters, Doom's (64, 1, 512, predicts_done=True)
    1,678,785. Gates are in PyTorch's order i, f, g, o with one bias vector; the forget gate's bias
    starts at 1 (TensorFlow adds the same 1 when it runs).

    With `predicts_done` M also takes a restart flag, 1 on an episode's first step, and its head's
    first column is the logit of the episode ending with this step.

    With `predicts_reward` the head's next column is the expected reward of the step, that which the
    environment gives for the action, in the environment's own units. The paper's M has none.

    A new M is float32 and on the CPU, whatever torch's defaults are; `.to` moves it.

    Args:
        latent_dim: Z.
        action_dim: A.
        hidden_dim: H.
        n_mixtures: K, components of each latent dimension's mixture.
        predicts_done: whether M predicts the end of the episode.
        predicts_reward: whether M predicts the reward of the step.

    Raises:
        TypeError, ValueError: a size that is no integer or below 1.
    """

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        hidden_dim: int,
        n_mixtures: int = 5,
        predicts_done: bool = False,
        predicts_reward: bool = False,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim = checked_integer("latent_dim", latent_dim, low=1)
        self.action_dim = action_dim = checked_integer("action_dim", action_dim, low=1)
        self.hidden_dim = hidden_dim = checked_integer("hidden_dim", hidden_dim, low=1)
        self.n_mixtures = n_mixtures = checked_integer("n_mixtures", n_mixtures, low=1)
        self.predicts_done = predicts_done
        self.predicts_reward = predicts_reward
        inputs = latent_dim + action_dim + int(predicts_done)
        where: Any = {"device": "cpu", "dtype": torch.float32}
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_dim, inputs, **where))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_dim, hidden_dim, **where))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_dim, **where))
        scalars = int(predicts_done) + int(predicts_reward)
        self.head = nn.Linear(hidden_dim, 3 * n_mixtures * latent_dim + scalars, **where)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: Glorot for the input and the head, orthogonal for the recurrence."""
        nn.init.xavier_uniform_(self.weight_ih)
        for gate in self.weight_hh.chunk(4):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias[self.hidden_dim : 2 * self.hidden_dim])
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def initial_state(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the zero state h, c, (N, H) each, with which every episode starts."""
        zeros = self.bias.new_zeros(n, self.hidden_dim)
        return zeros, zeros.clone()

    def forward(
        self,
        z: Tensor,
        action: Tensor,
        state: tuple[Tensor, Tensor] | None = None,
        restart: Tensor | None = None,
    ) -> MDNRNNOutput:
        """Run over T steps of N sequences.

        Args:
            z: (T, N, Z).
            action: (T, N, A).
            state: h, c (N, H) each from before the first step; None for zeros.
            restart: (T, N), 1 where an episode starts: the state is zeroed before that step (and
                the flag is an input of an M that predicts ends). None: no episode starts.

        Raises:
            ValueError: shapes that do not fit.
        """
        steps, n = z.shape[:2]
        if z.shape != (steps, n, self.latent_dim) or action.shape != (steps, n, self.action_dim):
            raise ValueError(
                f"z, action: expected (T, N, {self.latent_dim}) and (T, N, {self.action_dim}), "
                f"got {tuple(z.shape)} and {tuple(action.shape)}"
            )
        if restart is None:
            restart = z.new_zeros(steps, n)
        h, c = state if state is not None else self.initial_state(n)
        inputs = [z, action, restart.unsqueeze(-1)] if self.predicts_done else [z, action]
        projected = F.linear(torch.cat(inputs, dim=-1), self.weight_ih, self.bias)
        keep = (1 - restart).unsqueeze(-1)
        hidden, h, c = lstm_with_restarts(projected.float(), self.weight_hh, h, c, keep)
        head = self.head(hidden).float()
        # The end's logit, the reward; then for each latent dimension [logmix | mu | logstd].
        first = int(self.predicts_done) + int(self.predicts_reward)
        done_logit = head[..., 0] if self.predicts_done else None
        reward = head[..., first - 1] if self.predicts_reward else None
        mixture = head[..., first:]
        mixture = mixture.unflatten(-1, (self.latent_dim, 3, self.n_mixtures))
        logmix, mu, logstd = mixture.unbind(dim=-2)
        return MDNRNNOutput(logmix, mu, logstd, done_logit, h, c, reward)

    def weights(self) -> ops.MDNRNNWeights:
        """Return a copy of the weights as arrays, for the kernels."""

        def array(parameter: Tensor) -> npt.NDArray[np.float32]:
            return parameter.detach().float().cpu().contiguous().numpy().copy()

        return ops.MDNRNNWeights(
            weight_ih=array(self.weight_ih),
            weight_hh=array(self.weight_hh),
            bias=array(self.bias),
            head_weight=array(self.head.weight),
            head_bias=array(self.head.bias),
            latent_dim=self.latent_dim,
            action_dim=self.action_dim,
            hidden_dim=self.hidden_dim,
            n_mixtures=self.n_mixtures,
            predicts_done=self.predicts_done,
            predicts_reward=self.predicts_reward,
        )

    def load_weights(self, weights: ops.MDNRNNWeights) -> MDNRNN:
        """Take the weights of another M of the same sizes; returns self.

        Raises:
            ValueError: other sizes.
        """
        sizes = ("latent_dim", "action_dim", "hidden_dim", "n_mixtures")
        for name in (*sizes, "predicts_done", "predicts_reward"):
            if getattr(weights, name) != getattr(self, name):
                raise ValueError(
                    f"{name}: this M's is {getattr(self, name)}, that of the weights "
                    f"{getattr(weights, name)}"
                )
        parameters = {
            "weight_ih": self.weight_ih,
            "weight_hh": self.weight_hh,
            "bias": self.bias,
            "head_weight": self.head.weight,
            "head_bias": self.head.bias,
        }
        with torch.no_grad():
            for name, parameter in parameters.items():
                given = getattr(weights, name)
                array = given if isinstance(given, Tensor) else torch.from_numpy(given)
                if array.shape != parameter.shape:
                    raise ValueError(
                        f"{name}: expected shape {tuple(parameter.shape)}, got {tuple(array.shape)}"
                    )
                parameter.copy_(array)
        return self


def mixture_nll(output: MDNRNNOutput, target: Tensor) -> Tensor:
    """Return -log p(z') of each step and latent dimension, (T, N, Z) in nats.

    Each dimension is a mixture of its own, independent of the others.

    Args:
        output: M's output over T steps.
        target: (T, N, Z), the latents that came next.
    """
    standardised = (target.unsqueeze(-1) - output.mu) * torch.exp(-output.logstd)
    log_density = -0.5 * standardised.square() - output.logstd - LOG_SQRT_2PI
    return torch.logsumexp(output.logmix, -1) - torch.logsumexp(output.logmix + log_density, -1)


def lstm_with_restarts(
    projected: Tensor, weight_hh: Tensor, h: Tensor, c: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM whose state is multiplied by `keep` before each step.

    torch's own LSTM cannot zero the state inside a sequence, and with a loop over its cell autograd
    adds up the weights' gradient step by step. Here the backward pass computes it in one matrix
    product over all steps. Products run in bfloat16 under autocast, the rest in float32.

    Args:
        projected: (T, N, 4H) W x + b of every step, gates i, f, g, o.
        weight_hh: (4H, H).
        h: (N, H) state before the first step.
        c: (N, H).
        keep: (T, N, 1), 0 where an episode starts, else 1.

    Returns:
        hidden (T, N, H), and h, c (N, H) after the last step.
    """
    device = projected.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else h.dtype
    hidden, h, c = _LSTMWithRestarts.apply(projected, weight_hh, h, c, keep, dtype)  # type: ignore[no-untyped-call]
    return hidden, h, c


class _LSTMWithRestarts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        projected: Tensor,
        weight_hh: Tensor,
        h: Tensor,
        c: Tensor,
        keep: Tensor,
        product_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, n, _ = projected.shape
        hidden_dim = h.shape[1]
        weight = weight_hh.to(product_dtype)
        gates = projected.clone()  # (T, N, 4H), activated in place
        h_before = h.new_empty(steps, n, hidden_dim, dtype=product_dtype)
        c_before = h.new_empty(steps, n, hidden_dim)
        tanh_c = h.new_empty(steps, n, hidden_dim)
        hidden = h.new_empty(steps, n, hidden_dim)
        for t in range(steps):
            torch.mul(c, keep[t], out=c_before[t])
            h_before[t] = h * keep[t]
            gates[t] += h_before[t] @ weight.T
            gates[t, :, : 2 * hidden_dim].sigmoid_()
            gates[t, :, 2 * hidden_dim : 3 * hidden_dim].tanh_()
            gates[t, :, 3 * hidden_dim :].sigmoid_()
            in_gate, forget, candidate, out_gate = gates[t].chunk(4, dim=1)
            c = torch.addcmul(forget * c_before[t], in_gate, candidate)
            torch.tanh(c, out=tanh_c[t])
            h = torch.mul(out_gate, tanh_c[t], out=hidden[t])
        ctx.save_for_backward(gates, h_before, c_before, tanh_c, weight, keep)
        return hidden, h.clone(), c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, d_hidden: Tensor, d_h: Tensor, d_c: Tensor
    ) -> tuple[Tensor | None, ...]:
        gates, h_before, c_before, tanh_c, weight, keep = ctx.saved_tensors  # type: ignore[attr-defined]
        d_gates = torch.empty_like(gates)
        for t in reversed(range(len(gates))):
            in_gate, forget, candidate, out_gate = gates[t].chunk(4, dim=1)
            d_in, d_forget, d_candidate, d_out = d_gates[t].chunk(4, dim=1)
            d_h = d_h + d_hidden[t]
            d_c = d_c + d_h * out_gate * (1 - tanh_c[t].square())
            torch.mul(d_c * candidate, in_gate * (1 - in_gate), out=d_in)
            torch.mul(d_c * c_before[t], forget * (1 - forget), out=d_forget)
            torch.mul(d_c * in_gate, 1 - candidate.square(), out=d_candidate)
            torch.mul(d_h * tanh_c[t], out_gate * (1 - out_gate), out=d_out)
            d_c = d_c * forget * keep[t]
            d_h = (d_gates[t].to(weight.dtype) @ weight).to(d_h.dtype) * keep[t]
        flat = d_gates.flatten(0, 1).to(weight.dtype)
        d_weight = (flat.T @ h_before.flatten(0, 1)).to(d_gates.dtype)
        return d_gates, d_weight, d_h, d_c, None, None

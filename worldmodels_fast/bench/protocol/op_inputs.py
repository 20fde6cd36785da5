"""Inputs of the single operations, the same for all contestants, and the expected answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodels_fast import reference
from worldmodels_fast.bench.protocol.cases import TEMPERATURE, Case, split
from worldmodels_fast.bench.protocol.check import checked_rows, compare
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.types import Floats

OPS = ("mdn_rnn_step", "mixture_sample", "controller_forward")

MARGIN = 1e-4
"""No uniform number is nearer to a border between two components: roundings must not matter."""


@dataclass(frozen=True)
class OpInputs:
    """Random inputs of N rows for each operation; float32."""

    case: Case
    n: int
    params: Floats  # (P, n_params)
    z: Floats  # (N, Z)
    action: Floats  # (N, A)
    h: Floats  # (N, H)
    c: Floats  # (N, H)
    restart: Floats  # (N,), 0
    logmix: Floats  # (N, Z, K)
    mu: Floats  # (N, Z, K)
    logstd: Floats  # (N, Z, K)
    uniform: Floats  # (N, Z), those of seed 0, rollouts 0 to N - 1, step 0
    normal: Floats  # (N, Z)

    @classmethod
    def make(cls, case: Case, n: int) -> OpInputs:
        """The inputs for N rows; the same each time."""
        w, rng = case.weights, np.random.default_rng(n)
        members, _ = split(n)
        sizes = (w.latent_dim, w.action_dim, w.hidden_dim, w.hidden_dim)
        z, action, h, c = (rng.standard_normal((n, size)).astype(np.float32) for size in sizes)
        shape = (3, n, w.latent_dim, w.n_mixtures)
        logmix, mu, logstd = rng.standard_normal(shape).astype(np.float32)
        noise = reference.noise(0, np.arange(n), 0, w.latent_dim, reference.MIXTURE)
        uniform, normal = (x.astype(np.float32) for x in noise)
        share = np.exp(logmix / TEMPERATURE)
        border = np.cumsum(share, axis=2) / share.sum(axis=2, keepdims=True)
        near = (np.abs(border - uniform[..., None]) < MARGIN).any(axis=2)
        logmix[near, 0] = 50.0  # there the first component it is, whatever the number
        return cls(
            case, n, case.params(members), z, action, np.tanh(h), c, np.zeros(n, np.float32),
            logmix, mu, logstd, uniform, normal,
        )  # fmt: skip

    def expected(self, op: str) -> dict[str, Any]:
        """Return the reference's answer on the checked rows."""
        rows, case = checked_rows(self.n), self.case
        if op == "mdn_rnn_step":
            step = reference.mdn_rnn_step(
                case.weights, self.z[rows], self.action[rows], self.h[rows], self.c[rows]
            )
            return {name: x for name, x in step._asdict().items() if x is not None}
        if op == "mixture_sample":
            mixture = (self.logmix[rows], self.mu[rows], self.logstd[rows])
            return {"z": reference.mixture_sample(*mixture, TEMPERATURE, rollout=rows)}
        own = self.params[rows // (self.n // len(self.params))]
        state = (self.z[rows], self.h[rows], self.c[rows])
        return {"action": reference.controller_forward(case.spec, own, *state)}

    def step_answer(self, out: Floats, h: Floats, c: Floats) -> dict[str, Any]:
        """A rival's step as the reference names its parts.

        Args:
            out: (N, O) in the order of `packing.RivalWeights.head`.
            h: (N, H).
            c: (N, H).
        """
        w = self.case.weights
        size = 3 * w.n_mixtures * w.latent_dim
        mixture = out[:, :size].reshape(-1, 3, w.n_mixtures, w.latent_dim).swapaxes(2, 3)
        answer = {"logmix": mixture[:, 0], "mu": mixture[:, 1], "logstd": mixture[:, 2]}
        if w.predicts_done:
            answer["done_logit"] = out[:, size]
        return {**answer, "h": h, "c": c}


@dataclass(frozen=True)
class Op:
    """A contestant's operation.

    Attributes:
        call: does it once, on the inputs that it has; this is timed.
        answer: what it answers, under the inputs' own noise.
    """

    call: Callable[[], object]
    answer: Callable[[], Mapping[str, Any]]


def checked_loop(who: str, op: str, contestant: Op, inputs: OpInputs, precision: str) -> Loop:
    """Check a contestant's answer; then it can be timed, in calls per second.

    Raises:
        RuntimeError: it is wrong.
    """
    rows = checked_rows(inputs.n)
    answer = {name: np.asarray(x)[rows] for name, x in contestant.answer().items()}
    contestant.call()
    compare(f"{who} {op}", answer, inputs.expected(op), precision)
    call = contestant.call

    def run(count: int) -> None:
        for _ in range(count):
            call()

    return Loop(run)

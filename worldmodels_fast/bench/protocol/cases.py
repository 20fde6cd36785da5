"""The models measured: the paper's two with random weights, and the bundled Doom world's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from worldmodels_fast import ops
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.types import Floats
from worldmodels_fast.world.pretrained import load_pretrained

CASES = ("car_racing", "doom", "take-cover")
"""The paper's CarRacing and Doom, random; and the bundled world, whose shape is Doom's."""

PRECISIONS = ("fp32", "bf16", "int8")

TEMPERATURE = DreamConfig.temperature

NEVER_DONE = 1e30
"""As done_threshold: every rollout has its full length, so that work can be counted."""

ROLLOUTS = 16
"""Rollouts of each member, where there are as many."""


@dataclass(frozen=True)
class Case:
    """One of the models, what a controller of it is, and first latents."""

    name: str
    weights: ops.MDNRNNWeights
    spec: ops.ControllerSpec
    initial_mu: Floats
    initial_logvar: Floats

    @property
    def flops_per_step(self) -> int:
        """Additions and multiplications of one dream step of one rollout: LSTM, head, controller.

        Two for each weight that is multiplied; the restart flag is 0 on all steps but the first.
        """
        w = self.weights
        lstm = 4 * w.hidden_dim * (w.latent_dim + w.action_dim + w.hidden_dim)
        return int(2 * (lstm + w.head_weight.size + self.spec.n_params))

    def params(self, members: int) -> Floats:
        """Random controllers (members, n_params), of the size that evolution reaches."""
        rng = np.random.default_rng(members)
        return (0.1 * rng.standard_normal((members, self.spec.n_params))).astype(np.float32)


def make_case(name: str, hidden_dim: int | None = None) -> Case:
    """Build one of `CASES`.

    Args:
        name: "car_racing" (Z 32, A 3, H 256, K 5), "doom" (Z 64, A 1, H 512, K 5, done head), or
            "take-cover", the bundled world's M and first latents.
        hidden_dim: another H for the random ones.

    Raises:
        ValueError: no such case, or another H for the bundled world.
    """
    if name not in CASES:
        raise ValueError(f"models: expected some of {', '.join(CASES)}; got {name!r}")
    if name == "take-cover":
        if hidden_dim is not None:
            raise ValueError("hidden_dim: expected None for the bundled world, whose M is as it is")
        world = load_pretrained(name)
        mu, logvar = (np.ascontiguousarray(x, np.float32) for x in world.initial_latents)
        w = world.mdn_rnn.weights()
        w = dataclasses.replace(
            w,
            weight_ih=np.array(w.weight_ih),
            weight_hh=np.array(w.weight_hh),
            bias=np.array(w.bias),
            head_weight=np.array(w.head_weight),
            head_bias=np.array(w.head_bias),
        )
        return Case(name, w, world.controller.spec, mu, logvar)
    sizes = {"car_racing": (32, 3, 256, 5, False), "doom": (64, 1, 512, 5, True)}
    z, a, h, k, done = sizes[name]
    return random_case(name, z, a, hidden_dim or h, k, done)


def random_case(
    name: str,
    latent_dim: int,
    action_dim: int,
    hidden_dim: int,
    n_mixtures: int,
    predicts_done: bool,
) -> Case:
    """Build a model with weights as torch initialises an LSTM, and normal first latents."""
    rng = np.random.default_rng(0)

    def uniform(*shape: int) -> Floats:
        weights: Floats = (rng.uniform(-1, 1, shape) / np.sqrt(hidden_dim)).astype(np.float32)
        return weights

    inputs = latent_dim + action_dim + predicts_done
    outputs = 3 * n_mixtures * latent_dim + predicts_done
    weights = ops.MDNRNNWeights(
        uniform(4 * hidden_dim, inputs),
        uniform(4 * hidden_dim, hidden_dim),
        uniform(4 * hidden_dim),
        uniform(outputs, hidden_dim),
        uniform(outputs),
        latent_dim,
        action_dim,
        hidden_dim,
        n_mixtures,
        predicts_done,
    )
    features = ("z", "c", "h") if predicts_done else ("z", "h")
    spec = ops.ControllerSpec(features, latent_dim, hidden_dim, action_dim, bias=not predicts_done)
    initial = rng.standard_normal((100, latent_dim)).astype(np.float32)
    return Case(name, weights, spec, initial, np.full_like(initial, -2.0))


def split(n: int) -> tuple[int, int]:
    """Return (members, rollouts) with N = members * rollouts: 16 rollouts each, or one member.

    Raises:
        ValueError: N is not positive, or above 16 and no multiple of 16.
    """
    if n < 1 or (n > ROLLOUTS and n % ROLLOUTS):
        raise ValueError(
            f"sizes: expected 1 to {ROLLOUTS} rollouts or a multiple of {ROLLOUTS}, got {n}"
        )
    return (n // ROLLOUTS, ROLLOUTS) if n > ROLLOUTS else (1, n)

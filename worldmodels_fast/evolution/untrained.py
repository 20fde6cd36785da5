"""An ablation: C sees the h and c of an untrained M, in the dream of the trained one.

C can only be evolved in a dream of a trained M. So that nothing but C's memory differs from the
full agent, the dream stays the same, and a second M with random weights gets the same z and
actions; C sees its h and c. Both are written as one M of twice the size, which every kernel can
run: its recurrent matrix has two blocks, its head reads the first half, C the second.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worldmodels_fast import ops
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evolution.cma import Params
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.models.mdn_rnn import MDNRNN

__all__ = ["beside_untrained", "reads_second_half", "widen"]


@torch.no_grad()
def beside_untrained(mdn_rnn: MDNRNN, seed: int) -> MDNRNN:
    """Return M (hidden size 2 H) whose first half is `mdn_rnn`, and whose second is untrained.

    Its predictions are those of `mdn_rnn`: the head's weights for the second half are zero.

    Args:
        mdn_rnn: the trained M, hidden size H.
        seed: of the untrained weights.
    """
    hidden = mdn_rnn.hidden_dim

    def sized(hidden_dim: int) -> MDNRNN:
        return MDNRNN(
            mdn_rnn.latent_dim,
            mdn_rnn.action_dim,
            hidden_dim,
            mdn_rnn.n_mixtures,
            mdn_rnn.predicts_done,
            mdn_rnn.predicts_reward,
        )

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        untrained, both = sized(hidden), sized(2 * hidden)
    pair = (mdn_rnn, untrained)
    both.weight_ih.copy_(_by_gate(*(m.weight_ih for m in pair)))
    both.bias.copy_(_by_gate(*(m.bias for m in pair)))
    both.weight_hh.zero_()
    for gate in range(4):
        for half, m in enumerate(pair):
            at = (2 * gate + half) * hidden
            columns = slice(half * hidden, (half + 1) * hidden)
            both.weight_hh[at : at + hidden, columns] = m.weight_hh.chunk(4)[gate]
    both.head.weight.zero_()
    both.head.weight[:, :hidden] = mdn_rnn.head.weight
    both.head.bias.copy_(mdn_rnn.head.bias)
    return both.eval()


def _by_gate(first: Tensor, second: Tensor) -> Tensor:
    """Rows (4 H, ...) of two layers as those of one, (8 H, ...): each gate's side by side."""
    gates = zip(first.chunk(4), second.chunk(4), strict=True)
    return torch.cat([row for gate in gates for row in gate])


def reads_second_half(spec: ops.ControllerSpec) -> LinearController:
    """Return a controller of form `spec`, but hidden size 2 H, for parameters from `widen`."""
    return LinearController(
        spec.features,
        latent_dim=spec.latent_dim,
        hidden_dim=2 * spec.hidden_dim,
        action_dim=spec.action_dim,
        bias=spec.bias,
        hidden_units=spec.hidden_units,
        squash=Squash(spec.scale, spec.shift, spec.low, spec.high),
    )


def widen(spec: ops.ControllerSpec, population: Params) -> Params:
    """Return parameters (P, n) float32 of `reads_second_half(spec)`: zeros for the first half.

    Args:
        spec: a controller of hidden size H.
        population: its parameters (P, n_params) float32.
    """
    width = spec.hidden_units or spec.action_dim  # outputs of the layer that sees the features
    bias = width if spec.bias else 0
    pieces = [population[:, :bias]]
    at = bias
    for feature in spec.features:
        size = width * (spec.latent_dim if feature == "z" else spec.hidden_dim)
        rows = population[:, at : at + size]
        pieces += [rows] if feature == "z" else [np.zeros_like(rows), rows]
        at += size
    return np.ascontiguousarray(np.concatenate([*pieces, population[:, at:]], axis=1))

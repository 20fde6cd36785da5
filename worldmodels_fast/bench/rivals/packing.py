"""The weights in the order in which every rival wants them, made before anything is timed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldmodels_fast.bench.protocol.cases import Case
from worldmodels_fast.types import Floats


@dataclass(frozen=True)
class RivalWeights:
    """M for a matrix library: one product for the LSTM, one for the head, mixtures in planes.

    Axes: X inputs of M, the features that C sees F, rollouts N = P * R.
    """

    lstm: Floats  # (X + H, 4H), rows [z | action | restart | h], gates i, f, g, o
    lstm_bias: Floats  # (4H,)
    head: Floats  # (H, 3 K Z (+ 1)): [logmix | mu | logstd] x K planes of Z, then the done logit
    head_bias: Floats  # (3 K Z (+ 1),)
    control: Floats  # (P, F, A)
    control_bias: Floats  # (P, 1, A), zeros where the controller has none


def rival_weights(case: Case, params: Floats) -> RivalWeights:
    """Transpose, join and reorder the weights of M and of the controllers `params` (P, n_params).

    With the mixtures in planes, every operation of the sample runs over contiguous latents.

    Raises:
        ValueError: the controller has a hidden layer or squashes by more than tanh.
    """
    w, spec = case.weights, case.spec
    squash = (spec.scale, spec.shift, spec.low, spec.high)
    plain = tuple((value,) * spec.action_dim for value in (1.0, 0.0, -1.0, 1.0))
    if spec.hidden_units or squash != plain:
        raise ValueError("case: the rivals know linear controllers with a plain tanh only")
    done = int(w.predicts_done)
    z, h, k = w.latent_dim, w.hidden_dim, w.n_mixtures
    head = w.head_weight[done:].reshape(z, 3, k, h).transpose(1, 2, 0, 3).reshape(-1, h)
    head_bias = w.head_bias[done:].reshape(z, 3, k).transpose(1, 2, 0).reshape(-1)
    biases = spec.action_dim if spec.bias else 0
    members = params.shape[0]
    return RivalWeights(
        lstm=np.ascontiguousarray(np.concatenate([w.weight_ih, w.weight_hh], axis=1).T),
        lstm_bias=w.bias,
        head=np.ascontiguousarray(np.concatenate([head, w.head_weight[:done]]).T),
        head_bias=np.concatenate([head_bias, w.head_bias[:done]]),
        control=np.ascontiguousarray(params[:, biases:].reshape(members, -1, spec.action_dim)),
        control_bias=params[:, None, :biases].copy()
        if biases
        else np.zeros((members, 1, spec.action_dim), np.float32),
    )

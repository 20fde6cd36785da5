"""How large CMA-ES's first steps are: as large as each feature of C allows.

CMA-ES begins with the same step for every parameter, and with a thousand of them it never learns
much about their scales. But C's features differ: a cell swings by 1, a hidden unit by 0.2, and most
of z's dimensions, which V has no use for, are noise that only makes actions jitter. So the step of
a parameter is divided by the spread of its feature, and multiplied by the share of that spread that
says something (all of it for h and c; for z what is not V's own sampling noise).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from worldmodels_fast import data
from worldmodels_fast.mdn_rnn import MDNRNN
from worldmodels_fast.ops import ControllerSpec
from worldmodels_fast.training import RNNConfig, sequence_chunks

__all__ = ["Spreads", "feature_spreads", "parameter_scales"]

Floats = npt.NDArray[np.float32]
Spreads = dict[str, tuple[Floats, Floats]]
"""For "z", "h" and "c": the spread of each dimension, and the share of it that is signal."""

LEAST_SPREAD = {"z": 0.1, "h": 0.02, "c": 0.05}
"""A feature that moves less is not blown up any further."""

LEAST_SHARE = 0.02


@torch.no_grad()
def feature_spreads(model: MDNRNN, latents: data.Latents, config: RNNConfig) -> Spreads:
    """Measure how far C's features swing over episodes that were really played.

    Args:
        model: the M whose h and c C sees.
        latents: the episodes as V sees them.
        config: how they are laid into batches, and whether z is sampled.
    """
    noise = np.exp(latents.logvar.astype(np.float32)).mean(0)
    signal = latents.mu.astype(np.float32).var(0)
    if config.latent == "mu":
        noise = np.zeros_like(noise)
    z = np.sqrt(signal + noise)
    spreads = {"z": (z, signal / np.maximum(signal + noise, 1e-12))}
    batch = min(config.batch, len(latents.lengths))
    state = None
    seen: dict[str, list[Floats]] = {"h": [], "c": []}
    for chunk in sequence_chunks(
        latents, batch, config.chunk, seed=(0,), sample=config.latent == "sample"
    ):
        output = model(chunk.z, chunk.action, state, chunk.restart)
        state = (output.h, output.c)
        seen["h"].append(output.h.numpy())  # (B, H): one step of each chunk and row is enough
        seen["c"].append(output.c.numpy())
    for name, values in seen.items():
        spread = np.concatenate(values).std(0)
        spreads[name] = (spread, np.ones_like(spread))
    return spreads


def parameter_scales(spec: ControllerSpec, spreads: Spreads) -> Floats:
    """Return the relative size (n_params,) of CMA-ES's first step for each of C's parameters.

    Args:
        spec: what the parameters mean. Those that see no feature (biases, a second layer) have 1.
        spreads: see `feature_spreads`; where a feature has more dimensions than C sees, C sees the
            last ones.
    """
    width = spec.hidden_units or spec.action_dim  # outputs of the layer that sees the features
    scales = np.ones(spec.n_params, np.float32)
    at = width if spec.bias else 0
    for name in spec.features:
        size = spec.latent_dim if name == "z" else spec.hidden_dim
        spread, share = (values[-size:] for values in spreads[name])
        step = np.maximum(share, LEAST_SHARE) / np.maximum(spread, LEAST_SPREAD[name])
        scales[at : at + size * width] = np.repeat(step, width)
        at += size * width
    return scales

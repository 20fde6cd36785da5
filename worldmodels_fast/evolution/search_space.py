"""The space in which CMA-ES searches for C: in units of each parameter's effect on the action.

CMA-ES begins with the same step for every parameter, and with a thousand of them it takes thousands
of generations to adapt. But C's features differ. The standard deviation of a cell is about 1, of a
hidden unit 0.2. Most of z's dimensions are unused by V, and their noise only makes actions jitter.
And cells have means far from zero, so that any change of their weights is also a bias: most of a
population then moves to one side. So CMA-ES searches for u in

    W = S (u - 0.9 v v'u),    S = share / spread for each feature,   v = S mean / |S mean|

where the share is the part of a feature's variance that is signal: all of it for h and c, for z
all but V's own sampling noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from worldmodels_fast import data
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.ops.types import ControllerSpec
from worldmodels_fast.training.config import RNNConfig
from worldmodels_fast.training.sequences import sequence_chunks
from worldmodels_fast.types import Floats

__all__ = ["FeatureStatistics", "SearchSpace", "feature_statistics"]


LEAST_SPREAD = {"z": 0.1, "h": 0.02, "c": 0.05}
"""Standard deviations below this count as this, so that a constant feature is not scaled up."""

LEAST_SHARE = 0.02

TAKEN_OUT = 0.9
"""Part of a step's effect through the features' means that is removed: not all, C needs a bias."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of a feature of C, "z", "h" or "c": (D,) float32 each.

    Attributes:
        mean: of each of its dimensions.
        spread: their standard deviations.
        share: the part of their variance that is not noise.
    """

    mean: Floats
    spread: Floats
    share: Floats

    def last(self, size: int) -> FeatureStatistics:
        """Return the statistics of the last `size` dimensions."""
        return FeatureStatistics(self.mean[-size:], self.spread[-size:], self.share[-size:])


@torch.no_grad()
def feature_statistics(
    model: MDNRNN, latents: data.Latents, config: RNNConfig
) -> dict[str, FeatureStatistics]:
    """Return the statistics of C's features over episodes of the game, by feature.

    Args:
        model: the M whose h and c C sees.
        latents: the encoded episodes.
        config: batch, chunk, and whether z is sampled.
    """
    mu = latents.mu.astype(np.float32)
    noise = np.exp(latents.logvar.astype(np.float32)).mean(0)
    if config.latent == "mu":
        noise = np.zeros_like(noise)
    variance = mu.var(0) + noise
    share = mu.var(0) / np.maximum(variance, 1e-12)
    found = {"z": FeatureStatistics(mu.mean(0), np.sqrt(variance), share)}
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
        joined = np.concatenate(values)
        found[name] = FeatureStatistics(
            joined.mean(0), joined.std(0), np.ones(joined.shape[1], np.float32)
        )
    return found


class SearchSpace:
    """A linear map from the parameters that CMA-ES searches to C's.

    Args:
        spec: C's form. Parameters that multiply no feature (biases, a second layer) are mapped to
            themselves.
        statistics: see `feature_statistics`; where a feature has more dimensions than C sees, C
            sees the last ones.
    """

    def __init__(self, spec: ControllerSpec, statistics: dict[str, FeatureStatistics]) -> None:
        self._width = spec.hidden_units or spec.action_dim  # outputs of the layer that sees them
        self._first = self._width if spec.bias else 0
        steps, means = [], []
        for name in spec.features:
            of = statistics[name].last(spec.latent_dim if name == "z" else spec.hidden_dim)
            steps.append(np.maximum(of.share, LEAST_SHARE))
            steps[-1] /= np.maximum(of.spread, LEAST_SPREAD[name])
            means.append(of.mean)
        self._step = np.concatenate(steps).astype(np.float64)
        axis = self._step * np.concatenate(means)
        self._axis = axis / max(float(np.linalg.norm(axis)), 1e-12)

    def __call__(self, population: Floats) -> Floats:
        """Return C's parameters (P, n_params) float32 for `population`, the same shape."""
        inputs = len(self._step)
        weights = slice(self._first, self._first + inputs * self._width)
        u = population[:, weights].astype(np.float64).reshape(-1, inputs, self._width)
        axis = self._axis[:, None]
        u -= TAKEN_OUT * axis * (axis * u).sum(axis=1, keepdims=True)
        params = population.astype(np.float32)
        params[:, weights] = (self._step[:, None] * u).reshape(len(u), -1)
        return params

"""The probability of an episode's end, calibrated: M's done logit against the game.

M's cross-entropy weighs the step that ends an episode `done_weight` times, and an M that was
trained on its episodes for many epochs is overconfident about their ends. Both are undone by a
linear function of the logit, fitted on held-out episodes (Platt 1999):
p = sigmoid((logit - threshold) / temperature). A dream that draws its ends with this probability
(`Dream`'s `done_threshold` and `done_temperature`) ends as often as the game does, as far as M
predicts it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from worldmodels_fast import data
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.training.config import RNNConfig
from worldmodels_fast.training.sequences import sequence_chunks

__all__ = ["DoneCalibration", "calibrate_done", "fit_done"]

_PRIOR = 1e-3
"""Precision of a Gaussian prior on the fit around its start. A hundred deaths outweigh it; it keeps
the fit finite where deaths are few or separated without an error."""


class DoneCalibration(NamedTuple):
    """p(done) = sigmoid((logit - threshold) / temperature)."""

    threshold: float
    temperature: float


def fit_done(logit: npt.ArrayLike, done: npt.ArrayLike, done_weight: float) -> DoneCalibration:
    """Return the calibration of the done logit with the maximum likelihood on held-out steps.

    Args:
        logit: (N,) M's done logit.
        done: (N,) whether the step ended its episode.
        done_weight: the weight of such a step in M's training; the fit starts from it.

    Raises:
        ValueError: shapes that differ, logits that are not finite, or no end or nothing but ends.
    """
    x = np.asarray(logit, np.float64)
    y = np.asarray(done, np.bool_)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"logit, done: expected two arrays of one shape (N,), got {x.shape} and {y.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("logit: expected finite numbers")
    if not 0 < y.sum() < y.size:
        raise ValueError(f"done: expected some ends and some other steps, got {y.sum()}/{y.size}")
    # Newton's method on the log-likelihood of p = sigmoid(slope x + offset), from the line that
    # undoes the weight alone. It is concave; a step that overshoots is halved.
    start = np.array([1.0, -np.log(done_weight)])
    line = start.copy()
    features = np.stack([x, np.ones_like(x)])

    def objective(line: npt.NDArray[np.float64]) -> float:
        z = line @ features
        likelihood = np.where(y, z, 0.0).sum() - np.logaddexp(0.0, z).sum()
        return float(likelihood - 0.5 * _PRIOR * ((line - start) ** 2).sum())

    best = objective(line)
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-np.clip(line @ features, -700, 700)))
        gradient = features @ (y - p) - _PRIOR * (line - start)
        curvature = (features * (p * (1 - p))) @ features.T + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (now := objective(line + step)) < best and np.abs(step).max() > 1e-12:
            step /= 2
        line, gain, best = line + step, now - best, now
        if gain < 1e-9:
            break
    slope, offset = line
    if slope <= 0:
        raise ValueError("logit: it does not rise with the ends of these steps; train M for longer")
    return DoneCalibration(float(-offset / slope), float(1 / slope))


@torch.no_grad()
def calibrate_done(model: MDNRNN, latents: Path, config: RNNConfig) -> DoneCalibration:
    """Return the calibration of M's done logit on the held-out shards of `latents`.

    Raises:
        ValueError: M predicts no ends, or too few held-out episodes end by themselves.
    """
    if not model.predicts_done:
        raise ValueError("model: expected an M that predicts ends (predicts_done=True)")
    _, shards = data.split_held_out(data.finished_shards(latents, ".safetensors"))
    held_out = data.read_latents(latents, shards)
    batch = min(config.batch, len(held_out.lengths))
    state = None
    logits, ends = [], []
    for chunk in sequence_chunks(
        held_out, batch, config.chunk, seed=(0,), sample=config.latent == "sample"
    ):
        output = model(chunk.z, chunk.action, state, chunk.restart)
        state = (output.h, output.c)
        known = chunk.done_known > 0
        logits.append(output.done_logit[known])
        ends.append(chunk.done[known])
    return fit_done(torch.cat(logits).numpy(), torch.cat(ends).numpy(), config.done_weight)

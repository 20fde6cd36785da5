"""M's predicted rewards beside the real ones of held-out episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.types import Floats

WINDOW = 100
"""Lengths in tics of windows whose rewards are added up: a search compares sums."""


def rewards(predicted: Floats, held_out: HeldOut, limit: float | None) -> dict[str, Any]:
    """Return the comparison of predicted with real rewards, tic by tic and over windows, as JSON.

    Args:
        predicted: (N,), by M, after it has seen each episode up to that tic.
        held_out: the episodes, with their rewards.
        limit: real rewards are clipped to +- limit, as in M's training; None for no limit.

    Returns:
        JSON: "squared_error" and the real rewards' "variance", "mean" and "predicted_mean" of a
        tic, and over "windows" of "window" tics the "correlation" of sums, None if there are too
        few.
    """
    assert held_out.rewards is not None
    real = held_out.rewards.astype(np.float64)
    if limit is not None:
        real = real.clip(-limit, limit)
    guess = predicted.astype(np.float64)
    firsts = [
        start + k * WINDOW
        for start, length in zip(held_out.starts, held_out.lengths, strict=True)
        for k in range(length // WINDOW)
    ]
    sums = np.array([[x[f : f + WINDOW].sum() for f in firsts] for x in (real, guess)])
    told = len(firsts) > 2 and bool((sums.std(1) > 0).all())
    return {
        "squared_error": float(((guess - real) ** 2).mean()),
        "variance": float(real.var()),
        "mean": float(real.mean()),
        "predicted_mean": float(guess.mean()),
        "limit": limit,
        "window": WINDOW,
        "windows": len(firsts),
        "correlation": float(np.corrcoef(sums)[0, 1]) if told else None,
    }

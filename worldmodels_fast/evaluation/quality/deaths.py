"""M's done head on held-out episodes: calibration of its probability, precision of its alarms.

Training weighs each tic that ends an episode `done_weight` = w times. The logit that fits such
data best is log w too high: sigmoid(logit) = w p / (w p + 1 - p), p being the chance of dying in
this tic. So p = sigmoid(logit - log w), and a dream that ends where logit > 0 ends where p is above
1 / (1 + w).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.training.calibration import fit_done
from worldmodels_fast.types import Bools, Doubles, Floats

BINS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Edges of the reliability diagram's bins; most tics are far from a death."""

THRESHOLDS = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
TOLERANCES = (0, 5, 10)
"""Numbers of tics: an alarm at most so many before a death is a true one."""

PERIOD = 200
"""Tics of game time over which deaths are counted."""

LEAD = 40
"""Tics before a death over which the logit's rise is shown."""


def probability(logit: Floats, done_weight: float) -> Doubles:
    """Return the chance of dying in a tic, the training's weight undone."""
    return sigmoid(logit.astype(np.float64) - math.log(done_weight))


def sigmoid(x: npt.ArrayLike) -> Doubles:
    """Return 1 / (1 + exp(-x)) without overflow."""
    p: Doubles = 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))
    return p


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share of `hits` in `n`, at least 1."""
    z = 1.96
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def reliability(p: Doubles, died: Bools) -> list[dict[str, float]]:
    """Return the predicted and the observed share of deaths in each of `BINS` that holds a tic."""
    rows = []
    for low, high in itertools.pairwise(BINS):
        inside = (p >= low) & ((p < high) | (high == 1.0))
        n, deaths = int(inside.sum()), int(died[inside].sum())
        if n:
            least, most = wilson(deaths, n)
            rows.append(
                {
                    "from": low,
                    "to": high,
                    "tics": n,
                    "deaths": deaths,
                    "predicted": float(p[inside].mean()),
                    "observed": deaths / n,
                    "low": least,
                    "high": most,
                }
            )
    return rows


def alarms(logit: Floats, held_out: HeldOut) -> list[dict[str, float]]:
    """Return precision and recall of logit > threshold, for each of `THRESHOLDS` and `TOLERANCES`.

    Precision: of all tics with an alarm, those with a death in this tic or in so many after it.
    Recall: of all deaths, those with an alarm in their tic or in so many before it. "stopped
    early": of all episodes, those with an alarm before that: a dream of them ends too soon.
    """
    ends = held_out.starts + held_out.lengths - 1
    left = np.repeat(ends, held_out.lengths) - np.arange(len(held_out))
    mortal = np.repeat(held_out.terminated, held_out.lengths)
    rows = []
    for threshold in THRESHOLDS:
        alarm = logit > threshold
        for tolerance in TOLERANCES:
            near = mortal & (left <= tolerance)
            hit = np.add.reduceat(alarm & near, held_out.starts) > 0
            early = np.add.reduceat(alarm & ~near, held_out.starts) > 0
            deaths = int(held_out.terminated.sum())
            rows.append(
                {
                    "threshold": threshold,
                    "tolerance": tolerance,
                    "alarms": int(alarm.sum()),
                    "precision": float((alarm & near).sum() / max(1, alarm.sum())),
                    "recall": float(hit[held_out.terminated].sum() / max(1, deaths)),
                    "stopped early": float(early.mean()),
                }
            )
    return rows


def rise(logit: Floats, held_out: HeldOut) -> dict[str, Any]:
    """Return the logit's quartiles 0 to `LEAD` tics before a death, and when it exceeds the usual.

    The usual is the 95% quantile of the logits more than `LEAD` tics before their episode's end.
    """
    ends = held_out.starts + held_out.lengths - 1
    left = np.repeat(ends, held_out.lengths) - np.arange(len(held_out))
    far = logit[left > LEAD]
    usual = float(np.quantile(far, 0.95)) if far.size else None
    last = ends[held_out.terminated & (held_out.lengths > LEAD)]
    quartiles = (
        [
            [float(q) for q in np.quantile(logit[last - before], (0.25, 0.5, 0.75))]
            for before in range(LEAD + 1)
        ]
        if last.size
        else []
    )
    notice = 0
    if usual is not None:
        while notice < len(quartiles) and quartiles[notice][1] > usual:
            notice += 1
    return {"usual": usual, "before": quartiles, "notice": notice, "deaths": len(last)}


def judge(p: Doubles, held_out: HeldOut, known: Bools) -> dict[str, Any]:
    """Return scores of a chance of dying p (N,), on the tics (N,) for which it is known.

    "over_time" has a row for each `PERIOD` tics of game time: its first tic, the tics lived in it
    by all episodes, deaths and deaths expected.
    """
    died = held_out.dies[known]
    period = held_out.in_episode // PERIOD
    over_time = []
    for k in range(int(period.max()) + 1):
        inside = known & (period == k)
        tics, deaths = int(inside.sum()), int(held_out.dies[inside].sum())
        over_time.append([k * PERIOD, tics, deaths, float(p[inside].sum())])
    return {
        "expected_deaths": float(p[known].sum()),
        "expected_deaths_std": math.sqrt(float((p * (1 - p))[known].sum())),
        "brier": float(((p[known] - died) ** 2).mean()),
        "log_loss": log_loss(p[known], died),
        "over_time": over_time,
        "reliability": reliability(p[known], died),
    }


def cross_fitted(logit: Floats, held_out: HeldOut, known: Bools, done_weight: float) -> Doubles:
    """Return chances (N,) by `calibration.fit_done`, each half of the episodes by the other's fit.

    Raises:
        ValueError: no line can be fitted, for instance if a half holds no death.
    """
    half = np.repeat(np.arange(len(held_out.lengths)) % 2, held_out.lengths)
    p = np.zeros(len(logit))
    for mine in (0, 1):
        fit = (half != mine) & known
        line = fit_done(logit[fit], held_out.dies[fit], done_weight)
        p[half == mine] = sigmoid((logit[half == mine] - line.threshold) / line.temperature)
    return p


def deaths(logit: Floats, held_out: HeldOut, done_weight: float, dream: Dream) -> dict[str, Any]:
    """Everything about the death head.

    Args:
        logit: (N,) M's for each tic of the episodes.
        held_out: the episodes.
        done_weight: the training's weight of a tic that ends an episode.
        dream: its rule for ends is judged, too.

    Returns:
        JSON. Under "judged": "constant" (the share of deaths), "weight undone", "calibrated" (by a
        line fitted on other held-out episodes; left out if that fails), and, if the dream draws its
        ends, "the dream's"; see `judge`.
    """
    known = np.ones(len(held_out), np.bool_)  # whether a tic that met the time limit was deadly
    known[(held_out.starts + held_out.lengths - 1)[~held_out.terminated]] = False
    died = held_out.dies[known]
    undone = probability(logit, done_weight)
    chances = {"constant": np.full(len(logit), died.mean()), "weight undone": undone}
    with contextlib.suppress(ValueError):
        chances["calibrated"] = cross_fitted(logit, held_out, known, done_weight)
    threshold, spread = dream.done_threshold, dream.done_temperature
    if spread > 0:
        chances["the dream's"] = sigmoid((logit - threshold) / spread)
    # The paper's rule: over as soon as the logit is above the threshold.
    first = [
        int(alarm.argmax()) + 1 if alarm.any() else None
        for alarm in np.split(logit > threshold, held_out.starts[1:])
    ]
    shortened = np.where([t is None for t in first], held_out.lengths, [t or 0 for t in first])
    return {
        "episodes": len(held_out.lengths),
        "tics": int(known.sum()),
        "deaths": int(died.sum()),
        "done_weight": done_weight,
        "threshold": threshold,
        "done_temperature": spread,
        "ends_above": float(probability(np.array([threshold], np.float32), done_weight)[0]),
        "weighted_loss": weighted_loss(logit[known], died, done_weight),
        "mean_length": float(held_out.lengths.mean()),
        "mean_length_to_first_alarm": float(shortened.mean()),
        "never_alarmed": float(np.mean([t is None for t in first])),
        "judged": {name: judge(p, held_out, known) for name, p in chances.items()},
        "alarms": alarms(logit, held_out),
        "rise": rise(logit, held_out),
    }


def log_loss(p: Doubles, died: Bools) -> float:
    """Cross-entropy in nats per tic."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.where(died, np.log(p), np.log1p(-p)).mean())


def weighted_loss(logit: Floats, died: Bools, done_weight: float) -> float:
    """Return the cross-entropy that M was trained with: deaths count `done_weight` times."""
    x = logit.astype(np.float64)
    return float(np.where(died, done_weight * np.logaddexp(0, -x), np.logaddexp(0, x)).mean())

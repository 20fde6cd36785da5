"""Survival curves of dream and game: Kaplan-Meier estimates, log-rank tests, hazards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.types import Doubles


def kaplan_meier(times: npt.ArrayLike, died: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """Return (tics of deaths, ascending; share still alive after each).

    Args:
        times: (n,) tics lived.
        died: (n,) whether the episode ended in death; False if it was truncated (censored).
    """
    t, d = np.asarray(times, np.float64), np.asarray(died, np.bool_)
    at = np.unique(t[d])
    at_risk = (t[None] >= at[:, None]).sum(1)
    deaths = ((t[None] == at[:, None]) & d).sum(1)
    return at, np.cumprod(1 - deaths / at_risk)


def log_rank(
    times: npt.ArrayLike, died: npt.ArrayLike, others: npt.ArrayLike, others_died: npt.ArrayLike
) -> float:
    """Return the p-value of the log-rank test that two groups die at the same rates."""
    a, da = np.asarray(times, np.float64), np.asarray(died, np.bool_)
    b, db = np.asarray(others, np.float64), np.asarray(others_died, np.bool_)
    at = np.unique(np.concatenate([a[da], b[db]]))[:, None]
    n_a, n = (a >= at).sum(1), (a >= at).sum(1) + (b >= at).sum(1)
    d_a = ((a == at) & da).sum(1)
    d = d_a + ((b == at) & db).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = d * (n_a / n) * (1 - n_a / n) * (n - d) / (n - 1)
    variance = float(np.where(n > 1, each, 0.0).sum())
    if variance == 0:
        return 1.0
    chi_squared = float((d_a - d * n_a / n).sum()) ** 2 / variance
    return math.erfc(math.sqrt(chi_squared / 2))


def hazard(
    times: npt.ArrayLike, died: npt.ArrayLike, width: int = 100
) -> list[tuple[int, int, float]]:
    """Return (first tic, deaths, tics lived in all episodes) of each interval of `width` tics.

    The last interval is the last in which an episode is alive.
    """
    t, d = np.asarray(times, np.float64), np.asarray(died, np.bool_)
    rows = []
    for start in range(0, int(t.max()), width):
        lived = float(np.clip(t - start, 0, width).sum())
        deaths = int((d & (t > start) & (t <= start + width)).sum())
        rows.append((start, deaths, lived))
    return rows


def survival(
    rows: Sequence[FidelityRow], game_limit: int, dream_limit: int
) -> list[dict[str, Any]]:
    """Compare dream and game of each row; episodes that reach the limit are censored.

    Args:
        rows: with scores in steps.
        game_limit: steps after which an episode of the game is truncated.
        dream_limit: steps after which an episode of the dream is truncated.

    Returns:
        JSON, one object for each player: "player", "p" of the log-rank test, and for "game" and
        "dream" the "hazard" (rows as in `hazard`), "median" (tics; None if more than half are alive
        at the limit) and "censored" (number of episodes).
    """
    results = []
    for row in rows:
        groups = {"game": np.array(row.game_scores), "dream": np.array(row.dream_scores)}
        died = {"game": groups["game"] < game_limit, "dream": groups["dream"] < dream_limit}
        result: dict[str, Any] = {
            "player": row.player,
            "p": log_rank(groups["game"], died["game"], groups["dream"], died["dream"]),
        }
        for name, times in groups.items():
            at, alive = kaplan_meier(times, died[name])
            below = np.flatnonzero(alive <= 0.5)
            result[name] = {
                "censored": int((~died[name]).sum()),
                "median": float(at[below[0]]) if below.size else None,
                "hazard": hazard(times, died[name]),
            }
        results.append(result)
    return results

"""Plots of the report."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worldmodels_fast.evaluation.fidelity.row import FidelityRow

LABEL_POINTS = 11
"""Height of a point's name, and what lies between it and the next."""


def _name_points(figure: Figure, axes: Axes, rows: list[FidelityRow]) -> None:
    """Write every player's name beside its point, one above the other where they are crowded."""
    figure.draw_without_rendering()  # now it is known where points lie on the page
    points = axes.transData.transform([(row.game.mean, row.dream.mean) for row in rows])
    points *= 72 / figure.dpi
    lowest = -np.inf
    for k in np.argsort(points[:, 1]):
        x, y = points[k]
        lowest = max(lowest + LABEL_POINTS, y - LABEL_POINTS / 2)
        axes.annotate(
            rows[k].player,
            (rows[k].game.mean, rows[k].dream.mean),
            xytext=(
                max(x + 14, points[np.abs(points[:, 1] - y) < 30, 0].max() + 22) - x,
                lowest - y,
            ),
            textcoords="offset points",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.5"},
        )


def fidelity_scatter(rows: list[FidelityRow]) -> Figure:
    """Scores in the dream against those in the game, with the diagonal and a band around it.

    Survival in steps on logarithmic axes, sums of rewards on linear ones and without a band.
    """
    in_steps = all(row.measure == "steps" for row in rows)
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker, colour in (("policy", "o", "tab:blue"), ("controller", "D", "tab:red")):
        mine = [row for row in rows if row.kind == kind]
        if not mine:
            continue
        game, dream = ([getattr(row, place) for row in mine] for place in ("game", "dream"))
        axes.errorbar(
            [s.mean for s in game],
            [s.mean for s in dream],
            xerr=[[s.mean - s.low for s in game], [s.high - s.mean for s in game]],
            yerr=[[s.mean - s.low for s in dream], [s.high - s.mean for s in dream]],
            fmt=marker,
            color=colour,
            label={"policy": "fixed policies", "controller": "evolved controllers"}[kind],
        )
    low = min(min(row.game.low, row.dream.low) for row in rows)
    top = max(max(row.game.high, row.dream.high) for row in rows)
    room = 0.1 * (top - low) + 1
    low, top = (low / 1.5, top * 1.5) if in_steps else (low - room, top + room)
    line = np.array([low, top])
    axes.plot(line, line, "k-", lw=0.8)
    if in_steps:
        axes.fill_between(
            line, line / 1.5, line * 1.5, color="black", alpha=0.08, label="within a factor of 1.5"
        )
        axes.set(xscale="log", yscale="log")
    axes.set(
        xlim=(low, top),
        ylim=(low, top),
        xlabel="tics survived in the game" if in_steps else "reward in the game",
        ylabel=f"{'steps survived' if in_steps else 'reward'} in the dream, tau = 1",
    )
    axes.legend(loc="upper left", fontsize=8)
    _name_points(figure, axes, rows)
    return figure

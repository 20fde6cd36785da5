"""Plots of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.scores import Evaluation


def label_with_numbers(axis: Axis, subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Label a logarithmic axis with plain numbers, 200 instead of 2 x 10^2.

    Args:
        axis: of one Axes; it is logarithmic.
        subs: multiples of powers of ten that are labelled.
    """
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


SCORE_BINS = 30
"""Bars of the histogram of scores."""

LABEL_POINTS = 11
"""Height in points (1/72 inch) of a line of a player's name, with the space above it."""


def _name_points(figure: Figure, axes: Axes, rows: list[FidelityRow]) -> None:
    """Write every player's name beside its point; crowded names stand one above the other."""
    figure.draw_without_rendering()  # computes the positions of points on the page
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
    """Draw scores in the dream against those in the game, the diagonal, and a band around it.

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
            label={"policy": "open-loop policies", "controller": "evolved controllers"}[kind],
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
        for axis in (axes.xaxis, axes.yaxis):
            label_with_numbers(axis)
    axes.set(
        xlim=(low, top),
        ylim=(low, top),
        xlabel="tics survived in the game" if in_steps else "reward in the game",
        ylabel=f"{'steps survived' if in_steps else 'reward'} in the dream, tau = 1",
    )
    axes.legend(loc="upper left", fontsize=8)
    _name_points(figure, axes, rows)
    return figure


def score_histogram(evaluations: Mapping[str, Evaluation], solved_score: float | None) -> Figure:
    """Draw each player's scores in the real game as a histogram.

    Args:
        evaluations: by player.
        solved_score: score from which the game counts as solved, a dotted line; None draws none.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    low = min(0.0, *(e.scores.min() for e in evaluations.values()))
    top = max(e.scores.max() for e in evaluations.values())
    bins = np.linspace(low, top, SCORE_BINS + 1).tolist()
    for name, evaluation in evaluations.items():
        axes.hist(evaluation.scores, bins=bins, alpha=0.6, label=name)
    if solved_score is not None:
        axes.axvline(solved_score, color="black", lw=1, ls=":", label="solved")
    axes.set(xlabel="score of an episode", ylabel="episodes")
    axes.legend()
    return figure


def evolution_curve(history: Sequence[Mapping[str, Any]], score: str) -> Figure:
    """Draw the population's scores and those of the distribution's mean over the generations.

    Args:
        history: rows of history.jsonl.
        score: name of the score.
    """
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    x = [row["generation"] + 1 for row in history]
    low, top = ([row[key] for row in history] for key in ("min", "max"))
    axes.fill_between(x, low, top, alpha=0.15)
    means = [row["mean"] for row in history]
    axes.plot(x, means, label="population, mean (band: min to max)")
    scored = [(r["generation"] + 1, r["mean_score"]) for r in history if "mean_score" in r]
    if scored:
        axes.plot(*zip(*scored, strict=True), "ko-", ms=4, label="the distribution's mean")
    axes.set(xlabel="generation", ylabel=score)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.legend()
    return figure


def training_curve(
    log: Sequence[Mapping[str, Any]], legends: Mapping[str, str], loss: str
) -> Figure:
    """Draw losses of a training over its batches, on a logarithmic axis.

    Args:
        log: rows of the training's log, each with "step" and the keys of `legends`.
        legends: legend by the key of a loss.
        loss: name of the losses.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for key, legend in legends.items():
        axes.plot([row["step"] for row in log], [row[key] for row in log], label=legend)
    axes.set(xlabel="batches", ylabel=loss, yscale="log")
    axes.legend()
    return figure

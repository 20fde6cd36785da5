"""Figures of quality.json and of survival curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.fidelity.survival import kaplan_meier

COLOURS = {
    "game": "black",
    "V": "tab:green",
    "dream": "tab:red",
    "sample": "tab:red",
    "mean of samples": "tab:purple",
    "mean path": "tab:orange",
    "copy": "tab:blue",
    "unconditional": "tab:gray",
    "reconstruction": "tab:green",
    "constant": "tab:gray",
    "weight undone": "tab:red",
    "calibrated": "tab:blue",
    "the dream's": "tab:purple",
}
"""Colour of each series, the same in all figures."""

_NAMES = {
    "sample": "one dream, tau 1",
    "mean of samples": "mean of dreams",
    "mean path": "mean path",
    "copy": "the last frame again",
    "unconditional": "mean of all frames",
    "reconstruction": "V's picture of the real frame",
}


def foresight(prediction: dict[str, Any]) -> Figure:
    """Return errors of dreams against their length, in latents and in pixels."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, errors in prediction["latent"].items():
        left.plot(prediction["tics"], errors, color=COLOURS[name], label=_NAMES[name])
    left.set(ylabel="error of a latent / its variance", ylim=(0, None))
    for name, errors in prediction["pixel"].items():
        right.plot(prediction["pixel_tics"], errors, ".-", color=COLOURS[name], label=_NAMES[name])
    right.set(ylabel="squared error of a frame", ylim=(0, None))
    for axes in (left, right):
        axes.set_xlabel("tics dreamt under the real actions")
        axes.legend(fontsize=8)
    return figure


def death_head(deaths: dict[str, Any]) -> Figure:
    """Return reliability, precision against recall, and the logit before a death."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, judged in deaths["judged"].items():
        rows = [row for row in judged["reliability"] if row["deaths"]]
        if name == "constant" or not rows:
            continue
        observed = np.array([row["observed"] for row in rows])
        error = np.abs(np.array([[r["low"], r["high"]] for r in rows]).T - observed)
        left.errorbar(
            [row["predicted"] for row in rows],
            observed,
            yerr=error,
            fmt="o-",
            ms=4,
            lw=1,
            capsize=2,
            color=COLOURS[name],
            label=name,
        )
    left.plot([1e-5, 1], [1e-5, 1], "k-", lw=0.8)
    left.set(
        xscale="log",
        yscale="log",
        xlim=(1e-5, 1.3),
        ylim=(1e-5, 1.3),
        xlabel="M's chance of dying in this tic",
        ylabel="share of such tics that were deadly",
    )
    left.legend(fontsize=8)
    for tolerance in sorted({row["tolerance"] for row in deaths["alarms"]}):
        rows = [row for row in deaths["alarms"] if row["tolerance"] == tolerance and row["alarms"]]
        line = middle.plot(
            [row["recall"] for row in rows],
            [row["precision"] for row in rows],
            ".-",
            label=f"within {tolerance} tics",
        )[0]
        for row in rows:
            if row["threshold"] == 0:
                middle.plot(row["recall"], row["precision"], "o", color=line.get_color())
    middle.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="recall: deaths that were announced",
        ylabel="precision: alarms that were right",
    )
    middle.set_title("large dots: logit above 0", fontsize=9)
    middle.legend(fontsize=8)
    rise = deaths["rise"]
    if rise["before"]:
        quartiles = np.array(rise["before"])
        tics = -np.arange(len(quartiles))
        right.fill_between(tics, quartiles[:, 0], quartiles[:, 2], color="tab:red", alpha=0.2)
        right.plot(tics, quartiles[:, 1], color="tab:red", label="median, quartiles")
        right.axhline(rise["usual"], color="tab:gray", label="95% of other tics are below")
        right.axhline(deaths["threshold"], color="black", lw=0.8, ls=":", label="threshold")
        right.legend(fontsize=8)
    right.set(xlabel="tics before a death", ylabel="M's logit of an end")
    return figure


def survival_curves(rows: Sequence[FidelityRow], game_limit: int, dream_limit: int) -> Figure:
    """Return the share still alive against tics, game and dream, a panel for each player."""
    columns = min(5, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    for axes, row in zip(panels, rows, strict=False):
        groups = (("game", row.game_scores, game_limit), ("dream", row.dream_scores, dream_limit))
        for name, scores, limit in groups:
            times = np.asarray(scores)
            at, alive = kaplan_meier(times, times < limit)
            end = max(times.max(), at[-1] if at.size else 0.0)
            axes.step(
                np.concatenate([[0.0], at, [end]]),
                np.concatenate([[1.0], alive, alive[-1:] if at.size else [1.0]]),
                where="post",
                color=COLOURS[name],
                label=f"{name}, {len(times)}",
            )
        axes.set_title(row.player, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7)
    figure.supxlabel("tics", fontsize=9)
    figure.supylabel("share still alive", fontsize=9)
    return figure

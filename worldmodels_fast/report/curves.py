"""Learning curves: a run's beside that of the paper's authors, in generations and in core-hours.

The authors' logs (github.com/hardmaru/WorldModelsExperiments, MIT licence) are not part of this
package. Where a copy lies beside it, in the folder that WMF_PUBLISHED names or in
../shared/data/ha2018, the whole curve is drawn, else the points that are commonly quoted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from worldmodels_fast import envs
from worldmodels_fast.envs.registry import AUTHORS_CORES
from worldmodels_fast.report.plots import label_with_numbers
from worldmodels_fast.report.records import RunRecords
from worldmodels_fast.utils.files import read_text

__all__ = ["Curve", "authors_curve", "curve_of", "curves_of", "draw_curves"]


@dataclass(frozen=True)
class Curve:
    """The score of the distribution's mean over generations.

    Attributes:
        name: for the legend.
        points: (generations done, core-hours, mean score where it evolved); core-hours are NaN
            where they are not known.
    """

    name: str
    points: tuple[tuple[int, float, float], ...]


def published_folder() -> Path:
    """Return the folder in which the authors' logs are looked for."""
    beside = Path(__file__).parents[3] / "shared" / "data" / "ha2018"
    return Path(os.environ.get("WMF_PUBLISHED", beside))


def authors_curve(environment: str, folder: Path | None = None) -> Curve | None:
    """Return the authors' curve: from their logs, or the quoted points.

    Args:
        environment: a name from `envs.ENVIRONMENTS`; None is returned for one that is not theirs.
        folder: holds a folder for each of their environments, with `cma.hist_best.json`; None for
            `published_folder`.
    """
    spec = envs.ENVIRONMENTS.get(environment)
    if spec is None or spec.authors_curve is None:
        return None
    theirs = spec.authors_curve
    path = (folder or published_folder()) / theirs.folder / "cma.hist_best.json"
    if not path.is_file():
        return Curve(f"{theirs.name} (quoted)", theirs.quoted)
    # Rows: generation, seconds, "improvement", x, "curr", score, "prev", x, "best", best so far.
    points = tuple(
        (int(row[0]), row[1] * AUTHORS_CORES / 3600, float(row[row.index("curr") + 1]))
        for row in json.loads(read_text(path))
    )
    return Curve(theirs.name, points)


def curve_of(records: RunRecords, name: str) -> Curve | None:
    """Return a run's curve, or None if no mean has been scored yet.

    Core-hours count every processor of the machine, and the evolution alone: not the real games in
    which the exploit gap was watched.

    Args:
        records: of the run; a row of the temperature table is a run, too.
        name: for the legend.
    """
    cores = records.stages.get("evolve", {}).get("processors", math.nan)
    points, seconds = [], 0.0
    for row in records.history:
        seconds += row["seconds"]
        if "mean_score" in row:
            points.append((row["generation"] + 1, seconds * cores / 3600, row["mean_score"]))
    return Curve(name, tuple(points)) if points else None


def curves_of(records: RunRecords) -> list[Curve]:
    """Return a run's own curve and those of its temperature table, as far as they exist."""
    rows = {row.folder.name: row for row in records.sweep}
    found = [curve_of(row, f"ours, {name.replace('-', ' ')}") for name, row in rows.items()]
    tau = records.section("dream").get("temperature")
    if tau is None or records.evolved_in == "game":
        found.insert(0, curve_of(records, "ours"))
    elif f"tau-{tau:g}" not in rows:
        found.insert(0, curve_of(records, f"ours, tau {tau:g}"))
    return [curve for curve in found if curve is not None]


def draw_curves(
    ours: Sequence[Curve], authors: Curve | None, score: str = "steps in the dream"
) -> Figure:
    """Draw curves beside the authors' (grey), against generations and against core-hours.

    Args:
        ours: of runs.
        authors: theirs, if there is one.
        score: name of the score.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for curve in (*([authors] if authors else []), *ours):
        generations, hours, scores = zip(*curve.points, strict=True)
        style = {"color": "0.6", "zorder": 1} if curve is authors else {}
        for axes, x in zip(panels, (generations, hours), strict=True):
            axes.plot(x, scores, "o-", ms=3, lw=1.2, label=curve.name, **style)
    for axes, label in zip(panels, ("generations", "core-hours"), strict=True):
        axes.set(xlabel=label, xscale="log")
        label_with_numbers(axes.xaxis, subs=(1.0,))
    panels[0].set(ylabel=f"score of the mean: {score}")
    panels[0].legend(fontsize=8)
    return figure

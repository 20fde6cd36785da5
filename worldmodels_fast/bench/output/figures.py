"""`bench.json` as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from worldmodels_fast.utils.figures import write_figure

COLOURS = {"fp32": "tab:blue", "bf16": "tab:orange", "int8": "tab:green"}
MARKERS = {"ours": "o", "torch-eager": "v", "torch-compile": "^", "jax": "s"}


def draw_throughput(rows: list[dict[str, Any]], threads: int, path: Path) -> None:
    """Draw steps per second over N, a panel for each model, with the machine's limit.

    Args:
        rows: section `dream` of `bench.json`.
        threads: whose rows are drawn.
        path: of the PNG.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(5.2 * len(models) + 2.2, 5.2), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    drawn: set[tuple[str, str]] = set()
    for axes, model in zip(panels, models, strict=True):
        of_model = [row for row in rows if row["model"] == model and row["threads"] == threads]
        drawn |= _throughput(axes, of_model)
        axes.set(title=model, xlabel="N, rollouts side by side", ylabel="dream steps/s")
    precisions = [p for p in COLOURS if any(precision == p for _, precision in drawn)]
    names = [name for name in MARKERS if any(who == name for who, _ in drawn)]
    handles = [Line2D([], [], color=COLOURS[p], lw=3, label=p) for p in precisions]
    handles += [
        Line2D([], [], color="black", marker=MARKERS[name], ms=6, label=name, **_style(name))
        for name in names
    ]
    handles.append(Line2D([], [], color="black", ls=":", lw=1.5, label="limit of the machine"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    write_figure(path, figure)


def _throughput(axes: Axes, rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Draw one model's rows; return which (contestant, precision) there are."""
    drawn = set()
    for key in dict.fromkeys(name for row in rows for name in row["rates"]):
        who, precision = key.split(" ")
        if who not in MARKERS:
            continue
        drawn.add((who, precision))
        points = [(row["n"], row["rates"][key]["median"]) for row in rows if key in row["rates"]]
        axes.plot(
            *zip(*points, strict=True),
            color=COLOURS[precision],
            marker=MARKERS[who],
            ms=6 if who == "ours" else 4,
            **_style(who),
        )
    for precision, colour in COLOURS.items():
        limits = [
            (row["n"], row["ours"][precision]["limit"]) for row in rows if precision in row["ours"]
        ]
        if limits:
            axes.plot(*zip(*limits, strict=True), color=colour, ls=":", lw=1.5)
    axes.set(xscale="log", yscale="log")
    _mark_values(axes, [row["n"] for row in rows])
    axes.grid(which="major", alpha=0.3)
    return drawn


def _style(who: str) -> dict[str, Any]:
    return {"lw": 2.5, "ls": "-"} if who == "ours" else {"lw": 1, "ls": "--"}


def draw_growth(cells: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of a call over N, T and H, each with its fitted exponent.

    Args:
        cells: section `growth` of `bench.json`.
        path: of the PNG.
    """
    labels = {"N": "N, rollouts", "T": "T, steps", "H": "H, hidden units"}
    figure = Figure(figsize=(12, 4), layout="constrained")
    of = {cell["kind"]: cell["rows"] for cell in cells}
    for axes, (axis, label) in zip(figure.subplots(1, 3), labels.items(), strict=True):
        rows = of[axis]
        for row in rows:
            axes.plot(
                row["values"],
                row["seconds"],
                "o-",
                ms=4,
                color=COLOURS[row["precision"]],
                label=f"{row['precision']}: exponent {row['exponent']:.2f}",
            )
        fixed = ", ".join(f"{name} {value}" for name, value in rows[0]["fixed"].items())
        title = f"{rows[0]['model']}, {fixed}; fitted from {axis} = {rows[0]['fitted_from']}"
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds a call")
        axes.set_title(title, fontsize=9)
        _mark_values(axes, rows[0]["values"])
        axes.grid(which="major", alpha=0.3)
        axes.legend(frameon=False)
    write_figure(path, figure)


def _mark_values(axes: Axes, values: list[int]) -> None:
    """Put the ticks where the measurements are."""
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(values))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))

"""`bench.json` as markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from worldmodels_fast.bench.rivals.registry import BASELINE, RIVALS

Results = dict[str, Any]
"""The content of `bench.json`: machine, config, left_out, and a list per section done."""


QUIET = 0.1
"""Cores that others may keep busy; more, and the report says that it counts for little."""


def markdown(results: Results) -> str:
    """Return all tables, each section under its heading."""
    parts = ["\n".join(_machine(results))]
    for section, write in SECTIONS.items():
        if section in results:
            parts += write(results[section])
    return "\n\n".join(parts) + "\n"


def _machine(results: Results) -> Iterator[str]:
    machine, config = results["machine"], results["config"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    threads = "1 thread" if config["threads"] == 1 else f"{config['threads']} threads"
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {threads} unless said, backend "
        f"{machine['backend']}; Python {machine['python']}, {versions}; {machine['date']}, "
        f"load before {_number(machine['load'])}, after {_number(machine['load_after'])}"
    )
    others = [row["others"] for row in _rows(results) if row.get("others") is not None]
    if others:
        yield (
            f"\nWhile this was timed, other processes kept {statistics.mean(others):.2f} cores "
            f"busy on average, {max(others):.2f} in the worst comparison."
        )
        if max(others) > QUIET:
            yield (
                "\n**That is not a quiet machine:** rates are too low, and contestants whose "
                "threads wait for one another have suffered most."
            )
    for name, why in results["left_out"].items():
        yield f"\nLeft out: {name}: {why}"


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    """All rows of all sections."""
    for section in SECTIONS:
        for row in results.get(section, []):
            yield from row.get("rows", [row])


def _dream(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Dreams: steps/s"
    for model in _unique(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        rivals = [
            name
            for name in RIVALS
            if any(rate.split(" ")[0] == name for row in of_model for rate in row["rates"])
        ]
        lines = []
        for row in of_model:
            for precision, derived in row["ours"].items():
                rates = row["rates"]
                lines.append(
                    [
                        f"{row['n']:,}",
                        str(row["threads"]),
                        precision,
                        f"**{rates[f'ours {precision}']['median']:,.0f}**",
                        f"{derived['gflops']:,.0f}",
                        f"{derived['of_peak']:.0%}",
                        f"{derived['limit']:,.0f}",
                        *(
                            f"{rates[key]['median']:,.0f}"
                            if (key := f"{name} {precision}") in rates
                            else "-"
                            for name in rivals
                        ),
                        _times(derived["over_baseline"]),
                        _times(derived["over_fastest"]),
                    ]
                )
        operations = of_model[0]["flops_per_step"] / 1e6
        yield f"{model}, {operations:.3f} MFLOP a step"
        yield _table(
            [
                "N",
                "threads",
                "precision",
                "ours",
                "GFLOP/s",
                "of peak",
                "limit",
                *rivals,
                f"ours / {BASELINE}",
                "ours / fastest rival",
            ],
            lines,
            left=3,
        )


def _limits(cells: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Limits"
    rows: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        rows.setdefault(cell["kind"], []).extend(cell["rows"])
    if rows.get("one rollout"):
        yield "One rollout on one thread, against reading the packed weights once a step:"
        yield _table(
            ["model", "precision", "MB", "steps/s", "reads/s", "GB/s", "reading is faster by"],
            [
                [
                    row["model"],
                    row["precision"],
                    f"{row['nbytes'] / 1e6:.2f}",
                    f"{row['steps_per_second']['median']:,.0f}",
                    f"{row['reads_per_second']['median']:,.0f}",
                    f"{row['reads_per_second']['median'] * row['nbytes'] / 1e9:.0f}",
                    f"{row['over_reading']:.2f}x",
                ]
                for row in rows["one rollout"]
            ],
            left=2,
        )
    if rows.get("peak"):
        yield "Many rollouts, against multiplying in registers:"
        yield _table(
            ["model", "precision", "N", "threads", "steps/s", "peak, GFLOP/s", "of peak"],
            [
                [
                    row["model"],
                    row["precision"],
                    f"{row['n']:,}",
                    str(row["threads"]),
                    f"{row['steps_per_second']['median']:,.0f}",
                    f"{row['peak']['median'] / 1e9:,.0f}",
                    f"{row['of_peak']:.0%}",
                ]
                for row in rows["peak"]
            ],
            left=2,
        )
    if rows.get("threads"):
        yield "More threads:"
        yield _table(
            ["model", "precision", "N", "1 thread, steps/s", "threads", "steps/s", "speedup"],
            [
                [
                    row["model"],
                    row["precision"],
                    f"{row['n']:,}",
                    f"{row['one']['median']:,.0f}",
                    str(row["threads"]),
                    f"{row['all']['median']:,.0f}",
                    f"{row['speedup']:.2f}x",
                ]
                for row in rows["threads"]
            ],
            left=2,
        )
    if rows.get("generation"):
        yield (
            "A real generation (the bundled world, members near its controller, dreams that end "
            "when they end), useful steps against dreams without an end:"
        )
        yield _table(
            [
                "model",
                "precision",
                "N",
                "mean length",
                "useful steps/s",
                "no end, steps/s",
                "share",
            ],
            [
                [
                    row["model"],
                    row["precision"],
                    f"{row['n']:,}",
                    f"{row['mean_length']:,.0f}",
                    f"{row['useful']['median']:,.0f}",
                    f"{row['full']['median']:,.0f}",
                    f"{row['of_full']:.1%}",
                ]
                for row in rows["generation"]
            ],
            left=2,
        )


def _growth(cells: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Growth"
    of = {cell["kind"]: cell["rows"] for cell in cells}
    fits = [(axis, row) for axis in ("N", "T", "H") for row in of.get(axis, [])]
    if fits:
        yield "Time of a call over what grows:"
        yield _table(
            ["grows", "precision", "the rest", "fitted from", "exponent", "of operations"],
            [
                [
                    axis,
                    row["precision"],
                    ", ".join(f"{name} {value}" for name, value in row["fixed"].items()),
                    str(row["fitted_from"]),
                    f"{row['exponent']:.2f}",
                    f"{row['exponent_of_operations']:.2f}",
                ]
                for axis, row in fits
            ],
            left=3,
        )
    if of.get("memory"):
        yield "Memory that `Dream.evaluate` of the bundled world takes at its peak:"
        yield _table(
            [
                "members x rollouts",
                "precision",
                "population, MB",
                "packed weights, MB",
                "evaluate, MB",
                "whole process, MB",
            ],
            [
                [
                    f"{row['members']:,} x {row['rollouts']}",
                    row["precision"],
                    *(
                        f"{row[name] / 1e6:.1f}"
                        for name in ("population", "weights", "evaluate", "process")
                    ),
                ]
                for row in of["memory"]
            ],
            left=2,
        )
    if of.get("packing"):
        yield "Packing the weights, once for each `Dream`:"
        yield _table(
            ["model", "precision", "MB", "ms"],
            [
                [
                    row["model"],
                    row["precision"],
                    f"{row['nbytes'] / 1e6:.2f}",
                    f"{row['seconds'] * 1e3:.2f}",
                ]
                for row in of["packing"]
            ],
            left=2,
        )
    if of.get("start"):
        yield "A new process, until it has dreamt (100 steps at most):"
        yield _table(
            ["", "ms"],
            [
                [name.replace("_", " "), f"{seconds * 1e3:,.1f}"]
                for name, seconds in of["start"][0].items()
            ],
        )


def _ops(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Single operations: microseconds a call, 1 thread"
    empty = [row for row in rows if row["n"] == 0]
    for op in _unique(row["op"] for row in rows if row["n"]):
        of_op = [row for row in rows if row["op"] == op and row["n"]]
        names = _unique(name for row in of_op for name in row["microseconds"])
        names.sort(key=lambda name: not name.startswith("ours"))
        yield f"`{op}`"
        yield _table(
            ["model", "N", *names],
            [
                [
                    row["model"],
                    f"{row['n']:,}",
                    *(
                        _microseconds(row["microseconds"][name])
                        if name in row["microseconds"]
                        else "-"
                        for name in names
                    ),
                ]
                for row in of_op
            ],
        )
    if empty:
        yield "Our call from Python by itself (a model with one of everything, results in place):"
        yield _table(
            ["operation", "microseconds"],
            [[f"`{row['op']}`", f"{row['microseconds']['ours fp32']:.2f}"] for row in empty],
        )


SECTIONS = {"dream": _dream, "limits": _limits, "growth": _growth, "ops": _ops}


def _table(head: list[str], rows: Iterable[list[str]], left: int = 1) -> str:
    """A markdown table; the first `left` columns are aligned left, the others right."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def _microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))

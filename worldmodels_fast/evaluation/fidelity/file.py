"""`fidelity.json` in a run's folder: the rows of the comparison of dream and game."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.statistics import Summary
from worldmodels_fast.utils.files import read_json, reading, write_json


def write_fidelity(path: Path, rows: Sequence[FidelityRow]) -> None:
    """Write rows as JSON in the place of those in the file."""
    write_json(path, {"rows": [dataclasses.asdict(row) for row in rows]})


def read_fidelity(path: Path) -> list[FidelityRow]:
    """Return the rows that `write_fidelity` wrote; none if there is no file.

    Raises:
        ValueError: the file is damaged, or something else.
    """
    stored = read_json(path)
    if stored is None:
        return []
    rows = []
    with reading(path, "delete it and compare again"):
        for raw in stored["rows"]:
            summaries = {key: Summary(**raw[key]) for key in ("game", "dream")}
            rows.append(FidelityRow(**{**raw, **summaries}))
    return rows


def write_controller_rows(path: Path, rows: Sequence[FidelityRow]) -> None:
    """Add rows of evolved controllers to the file; they replace those of the same names."""
    names = {row.player for row in rows}
    kept = [row for row in read_fidelity(path) if row.kind == "policy" or row.player not in names]
    write_fidelity(path, [*kept, *rows])

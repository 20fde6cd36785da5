"""`fidelity.json` in a run's folder: the rows of the comparison of dream and game."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.statistics import Summary


def write_fidelity(path: Path, rows: Sequence[FidelityRow]) -> None:
    """Write rows as JSON in the place of those in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    text = json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}, indent=1)
    unfinished.write_text(text + "\n")
    os.replace(unfinished, path)


def read_fidelity(path: Path) -> list[FidelityRow]:
    """Return the rows that `write_fidelity` wrote; none if there is no file."""
    if not path.is_file():
        return []
    rows = []
    for raw in json.loads(path.read_text())["rows"]:
        summaries = {key: Summary(**raw[key]) for key in ("game", "dream")}
        rows.append(FidelityRow(**{**raw, **summaries}))
    return rows


def write_controller_rows(path: Path, rows: Sequence[FidelityRow]) -> None:
    """Add rows of evolved controllers to the file; they replace those of the same names."""
    names = {row.player for row in rows}
    kept = [row for row in read_fidelity(path) if row.kind == "policy" or row.player not in names]
    write_fidelity(path, [*kept, *rows])

"""Losses on their way to the log and the progress display."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from worldmodels_fast.utils.files import append_json_line, read_json_lines, write_json_lines

Metrics = dict[str, float]


OnStep = Callable[[int, Metrics], None]


class MetricsLog:
    """Appends one JSON line for each report; a resumed training drops what it will redo."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        kept = [row for row in read_json_lines(path) if row["step"] <= first_step]
        write_json_lines(path, kept)

    def write(self, step: int, metrics: Metrics) -> None:
        """Append a report."""
        append_json_line(self.path, {"step": step, **metrics})


def check_finite(what: str, step: int, metrics: Metrics) -> None:
    """Raise FloatingPointError if a loss is NaN or infinite."""
    if not all(map(math.isfinite, metrics.values())):
        raise FloatingPointError(
            f"{what}'s loss is not finite at step {step} ({metrics}); lower the learning rate, or "
            "train in fp32"
        )

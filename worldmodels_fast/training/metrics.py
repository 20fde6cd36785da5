"""Losses of a training: their log, and the check that they are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from worldmodels_fast.utils.files import (
    append_json_line,
    read_json_lines,
    reading,
    write_json_lines,
)

Metrics = dict[str, float]
"""Losses and their like, by name."""

OnStep = Callable[[int, Metrics], None]
"""Called with (steps done, metrics known so far) after each step of a training."""


class MetricsLog:
    """A log of one JSON line per report.

    Args:
        path: the log; a resumed training goes on with it.
        first_step: the step that the training resumes from; later reports are deleted.

    Raises:
        ValueError: the log is damaged.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        advice = "delete it to train on without the earlier reports"
        rows = read_json_lines(path, advice, keys=("step",))
        with reading(path, advice):
            kept = [row for row in rows if row["step"] <= first_step]
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

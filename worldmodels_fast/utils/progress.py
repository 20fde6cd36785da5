"""Progress of a stage: a bar with rate and time left, or a few plain lines.

On a terminal `rich` draws a live bar. Elsewhere (a log file, CI) there is one line when the stage
begins, one a minute, and one when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SPARKS = "▁▂▃▄▅▆▇█"
PLAIN_LINE_EVERY = 60.0
"""Seconds between two plain lines."""

console = Console(highlight=False, markup=False, soft_wrap=True)
"""Standard output for people: text is printed as it is, brackets included."""


class _Rate(ProgressColumn):
    """The rate of a bar, in its unit per second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text, empty until it is known."""
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text("" if speed is None else f"{speed:,.4g} {unit}/s", style="cyan")


class StageProgress:
    """A stage's progress, to be used in a `with` statement.

    Args:
        name: the stage's name.
        total: number of units to be done.
        unit: name of the unit, in the plural ("frames").
        done: number of units done by an earlier, killed run.
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.first = done
        self.done = done
        self.text = ""
        self._began = time.monotonic()
        self._last_line = self._began
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
                _Rate(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(name, total=total, completed=done, unit=unit, text="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        else:
            resumed = f", {self.first:,} of them done before" if self.first else ""
            console.print(f"{self.name}: {self.total:,} {self.unit}{resumed}")
        return self

    def update(self, done: int, metrics: Mapping[str, float] | str = "") -> None:
        """Show progress.

        Args:
            done: number of units that are done.
            metrics: figures by name, or a text, shown after the rate.
        """
        self.done = done
        self.text = metrics if isinstance(metrics, str) else format_metrics(metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=self.text)
        elif time.monotonic() - self._last_line > PLAIN_LINE_EVERY:
            self._last_line = time.monotonic()
            rate = (done - self.first) / (self._last_line - self._began)
            left = (self.total - done) / rate / 60 if rate > 0 else float("nan")
            console.print(
                f"{self.name}: {done:,}/{self.total:,} {self.unit}, {rate:,.4g}/s, "
                f"{left:.0f} min left  {self.text}"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            seconds = time.monotonic() - self._began
            rate = (self.done - self.first) / seconds if seconds > 0 else 0.0
            console.print(
                f"{self.name}: {self.done:,} {self.unit} in {seconds:.0f} s "
                f"({rate:,.4g} {self.unit}/s)  {self.text}"
            )


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return the figures as one line, e.g. "reconstruction 13.2  kl 32.1"."""
    return "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items())


def sparkline(values: list[float], width: int = 32) -> str:
    """Return the last `width` values as small bars between their minimum and maximum.

    Where bars cannot be printed (the console's encoding is not UTF) the line is empty.
    """
    values = values[-width:]
    if not values or not console.encoding.lower().startswith("utf"):
        return ""
    low, high = min(values), max(values)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in values)

"""Timing: contestants run in turn; medians and quartiles."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

PAUSE = 0.05
"""Seconds before each run: threads spin for a while after a call, and would disturb the next."""

RUN_SECONDS = 0.15
"""About how long one run takes."""


class Timed(Protocol):
    """Something that can be timed again and again."""

    def measure(self) -> float:
        """Do it once; what came of it per second."""


@dataclass(frozen=True)
class Rate:
    """So much per second: the median of all runs, its quartiles, and how many there were."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, rates: list[float]) -> Rate:
        """Summarise the rates of single runs."""
        low, median, high = statistics.quantiles(rates, n=4, method="inclusive")
        return cls(median, low, high, len(rates))

    def json(self) -> dict[str, float]:
        """For `bench.json`."""
        return dataclasses.asdict(self)


class Loop:
    """A function that does `count` things when it is called with it, timed.

    How many things make a run of the wanted length is found out at the first `measure`.

    Args:
        run: does `count` things.
        per_count: how many units one of them is.
        least: the fewest in a run; counts are multiples of `multiple`.
        multiple: see `least`.
        seconds: about how long a run shall take.
    """

    def __init__(
        self,
        run: Callable[[int], object],
        *,
        per_count: float = 1.0,
        least: int = 4,
        multiple: int = 1,
        seconds: float = RUN_SECONDS,
    ) -> None:
        self.run, self.per_count, self.seconds = run, per_count, seconds
        self.multiple, self.least = multiple, -(-least // multiple) * multiple
        self._count: int | None = None

    def count(self) -> int:
        """Return the number of operations of a run."""
        if self._count is None:
            count = self.least
            self.run(count)  # not timed: cold caches
            taken = self._time(count)
            while taken < self.seconds / 4:
                count *= 8
                taken = self._time(count)
            wanted = int(count * self.seconds / taken) // self.multiple * self.multiple
            self._count = max(self.least, wanted)
        return self._count

    def measure(self) -> float:
        """Units per second of one run."""
        count = self.count()
        return count * self.per_count / self._time(count)

    def _time(self, count: int) -> float:
        begin = time.perf_counter()
        self.run(count)
        return time.perf_counter() - begin


def alternate(
    contestants: Mapping[str, Timed], seconds: float, least_rounds: int = 3
) -> dict[str, Rate]:
    """Let all take turns, so that whatever else the machine does hits all alike.

    Args:
        contestants: by name.
        seconds: how long each of them may take, pauses included; the first round is not counted.
        least_rounds: rounds that are counted however long they take.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + seconds * len(contestants)
    rounds = -1
    while rounds < least_rounds or time.perf_counter() < end:
        for name, contestant in contestants.items():
            time.sleep(PAUSE)
            rate = contestant.measure()
            if rounds >= 0:
                rates[name].append(rate)
        rounds += 1
    return {name: Rate.of(taken) for name, taken in rates.items()}

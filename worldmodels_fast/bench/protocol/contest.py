"""Contestants brought together, each in its library's process, and timed in turn."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self

from worldmodels_fast.bench.protocol.machine import Others
from worldmodels_fast.bench.protocol.processes import Libraries, Remote, Unavailable
from worldmodels_fast.bench.protocol.timing import Rate, Timed, alternate

P = ParamSpec("P")


class Contest:
    """Contestants of one comparison; they are gone after the `with` statement.

    Args:
        libraries: the processes.
        threads: how many threads every contestant has.
        left_out: (contestant -> why) of those that cannot take part; it is added to, and who is in
            it already is not asked again.
    """

    def __init__(self, libraries: Libraries, threads: int, left_out: dict[str, str]) -> None:
        self._libraries, self._threads, self._left_out = libraries, threads, left_out
        self._contestants: dict[str, Remote] = {}
        self.others: float | None = None

    def add(
        self,
        name: str,
        library: str,
        make: Callable[P, Timed],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Let a library's process make a contestant, which checks its answer.

        Raises:
            RuntimeError: its answer is wrong, or the process died.
        """
        if name in self._left_out:
            return
        process = self._libraries.get(library, self._threads)
        try:
            self._contestants[name] = process.make(make, *args, **kwargs)
        except Unavailable as why:
            self._left_out[name] = str(why)

    def rates(self, seconds: float) -> dict[str, Rate]:
        """Let all of them take turns, for so many seconds each.

        `others` is then how many cores other processes kept busy meanwhile.
        """
        others = Others(self._libraries.pids)
        rates = alternate(self._contestants, seconds)
        self.others = others.cores()
        return rates

    def get(self, name: str, attribute: str) -> Any:
        """An attribute of one of them."""
        return self._contestants[name].get(attribute)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:  # otherwise the processes themselves are about to go
            for contestant in self._contestants.values():
                contestant.drop()

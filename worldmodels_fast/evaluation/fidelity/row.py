"""One player's scores in the game and in the dream, and the table of several players."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from worldmodels_fast.evaluation.statistics import Summary, bootstrap_means, summary

Measure = Literal["steps", "reward"]
"""The score that dream and game are compared by: an episode's length, or its sum of rewards."""


@dataclass(frozen=True, repr=False)
class FidelityRow:
    """One player's scores in the game and in the dream.

    Attributes:
        player: name of an open-loop policy or of a controller.
        game: summary of the scores in the game.
        dream: summary of the scores in the dream.
        ratio: dream over game, of the means; None for rewards, whose means may be of either sign.
        ratio_low: lower end of the ratio's bootstrap 95% interval.
        ratio_high: upper end of that interval.
        game_scores: every episode of the game.
        dream_scores: every episode of the dream.
        kind: "policy" for an open-loop policy, "controller" for an evolved one.
        measure: of the scores: "steps" survived, or "reward" where M predicts rewards.
        difference: dream less game, of the means; for rewards.
        difference_low: lower end of the difference's bootstrap 95% interval.
        difference_high: upper end of that interval.
    """

    player: str
    game: Summary
    dream: Summary
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    game_scores: list[float]
    dream_scores: list[float]
    kind: str = "policy"
    measure: Measure = "steps"
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    def __repr__(self) -> str:
        return (
            f"FidelityRow({self.player!r}, {self.kind!r}, {self.measure!r}, game={self.game}, "
            f"dream={self.dream}, compared={self.compared()})"
        )

    @classmethod
    def compare(
        cls,
        player: str,
        game: npt.ArrayLike,
        dream: npt.ArrayLike,
        kind: str = "policy",
        measure: Measure = "steps",
    ) -> FidelityRow:
        """Return a player's row from its scores in the game (n,) and in the dream (m,)."""
        real = np.asarray(game, dtype=np.float64)
        dreamt = np.asarray(dream, dtype=np.float64)
        means = bootstrap_means(dreamt, 5000, seed=1), bootstrap_means(real, 5000, seed=2)
        by_ratio = measure == "steps"
        low, high = np.percentile(
            means[0] / means[1] if by_ratio else means[0] - means[1], (2.5, 97.5)
        ).tolist()
        return cls(
            player=player,
            game=summary(real),
            dream=summary(dreamt),
            ratio=float(dreamt.mean() / real.mean()) if by_ratio else None,
            ratio_low=low if by_ratio else None,
            ratio_high=high if by_ratio else None,
            game_scores=real.tolist(),
            dream_scores=dreamt.tolist(),
            kind=kind,
            measure=measure,
            difference=None if by_ratio else float(dreamt.mean() - real.mean()),
            difference_low=None if by_ratio else low,
            difference_high=None if by_ratio else high,
        )

    def compared(self) -> str:
        """Return a table's cell: the ratio dream / game, or the difference of rewards."""
        if self.measure == "steps":
            return f"{self.ratio:.2f} [{self.ratio_low:.2f}, {self.ratio_high:.2f}]"
        return f"{self.difference:+.0f} [{self.difference_low:+.0f}, {self.difference_high:+.0f}]"

    def disagreement(self, factor: float) -> float:
        """Return a number that is above 1 if dream and game differ by more than a factor.

        For steps it is |log ratio| / log factor. Rewards may be of either sign and have no ratio:
        for them it is the difference over factor - 1 of the game's mean, or of the standard
        deviation of the game's scores if that is larger.
        """
        if self.ratio is not None:
            return float(abs(np.log(self.ratio)) / max(np.log(factor), 1e-9))
        assert self.difference is not None
        scale = max(abs(self.game.mean), self.game.std, 1e-9)
        return abs(self.difference) / max((factor - 1) * scale, 1e-9)


def fidelity_cells(rows: Sequence[FidelityRow]) -> tuple[list[str], list[list[str]]]:
    """Return a table's head and rows of cells: mean +- std [95% interval of the mean]."""
    sign = "-" if any(row.measure == "reward" for row in rows) else "/"
    head = ["player", "game", "dream", f"dream {sign} game"]
    return head, [[row.player, str(row.game), str(row.dream), row.compared()] for row in rows]


def fidelity_table(rows: Sequence[FidelityRow]) -> str:
    """Return `fidelity_cells` as a Markdown table."""
    head, cells = fidelity_cells(rows)
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def disagreements(rows: Sequence[FidelityRow], factor: float = 1.5) -> list[FidelityRow]:
    """Return the rows whose dream and game differ by more than a factor, the worst first.

    Their ratio lies outside of [1 / factor, factor]; for rewards see `FidelityRow.disagreement`.
    """
    bad = [row for row in rows if row.disagreement(factor) > 1]
    return sorted(bad, key=lambda row: -row.disagreement(factor))

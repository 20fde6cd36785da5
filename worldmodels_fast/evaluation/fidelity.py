"""Dream fidelity: the same players in the dream and in the game."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.envs.policies import FIDELITY_POLICIES
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evaluation.evaluate import OnEpisode, evaluate_policies
from worldmodels_fast.evaluation.scores import EpisodeScore
from worldmodels_fast.evaluation.statistics import Summary, bootstrap_means, summary
from worldmodels_fast.utils.seeding import derive_seed

Measure = Literal["steps", "reward"]
"""What dream and game are compared by: how long episodes last, or the sums of their rewards."""


@dataclass(frozen=True)
class FidelityRow:
    """What comes of one player in the game and in the dream.

    Attributes:
        player: a policy's name, or what else was compared.
        game: summary of its scores in the game.
        dream: the same in the dream.
        ratio: dream over game, of the means; None for rewards, whose means may be of either sign.
        ratio_low: lower end of the ratio's bootstrap 95% interval.
        ratio_high: its upper end.
        game_scores: every episode of the game.
        dream_scores: every episode of the dream.
        kind: "policy" for a fixed one, "controller" for an evolved one.
        measure: what the scores are: "steps" survived, or "reward" where M predicts that.
        difference: dream less game, of the means; for rewards.
        difference_low: lower end of its bootstrap 95% interval.
        difference_high: its upper end.
    """

    player: str
    game: Summary
    dream: Summary
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    game_scores: list[float] = field(repr=False)
    dream_scores: list[float] = field(repr=False)
    kind: str = "policy"
    measure: Measure = "steps"
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    @classmethod
    def compare(
        cls,
        player: str,
        game: npt.ArrayLike,
        dream: npt.ArrayLike,
        kind: str = "policy",
        measure: Measure = "steps",
    ) -> FidelityRow:
        """The row of one player from its scores in the game (n,) and in the dream (m,)."""
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
        """Dream against game in a table's cell: the ratio, or the difference of rewards."""
        if self.measure == "steps":
            return f"{self.ratio:.2f} [{self.ratio_low:.2f}, {self.ratio_high:.2f}]"
        return f"{self.difference:+.0f} [{self.difference_low:+.0f}, {self.difference_high:+.0f}]"

    def disagreement(self, factor: float) -> float:
        """How far dream and game differ; above 1 it is by more than a factor.

        Rewards have no ratio. For them it is more than factor - 1 of the game's mean, or of the
        standard deviation of its scores if that is larger.
        """
        if self.ratio is not None:
            return float(abs(np.log(self.ratio)) / np.log(factor))
        assert self.difference is not None
        scale = max(abs(self.game.mean), self.game.std, 1e-9)
        return abs(self.difference) / ((factor - 1) * scale)


def fidelity(
    dream: Dream,
    env_id: str,
    *,
    policies: Sequence[str] = FIDELITY_POLICIES,
    episodes: int = 100,
    dream_episodes: int = 256,
    seed: int = 0,
    workers: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    squash: Squash | None = None,
    steps: int | None = None,
    folder: Path | None = None,
    on_episode: OnEpisode | None = None,
) -> list[FidelityRow]:
    """What comes of fixed policies in the dream, beside the game: is the dream as deadly?

    Look at this before evolving anything in a dream (and use temperature 1 for it). Where the
    dream forgets to kill, a controller will be found that stands there. Where M predicts rewards,
    their sums are compared, over as many steps as the game has at most: an episode that ends
    before that has no more.

    Args:
        dream: the dream, at its temperature and threshold.
        env_id: the real game.
        policies: names of the rows.
        episodes: of each policy in the game.
        dream_episodes: of each policy in the dream.
        seed: of both.
        workers: processes for the game.
        env_kwargs: settings of the game.
        squash: the game's actions; see `Policy`.
        steps: of a dream whose rewards are added up; None for the dream's own most.
        folder: where the game's finished episodes are kept, one JSON-lines file per policy; they
            do not depend on the dream and are not played again for another one.
        on_episode: see `OnEpisode`; for the game's.
    """
    paths = None if folder is None else {p: folder / f"game-{p}.jsonl" for p in policies}
    games = evaluate_policies(
        policies,
        env_id,
        episodes,
        seed,
        workers,
        env_kwargs=env_kwargs,
        squash=squash,
        progress_paths=paths,
        on_episode=on_episode,
    )
    rows, noise = [], derive_seed(seed, "fidelity/dream")
    for policy, game in games.items():
        measure = measured_by(dream)
        dreamt: npt.ArrayLike
        if measure == "reward":
            dreamt = dream.play_policy(policy, dream_episodes, noise, steps)[0]
        else:
            dreamt = dream.survival_of(policy, dream_episodes, noise)
        scores = measured(game.episodes, measure)
        rows.append(FidelityRow.compare(policy, scores, dreamt, measure=measure))
    return rows


def measured_by(dream: Dream) -> Measure:
    """What a dream is compared with the game by: rewards, if its M predicts them."""
    return "reward" if dream.weights.predicts_reward else "steps"


def measured(episodes: Sequence[EpisodeScore], measure: Measure) -> list[float]:
    """The steps or the scores of some episodes of the game."""
    return [float(e.steps) if measure == "steps" else e.score for e in episodes]


def fidelity_table(rows: Sequence[FidelityRow]) -> str:
    """The rows as a Markdown table: mean +- std [95% interval of the mean], steps or rewards."""
    sign = "-" if any(row.measure == "reward" for row in rows) else "/"
    lines = [f"| player | game | dream | dream {sign} game |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.player} | {row.game} | {row.dream} | {row.compared()} |" for row in rows]
    return "\n".join(lines)


def disagreements(rows: Sequence[FidelityRow], factor: float = 1.5) -> list[FidelityRow]:
    """Those rows whose dream and game differ by more than a factor, the worst first.

    The ratio lies outside of [1 / factor, factor]; for rewards see `FidelityRow.disagreement`.
    """
    bad = [row for row in rows if row.disagreement(factor) > 1]
    return sorted(bad, key=lambda row: -row.disagreement(factor))

"""Scores of the real game: one per episode, with the settings that they depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast.evaluation.statistics import Summary, summary
from worldmodels_fast.utils.files import read_json, reading, write_json


@dataclass(frozen=True)
class EpisodeScore:
    """One episode of the real game.

    Attributes:
        episode: number of the episode, from 0.
        seed: that the environment was reset with.
        score: undiscounted return.
        steps: length of the episode.
        terminated: whether the game ended it (a death), not a time limit.
    """

    episode: int
    seed: int
    score: float
    steps: int
    terminated: bool


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Every episode's score, with the settings that they depend on.

    Attributes:
        settings: player, environment with all its arguments (Doom's skill among them), seed,
            precision, versions.
        episodes: in the order of their numbers.
    """

    settings: dict[str, Any]
    episodes: tuple[EpisodeScore, ...]

    def __repr__(self) -> str:
        scores = str(self.summary()) if self.episodes else "none"
        return (
            f"Evaluation({self.settings.get('player')!r}, {self.settings.get('env_id')!r}, "
            f"episodes={len(self.episodes)}, scores={scores})"
        )

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Return the episodes' returns, (n,)."""
        return np.array([episode.score for episode in self.episodes])

    def summary(self) -> Summary:
        """Return mean, standard deviation, interval and so on of the scores."""
        return summary(self.scores)

    def to_json(self) -> dict[str, Any]:
        """Return settings, summary and every episode as JSON."""
        return {
            "settings": self.settings,
            "summary": asdict(self.summary()),
            "episodes": [asdict(episode) for episode in self.episodes],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        """Return the evaluation that `to_json` was called on."""
        episodes = tuple(EpisodeScore(**episode) for episode in data["episodes"])
        return cls(settings=data["settings"], episodes=episodes)


def save_evaluations(evaluations: dict[str, Evaluation], path: Path) -> None:
    """Write several players' settings, summaries and every episode's score as JSON."""
    write_json(path, {name: e.to_json() for name, e in evaluations.items()})


def load_evaluations(path: Path) -> dict[str, Evaluation]:
    """Return the evaluations that `save_evaluations` wrote, by player.

    Raises:
        ValueError: the file is missing, damaged, or something else.
    """
    with reading(path, "delete it and evaluate again"):
        evaluations = {n: Evaluation.from_json(e) for n, e in (read_json(path) or {}).items()}
        if not evaluations:
            raise ValueError("expected at least one player's evaluation, got none")
    return evaluations

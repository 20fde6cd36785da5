"""The episodes that players have finished, in memory and in their progress files.

A progress file is JSON lines: the settings of the player's scores, then one `EpisodeScore` per
line, appended as soon as the episode is done. So an evaluation that was killed plays only the
episodes that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldmodels_fast.evaluation.scores import EpisodeScore, Evaluation
from worldmodels_fast.utils.files import (
    append_json_line,
    read_json_lines,
    reading,
    write_json_lines,
)

OnEpisode = Callable[[EpisodeScore, int, int], None]
"""Called with (an episode just finished, episodes finished, episodes in all)."""


@dataclass(frozen=True)
class PlayerEpisodes:
    """All episodes that one player is to play.

    Attributes:
        settings: all that the scores depend on, see `Evaluation`.
        episodes: their number.
        progress_path: the player's progress file; None keeps none.
    """

    settings: dict[str, Any]
    episodes: int
    progress_path: Path | None


class FinishedEpisodes:
    """The finished episodes of some players, in memory and in their progress files.

    Args:
        players: their episodes; players are known by their index in this sequence.
        on_episode: see `OnEpisode`.

    Raises:
        ValueError: no episode is asked for, or a progress file was made with other settings.
    """

    def __init__(self, players: Sequence[PlayerEpisodes], on_episode: OnEpisode | None) -> None:
        for player in players:
            if player.episodes < 1:
                raise ValueError(f"episodes: expected at least 1, got {player.episodes}")
        self._players = players
        self._on_episode = on_episode
        self._finished = [_read_progress(player) for player in players]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """(player, episode) of all that are still to be played."""
        return [
            (number, episode)
            for number, player in enumerate(self._players)
            for episode in range(player.episodes)
            if episode not in self._finished[number]
        ]

    def add(self, player: int, score: EpisodeScore) -> None:
        """Add a finished episode: append it to the player's file and call `on_episode`."""
        self._finished[player][score.episode] = score
        path = self._players[player].progress_path
        if path is not None:
            append_json_line(path, asdict(score))
        if self._on_episode is not None:
            done = sum(map(len, self._finished))
            self._on_episode(score, done, sum(player.episodes for player in self._players))

    def evaluations(self) -> list[Evaluation]:
        """Return each player's evaluation; no episode may be missing."""
        return [
            Evaluation(player.settings, tuple(scores[i] for i in range(player.episodes)))
            for player, scores in zip(self._players, self._finished, strict=True)
        ]


def _read_progress(player: PlayerEpisodes) -> dict[int, EpisodeScore]:
    """Return the finished episodes of a progress file by number; begin the file if need be."""
    path = player.progress_path
    if path is None:
        return {}
    rows = read_json_lines(path)
    settings = json.loads(json.dumps(player.settings, default=str))
    if rows:
        earlier = rows[0]
        changed = [key for key in {**earlier, **settings} if earlier.get(key) != settings.get(key)]
        if changed:
            raise ValueError(
                f"progress_path: {path} was made with other settings ("
                + ", ".join(f"{k}: {earlier.get(k)!r}, now {settings.get(k)!r}" for k in changed)
                + "); delete it to evaluate anew"
            )
    else:
        rows = [settings]
    write_json_lines(path, rows)
    with reading(path, "delete it to evaluate anew"):
        scores = [EpisodeScore(**row) for row in rows[1:]]
    return {score.episode: score for score in scores if score.episode < player.episodes}

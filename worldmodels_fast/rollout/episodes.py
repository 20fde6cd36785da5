"""Episodes of the real game: what is asked for and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worldmodels_fast.types import Floats, Frames


@dataclass(frozen=True)
class Episode:
    """An episode that is to be played.

    Attributes:
        env_seed: what the environment is reset with.
        player_seed: of the generator that z is sampled with.
        member: which row of the population plays it.
    """

    env_seed: int
    player_seed: int
    member: int = 0


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went.

    Attributes:
        score: the undiscounted return.
        steps: its length.
        terminated: whether it ended by itself, not by a time limit.
    """

    score: float
    steps: int
    terminated: bool


OnEpisode = Callable[[int, EpisodeResult], None]
"""Called with an episode's place in the list and its result, as soon as it is over."""


OnStep = Callable[[int, int, Frames, Floats, float], None]
"""Called after every step with the episode's place in the list, the step's number, the frame
(64, 64, 3) that was seen before it, the action (A,) and the reward; frame and action are the
callee's to keep. An episode that is played again begins again at step 0."""

"""Episodes of the real game, before and after they are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.utils.arguments import checked_integer


@dataclass(frozen=True)
class Episode:
    """An episode that is to be played.

    Attributes:
        env_seed: seed of the environment's reset, from 0.
        player_seed: seed of the generator that z is sampled with, from 0.
        member: the row of the population that plays it, from 0.

    Raises:
        TypeError, ValueError: not an integer, or below 0.
    """

    env_seed: int
    player_seed: int
    member: int = 0

    def __post_init__(self) -> None:
        """Check the integers, and make them Python's."""
        for name in ("env_seed", "player_seed", "member"):
            value = checked_integer(name, getattr(self, name), low=0, high=2**64)
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class EpisodeResult:
    """The result of an episode.

    Attributes:
        score: sum of rewards, not discounted.
        steps: number of steps.
        terminated: whether the game ended it, not a time limit.
    """

    score: float
    steps: int
    terminated: bool


OnEpisode = Callable[[int, EpisodeResult], None]
"""Called with an episode's place in the list and its result, as soon as it is done."""

OnStep = Callable[[int, int, Frames, Floats, float], None]
"""Called after every step with the episode's place in the list, the step's number, the frame
(64, 64, 3) uint8 before it, the action (A,) float32 and the reward; frame and action are copies. An
episode that is played again begins again at step 0."""

"""The section `fidelity` of the settings: the comparison of dream and game."""

from __future__ import annotations

from dataclasses import dataclass

from worldmodels_fast.envs.policies import FIDELITY_POLICIES


@dataclass(frozen=True)
class FidelityConfig:
    """How the dream is compared with the game before C is evolved in it.

    Attributes:
        policies: open-loop policies that play in both.
        real_episodes: number of each policy's in the game.
        dream_episodes: number of each policy's in the dream, at temperature 1.
        warn_factor: the run warns where dream and game differ by more than this factor. (Returns
            may be of either sign: where they are compared, by as much of the game's mean, or of
            its scores' standard deviation if that is larger.)
    """

    policies: tuple[str, ...] = FIDELITY_POLICIES
    real_episodes: int = 50
    dream_episodes: int = 256
    warn_factor: float = 1.5

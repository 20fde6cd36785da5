"""Settings of the comparison of dream and game."""

from __future__ import annotations

from dataclasses import dataclass

from worldmodels_fast.envs.policies import FIDELITY_POLICIES, check_policies
from worldmodels_fast.utils.settings import SettingsCheck, option_of


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

    def check(self, prefix: str = "--fidelity.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check_policies(option_of(prefix, "policies"), self.policies)
        check.integers("real_episodes", "dream_episodes", low=1)
        check.numbers("warn_factor", low=1)

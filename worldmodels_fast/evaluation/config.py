"""Settings of the agent's scores in the game."""

from __future__ import annotations

import typing
from dataclasses import dataclass

from worldmodels_fast.training.config import Precision
from worldmodels_fast.utils.settings import SettingsCheck


@dataclass(frozen=True)
class EvaluateConfig:
    """How the agent is scored in the real game.

    Attributes:
        episodes: the agent's, on seeds that nothing else uses (paper: 100).
        random_episodes: those of a uniform random policy, on the same seeds.
        unmodified_episodes: the agent's where the game has an unmodified environment besides ours
            (CarRacing: Gymnasium's, with its own drawing), on the same seeds.
        vae_precision: of V's convolutions; "auto" is bf16 where the machine multiplies it natively.
        workers: processes; None takes every processor.
    """

    episodes: int = 100
    random_episodes: int = 100
    unmodified_episodes: int = 100
    vae_precision: Precision = "fp32"
    workers: int | None = None

    def check(self, prefix: str = "--evaluate.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("episodes", "random_episodes", low=1)
        check.integers("unmodified_episodes", low=0)
        check.choice("vae_precision", typing.get_args(Precision))
        check.integers("workers", low=1, or_none=True)

"""Settings of the game while C is evolved in it."""

from __future__ import annotations

import typing
from dataclasses import dataclass

from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.utils.settings import SettingsCheck


@dataclass(frozen=True)
class GameConfig:
    """How a generation's rollouts are played where C is evolved in the game.

    `max_steps` and `patience` cut the rollouts that members are ranked by; the mean's scores are of
    whole episodes.

    Attributes:
        max_steps: steps after which a rollout is cut; None for the episode's own end.
        patience: steps without progress after which a rollout is given up, for games that know
            progress (CarRacing: a new tile); 0 for never, as in the paper.
        vae_precision: of V's convolutions, "fp32", "bf16" or "auto", which is bf16 where the
            machine has instructions for it.
        device: where V, M and C are, "cpu", "cuda" or "cuda:1".
        workers: processes that step the game; None for as many as suit the machine. Results do not
            depend on it.
    """

    max_steps: int | None = None
    patience: int = 0
    vae_precision: VAEPrecision = "fp32"
    device: str = "cpu"
    workers: int | None = None

    def check(self, prefix: str = "--game.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with.
        """
        check = SettingsCheck(self, prefix)
        check.integers("max_steps", "workers", low=1, or_none=True)
        check.integers("patience", low=0)
        check.choice("vae_precision", typing.get_args(VAEPrecision))
        check.device()

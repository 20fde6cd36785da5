"""Settings of the dream's measurement on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass, fields

from worldmodels_fast.utils.settings import SettingsCheck


@dataclass(frozen=True)
class QualityConfig:
    """Measures of the dream on held-out episodes, before C is evolved in it.

    Attributes:
        episodes: number of held-out episodes, at most.
        windows: number of tics in them from which M dreams on.
        warm_up: real tics that M sees before it dreams, at least.
        horizon: tics that it then dreams, under the real actions.
        samples: dreams from each place at temperature 1.
        frames: held-out frames that V is measured on.
        dreams: whole episodes dreamt from first frames, under the policies of the collection.
    """

    episodes: int = 200
    windows: int = 200
    warm_up: int = 60
    horizon: int = 60
    samples: int = 8
    frames: int = 2000
    dreams: int = 192

    def check(self, prefix: str = "--quality.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers(*(field.name for field in fields(self)), low=1)

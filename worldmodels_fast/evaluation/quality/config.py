"""What the stage `quality` is asked for."""

from __future__ import annotations

from dataclasses import dataclass


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

    def check(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"quality.{name}: expected at least 1, got {value}")

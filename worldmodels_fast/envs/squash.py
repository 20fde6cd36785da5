"""C's outputs to an environment's actions: data, for kernels, policies and environments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CAR_RACING_SQUASH", "Squash"]


@dataclass(frozen=True)
class Squash:
    """Actions of outputs y, one number per action: clip(scale * tanh(y) + shift, low, high)."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def plain(cls, action_dim: int) -> Squash:
        """Only tanh: every action in [-1, 1] (Take Cover)."""
        one = (1.0,) * action_dim
        return cls(scale=one, shift=(0.0,) * action_dim, low=(-1.0,) * action_dim, high=one)

    @property
    def action_dim(self) -> int:
        """Number of actions A."""
        return len(self.scale)

    @property
    def ranges(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Each action's lowest and highest value, (A,) float32."""
        return np.array(self.low, np.float32), np.array(self.high, np.float32)

    def __call__(self, y: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the actions (..., A) float32 of outputs (..., A), as the kernels do."""
        a = np.multiply(self.scale, np.tanh(np.asarray(y, np.float64))) + self.shift
        return self.clip(a)

    def clip(self, actions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the nearest actions (..., A) float32 that the environment has."""
        return np.clip(np.asarray(actions, np.float32), *self.ranges)


CAR_RACING_SQUASH = Squash(
    scale=(1.0, 0.5, 1.0), shift=(0.0, 0.5, 0.0), low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0)
)
"""CarRacing: steering a, gas (a + 1) / 2, brake clip(a, 0, 1) of a = tanh(y) (the paper's code)."""

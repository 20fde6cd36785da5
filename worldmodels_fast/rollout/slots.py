"""Common to `Players` and `DevicePlayers`: the check of their arguments, and the slots' noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from worldmodels_fast.models.sizes import check_sizes
from worldmodels_fast.utils.arguments import checked_choice

if TYPE_CHECKING:
    from worldmodels_fast.models.mdn_rnn import MDNRNN
    from worldmodels_fast.models.vae import VAE
    from worldmodels_fast.ops.types import ControllerSpec, MDNRNNWeights, VAEEncoderWeights

__all__ = ["Latent", "SlotNoise", "Slots", "check_parts"]

Slots = npt.NDArray[np.intp]
"""(n,) numbers of slots."""

Latent = Literal["sample", "mu"]
"""z is sampled from V's distribution, as in the paper, or is its mean."""

STEPS_AHEAD = 64
"""Steps of an episode whose normals are drawn with one call of its generator."""


class SlotNoise:
    """The normals that z is sampled with, from each slot's own generator.

    Args:
        slots: N.
        latent_dim: Z.
    """

    def __init__(self, slots: int, latent_dim: int) -> None:
        self._rngs: list[np.random.Generator] = [np.random.default_rng(0)] * slots
        self._normals = np.empty((slots, STEPS_AHEAD, latent_dim), np.float32)
        self._used = np.full(slots, STEPS_AHEAD)  # steps already used of those drawn

    def begin(self, slot: int, rng: np.random.Generator) -> None:
        """Draw a slot's normals from this generator from now on."""
        self._rngs[slot] = rng
        self._used[slot] = STEPS_AHEAD

    def next(self, slots: Slots) -> npt.NDArray[np.float32]:
        """Return the next step's normals (n, Z) float32 of n different slots."""
        for slot in slots[self._used[slots] == STEPS_AHEAD]:
            self._rngs[slot].standard_normal(dtype=np.float32, out=self._normals[slot])
            self._used[slot] = 0
        normals: npt.NDArray[np.float32] = self._normals[slots, self._used[slots]]
        self._used[slots] += 1
        return normals


def check_parts(
    vae: VAE | VAEEncoderWeights,
    mdn_rnn: MDNRNN | MDNRNNWeights | None,
    spec: ControllerSpec,
    latent: str,
) -> None:
    """Check the arguments that all players have.

    Raises:
        ValueError: an unknown `latent`, or parts that do not fit together; see `check_sizes`.
    """
    checked_choice("latent", latent, get_args(Latent))
    check_sizes(vae, mdn_rnn, spec)

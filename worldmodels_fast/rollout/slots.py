"""What `Players` and `DevicePlayers` share: the fit of their parts, and their slots' noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from worldmodels_fast.models.mdn_rnn import MDNRNN
    from worldmodels_fast.models.vae import VAE
    from worldmodels_fast.ops.types import ControllerSpec, MDNRNNWeights, VAEEncoderWeights

__all__ = ["Latent", "SlotNoise", "Slots", "check_parts"]

Slots = npt.NDArray[np.intp]
Latent = Literal["sample", "mu"]

STEPS_AHEAD = 64
"""An episode's normals are drawn for so many steps at a time; a generator's call is not free."""


class SlotNoise:
    """The normals that z is sampled with, from each slot's own generator.

    Args:
        slots: N.
        latent_dim: Z.
    """

    def __init__(self, slots: int, latent_dim: int) -> None:
        self._rngs: list[np.random.Generator] = [np.random.default_rng(0)] * slots
        self._normals = np.empty((slots, STEPS_AHEAD, latent_dim), np.float32)
        self._used = np.full(slots, STEPS_AHEAD)  # steps of what was drawn

    def begin(self, slot: int, rng: np.random.Generator) -> None:
        """Take a slot's normals from this generator from now on."""
        self._rngs[slot] = rng
        self._used[slot] = STEPS_AHEAD

    def next(self, slots: Slots) -> npt.NDArray[np.float32]:
        """The next step's normals (n, Z) of n different slots."""
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
    """Refuse parts that do not fit together.

    Raises:
        ValueError: an unknown `latent`, sizes that differ, or a C that sees the memory of no M.
    """
    if latent not in ("sample", "mu"):
        raise ValueError(f"latent: expected 'sample' or 'mu', got {latent!r}")
    if mdn_rnn is None:
        if seen := {"h", "c"} & set(spec.features):
            raise ValueError(
                f"mdn_rnn: the controller sees {' and '.join(sorted(seen))}, M's memory; "
                "expected an MDNRNN, got None"
            )
        sizes: dict[str, tuple[int, ...]] = {"latent_dim": (vae.latent_dim, spec.latent_dim)}
    else:
        sizes = {
            "latent_dim": (vae.latent_dim, mdn_rnn.latent_dim, spec.latent_dim),
            "hidden_dim": (mdn_rnn.hidden_dim, spec.hidden_dim),
            "action_dim": (mdn_rnn.action_dim, spec.action_dim),
        }
    for name, values in sizes.items():
        if len(set(values)) > 1:
            raise ValueError(f"vae, mdn_rnn, controller: they differ in {name}: {values}")

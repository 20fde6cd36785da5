"""V, M and C together, in slots: the player of `Agent` and of a `Game`'s workers.

This module does not import torch: models are passed as weights, too, and a worker starts faster and
takes less memory without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worldmodels_fast import ops
from worldmodels_fast.rollout.encoder import PackedEncoder, VAEPrecision
from worldmodels_fast.rollout.slots import Latent, SlotNoise, Slots, check_parts
from worldmodels_fast.types import Floats, Frames

if TYPE_CHECKING:
    from worldmodels_fast.models.mdn_rnn import MDNRNN
    from worldmodels_fast.models.vae import VAE

__all__ = ["Players"]


class Players:
    """V, M and C in N slots: an episode each, with its own parameters of C and its own noise.

    As in the paper, C acts on h and c from before M is fed the present z, and z is sampled from V's
    distribution, not its mean. A step is `act`, then `remember`.

    Args:
        vae: V, or its encoder's weights; copied.
        mdn_rnn: M, or its weights; copied. None if the controller sees z alone: then M is not run.
        controller: the meaning of a row of parameters.
        slots: N.
        latent: "sample" or "mu".
        vae_precision: see `PackedEncoder`.
        threads: of V's and M's kernels.
        backend: of V, M and C, see `ops.available_backends`; None for the best one.

    Raises:
        ValueError: parts that do not fit together, or an unknown setting.
    """

    def __init__(
        self,
        vae: VAE | ops.VAEEncoderWeights,
        mdn_rnn: MDNRNN | ops.MDNRNNWeights | None,
        controller: ops.ControllerSpec,
        slots: int = 1,
        *,
        latent: Latent = "sample",
        vae_precision: VAEPrecision = "fp32",
        threads: int = 1,
        backend: str | None = None,
    ) -> None:
        check_parts(vae, mdn_rnn, controller, latent)
        self.spec = controller
        self._vae = PackedEncoder(vae, vae_precision, backend=backend, threads=threads)
        self._model: ops.PackedMDNRNN | None = None
        if mdn_rnn is not None and {"h", "c"} & set(controller.features):
            weights = mdn_rnn if isinstance(mdn_rnn, ops.MDNRNNWeights) else mdn_rnn.weights()
            self._model = ops.pack_mdn_rnn(weights, backend=backend)
        self._backend = backend
        self._threads = threads
        self._latent = latent
        self._params = np.zeros((slots, controller.n_params), np.float32)
        self._h = np.zeros((slots, controller.hidden_dim), np.float32)
        self._c = np.zeros((slots, controller.hidden_dim), np.float32)
        self._restart = np.ones(slots, np.float32)
        self._noise = SlotNoise(slots, vae.latent_dim)

    def begin(self, slot: int, params: Floats, rng: np.random.Generator | None = None) -> None:
        """Begin an episode in a slot.

        Args:
            slot: its number.
            params: (n_params,) float32.
            rng: the generator that z is sampled with; None for the slot's generator as it is.
        """
        self._params[slot] = params
        self._h[slot] = 0.0
        self._c[slot] = 0.0
        self._restart[slot] = 1.0
        if rng is not None:
            self._noise.begin(slot, rng)

    def act(self, slots: Slots, frames: Frames) -> tuple[Floats, Floats]:
        """Return z (n, Z) and actions (n, A), float32, of n different slots.

        Args:
            slots: (n,) numbers of slots.
            frames: (n, 64, 64, 3) uint8, RGB, C-contiguous.
        """
        mu, logvar = self._vae(frames)
        z: Floats = np.ascontiguousarray(mu)
        if self._latent == "sample":
            z = z + np.exp(0.5 * logvar) * self._noise.next(slots)
        h = self._h[slots] if "h" in self.spec.features else None
        c = self._c[slots] if "c" in self.spec.features else None
        return z, ops.controller_forward(
            self.spec, self._params[slots], z, h, c, backend=self._backend
        )

    def remember(self, slots: Slots, z: Floats, actions: Floats) -> None:
        """Feed M the z (n, Z) and actions (n, A) that `act` returned for these slots (n,)."""
        if self._model is not None:
            restart = self._restart[slots] if self._model.predicts_done else None
            step = ops.mdn_rnn_step(
                self._model,
                z,
                actions,
                self._h[slots],
                self._c[slots],
                restart,
                threads=self._threads,
            )
            self._h[slots] = step.h
            self._c[slots] = step.c
            self._restart[slots] = 0.0

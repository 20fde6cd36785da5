"""V's encoder for playing: weights packed once, and the same latent whatever else is in the batch.

`VAE.encode` is for training: it rearranges its weights in every call, and its rounding depends on
the number of frames. `ops.encode_frames` encodes each frame independently: the result is bitwise
the same in a batch of any size, at any place in it and with any number of threads, and one frame
alone takes no longer than one of many. This module does not import torch, so workers need not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.arguments import checked_choice

if TYPE_CHECKING:
    from worldmodels_fast.models.vae import VAE

__all__ = ["PackedEncoder", "VAEPrecision"]

VAEPrecision = Literal["fp32", "bf16", "auto"]


class PackedEncoder:
    """V's encoder on the CPU.

    Args:
        vae: V, or the weights of its encoder; they are copied, later changes are not seen.
        precision: of the convolutions, "fp32", "bf16" or "auto". In bf16 mu is off by about 1% of
            the standard deviation with which z is sampled anyway; it is twice as fast where the
            machine multiplies bfloat16 natively, and slower elsewhere. "auto" is "bf16" there and
            "fp32" elsewhere. The last layer is always fp32.
        backend: a level of the CPU, see `ops.available_backends`; None for the best one.
        threads: number of threads, which share the frames.

    Raises:
        ValueError: another precision or backend.
    """

    def __init__(
        self,
        vae: VAE | ops.VAEEncoderWeights,
        precision: VAEPrecision = "fp32",
        *,
        backend: str | None = None,
        threads: int = 1,
    ) -> None:
        checked_choice("vae_precision", precision, ops.ENCODER_PRECISIONS)
        weights = vae if isinstance(vae, ops.VAEEncoderWeights) else vae.encoder_weights()
        self.latent_dim = weights.latent_dim
        self._threads = threads
        # V has no kernel for CUDA devices; there `device_players` plays.
        level = None if backend == "cuda" else backend
        self._packed = ops.pack_vae_encoder(weights, backend=level, precision=precision)

    @property
    def precision(self) -> str:
        """The precision in use, "fp32" or "bf16"."""
        return self._packed.precision

    def __call__(self, frames: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Return mu and logvar (N, Z) float32 of frames (N, 64, 64, 3) uint8 RGB, C-contiguous."""
        mu, logvar = ops.encode_frames(self._packed, frames, threads=self._threads)
        return mu, logvar

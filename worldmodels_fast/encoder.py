"""V's encoder for playing: weights packed once, and the same latent whatever else is in the batch.

`VAE.encode` is for training: it rearranges its weights in every call, and how its last layer rounds
depends on the number of frames. Here all five layers are convolutions, the last one too (of 2x2
features by a 2x2 kernel), with weights that oneDNN has rearranged once. One frame takes half the
time, and its result is bitwise the same in a batch of any size, at any place in it and with any
number of torch threads (tests/test_encoder.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodels_fast.envs import FRAME_SIZE
from worldmodels_fast.vae import VAE

__all__ = ["PackedEncoder", "VAEPrecision"]

Floats = npt.NDArray[np.float32]
VAEPrecision = Literal["fp32", "bf16"]

_USUAL_BATCH = 8
"""oneDNN chooses the arrangement of weights for this many frames; any number works."""


@dataclass(frozen=True)
class _Layer:
    """One convolution; its weight is oneDNN's own arrangement if `packed`."""

    weight: Tensor
    bias: Tensor
    stride: int
    relu: bool
    packed: bool

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packed:
            y = F.conv2d(x, self.weight, self.bias, self.stride)
            return F.relu(y) if self.relu else y
        stride = [self.stride, self.stride]
        relu = "relu" if self.relu else "none"
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, [0, 0], stride, [1, 1], 1, relu, [], ""
        )
        return out


class PackedEncoder:
    """Frames in, mu and logvar out, on the CPU.

    Args:
        vae: V; its weights are copied, later changes are not seen.
        precision: of the convolutions, "fp32" or "bf16". In bf16 mu is off by about 1% of the
            standard deviation with which z is sampled anyway; it is faster where the machine
            multiplies bfloat16 natively, and slower elsewhere. The last layer is always fp32.

    Raises:
        ValueError: another precision.
    """

    def __init__(self, vae: VAE, precision: VAEPrecision = "fp32") -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"vae_precision: expected 'fp32' or 'bf16', got {precision!r}")
        self.latent_dim = vae.latent_dim
        self.precision = precision
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        shape = (3, FRAME_SIZE, FRAME_SIZE)  # of a layer's input: channels, rows, columns
        self._layers: list[_Layer] = []
        for convolution in vae.encoder:
            if isinstance(convolution, nn.Conv2d):
                weight, bias = convolution.weight, convolution.bias
                assert bias is not None
                if not self._layers:
                    weight = weight / 255  # so that bytes are its input, exact in bf16 as well
                stride = convolution.stride[0]
                self._layers.append(_layer(weight, bias, stride, True, self._dtype, shape))
                size = (shape[1] - weight.shape[2]) // stride + 1
                shape = (weight.shape[0], size, size)
        heads = torch.cat([vae.mu.weight, vae.logvar.weight])
        biases = torch.cat([vae.mu.bias, vae.logvar.bias])
        self._heads = _layer(heads.view(-1, *shape), biases, 1, False, torch.float32, shape)

    def __call__(self, frames: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Encode frames: uint8 (N, 64, 64, 3), RGB, C-contiguous -> mu, logvar (N, Z)."""
        with torch.inference_mode():
            x = torch.from_numpy(frames).permute(0, 3, 1, 2).to(self._dtype)
            for layer in self._layers:
                x = layer(x)
            heads: Floats = self._heads(x.float()).flatten(1).numpy()
        return heads[:, : self.latent_dim], heads[:, self.latent_dim :]


def _layer(
    weight: Tensor,
    bias: Tensor,
    stride: int,
    relu: bool,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
) -> _Layer:
    """A layer for inputs of this shape, packed where torch has oneDNN."""
    weight, bias = (x.detach().cpu().to(dtype).clone() for x in (weight, bias))
    weight = weight.contiguous(memory_format=torch.channels_last)
    packed = _has_onednn()
    if packed:
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [0, 0], [stride, stride], [1, 1], 1, [_USUAL_BATCH, *shape]
        )
    return _Layer(weight, bias, stride, relu, packed)


def _has_onednn() -> bool:
    """Whether this build of torch can rearrange weights once (what `torch.compile` uses, too)."""
    return hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")

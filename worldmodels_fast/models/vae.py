"""V: the convolutional variational autoencoder, 64x64x3 frame -> latent z (paper, appendix A.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodels_fast import ops
from worldmodels_fast.envs.registry import FRAME_SIZE
from worldmodels_fast.utils.arguments import checked_integer

ENCODED = 1024
"""Features between the convolutions and z: 256 channels of 2x2, and the decoder's first layer."""


class _FirstDeconvolution(nn.ConvTranspose2d):
    """A transposed convolution of a 1x1 image, as a matrix product.

    Same parameters, same result; the general convolution is several times slower here, and this
    one layer would take nearly half of a training step.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, in, 1, 1) to (N, out, k, k), channels last in memory."""
        assert self.bias is not None
        n_in, n_out, rows, columns = self.weight.shape
        weight = self.weight.permute(0, 2, 3, 1).reshape(n_in, rows * columns * n_out)
        out = (x.flatten(1) @ weight).view(-1, rows, columns, n_out) + self.bias
        return out.permute(0, 3, 1, 2)


class VAE(nn.Module):
    """The paper's V. With `latent_dim` 32 it has 4,348,547 parameters, with 64 4,446,915.

    A new V is float32 and on the CPU, whatever torch's defaults are; `.to` moves it.

    Args:
        latent_dim: Z, the size of the latent (CarRacing 32, Doom 64).

    Raises:
        TypeError, ValueError: `latent_dim` is no integer or below 1.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        latent_dim = checked_integer("latent_dim", latent_dim, low=1)
        self.latent_dim = latent_dim
        where: Any = {"device": "cpu", "dtype": torch.float32}
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2, **where),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, **where),
            nn.ReLU(),
            nn.Conv2d(64, 128, 4, stride=2, **where),
            nn.ReLU(),
            nn.Conv2d(128, 256, 4, stride=2, **where),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.mu = nn.Linear(ENCODED, latent_dim, **where)
        self.logvar = nn.Linear(ENCODED, latent_dim, **where)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, ENCODED, **where),
            nn.Unflatten(1, (ENCODED, 1, 1)),
            _FirstDeconvolution(ENCODED, 128, 5, stride=2, **where),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 5, stride=2, **where),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 6, stride=2, **where),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 6, stride=2, **where),
            nn.Sigmoid(),
        )
        # Frames are NHWC, and convolutions on a CPU are fastest with it.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent's distribution for each frame.

        Args:
            frames: uint8 (N, 64, 64, 3) as environments give them, or floating (N, 3, 64, 64) in
                [0, 1].

        Returns:
            mu, logvar: (N, Z) each.

        Raises:
            ValueError: another shape or dtype.
        """
        features = self.encoder(as_images(frames))
        return self.mu(features), self.logvar(features)

    def decode(self, z: Tensor) -> Tensor:
        """Return the frames of latents `z` (N, Z): floating (N, 3, 64, 64) in [0, 1]."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z: expected shape (N, {self.latent_dim}), got {tuple(z.shape)}")
        frames: Tensor = self.decoder(z)
        return frames

    def encoder_weights(self) -> ops.VAEEncoderWeights:
        """Return a copy of the encoder's weights as arrays, for the kernels."""

        def array(parameter: Tensor) -> npt.NDArray[np.float32]:
            return parameter.detach().float().cpu().contiguous().numpy().copy()

        convolutions = [layer for layer in self.encoder if isinstance(layer, nn.Conv2d)]
        heads = torch.cat([self.mu.weight, self.logvar.weight])
        return ops.VAEEncoderWeights(
            conv_weights=tuple(array(layer.weight) for layer in convolutions),
            conv_biases=tuple(
                array(layer.bias) for layer in convolutions if layer.bias is not None
            ),
            head_weight=array(heads.view(len(heads), -1, 2, 2)),
            head_bias=array(torch.cat([self.mu.bias, self.logvar.bias])),
            latent_dim=self.latent_dim,
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, sample z with torch's generator, decode; return (frames, mu, logvar)."""
        mu, logvar = self.encode(frames)
        return self.decode(sample_latent(mu, logvar)), mu, logvar


def as_images(frames: Tensor) -> Tensor:
    """Turn uint8 (N, 64, 64, 3) into float32 (N, 3, 64, 64) in [0, 1]; leave images as they are.

    Raises:
        ValueError: another shape or dtype.
    """
    size = FRAME_SIZE
    if frames.dtype == torch.uint8 and frames.ndim == 4 and frames.shape[1:] == (size, size, 3):
        return frames.permute(0, 3, 1, 2).float() / 255
    if frames.is_floating_point() and frames.ndim == 4 and frames.shape[1:] == (3, size, size):
        return frames
    raise ValueError(
        f"frames: expected uint8 (N, {size}, {size}, 3) or floating (N, 3, {size}, {size}), "
        f"got {frames.dtype} {tuple(frames.shape)}"
    )


def as_frames(images: Tensor) -> Tensor:
    """Turn floating (N, 3, 64, 64) in [0, 1] into uint8 (N, 64, 64, 3)."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def sample_latent(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z ~ N(mu, exp(logvar)), elementwise."""
    noise = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + torch.exp(0.5 * logvar) * noise


def fourth_power_error(images: Tensor, decoded: Tensor) -> Tensor:
    """Return the fourth power of the error, summed over a frame: a mean over the batch.

    Squared errors give the grain of a wall, a thousand pixels that are 0.03 off, more weight than a
    distant fireball, five that are 0.5 off. Their squares give it less.

    Args:
        images: (N, 3, 64, 64) in [0, 1].
        decoded: the same shape.
    """
    return (decoded.float() - images).square().square().sum() / len(images)


def vae_loss(
    images: Tensor, decoded: Tensor, mu: Tensor, logvar: Tensor, kl_tolerance: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Return (reconstruction, KL), whose sum is V's loss.

    Reconstruction is the squared error summed over a frame; the KL of each sample counts at least
    `kl_tolerance` * Z nats, so that a KL below that does not lower the loss. Both are means over
    the batch.

    Args:
        images: (N, 3, 64, 64) in [0, 1].
        decoded: the same shape.
        mu: (N, Z).
        logvar: (N, Z).
        kl_tolerance: free nats for each latent dimension.
    """
    reconstruction = F.mse_loss(decoded.float(), images, reduction="sum") / len(images)
    mu, logvar = mu.float(), logvar.float()
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)
    return reconstruction, kl.clamp_min(kl_tolerance * mu.shape[1]).mean()

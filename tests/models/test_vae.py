import numpy as np
import pytest
import torch
from torch.nn import functional as F

from worldmodels_fast import VAE
from worldmodels_fast.models.vae import (
    _FirstDeconvolution,
    as_frames,
    as_images,
    fourth_power_error,
    sample_latent,
    vae_loss,
)


def frames(n, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(("latent_dim", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_the_papers_parameter_counts(latent_dim, count):
    vae = VAE(latent_dim)
    assert sum(p.numel() for p in vae.parameters() if p.requires_grad) == count


def test_shapes_and_ranges():
    torch.manual_seed(0)
    vae = VAE(7)
    mu, logvar = vae.encode(frames(3))
    assert mu.shape == logvar.shape == (3, 7)
    decoded = vae.decode(mu)
    assert decoded.shape == (3, 3, 64, 64)
    assert decoded.dtype == torch.float32
    assert 0 <= decoded.min() < decoded.max() <= 1
    again, mu_again, logvar_again = vae(frames(3))
    assert again.shape == decoded.shape
    torch.testing.assert_close((mu_again, logvar_again), (mu, logvar))


def test_bytes_and_images_are_the_same_frames():
    vae = VAE(4)
    seen = frames(2)
    images = as_images(seen)
    assert images.shape == (2, 3, 64, 64)
    assert images[1, 2, 10, 20] == seen[1, 10, 20, 2] / 255
    torch.testing.assert_close(vae.encode(seen), vae.encode(images.contiguous()))
    torch.testing.assert_close(as_frames(images), seen)
    assert as_frames(torch.full((1, 3, 64, 64), 1.5)).max() == 255


def test_the_encoder_is_the_papers():
    torch.manual_seed(1)
    vae = VAE(5)
    x = as_images(frames(2))
    for i, channels in ((0, 32), (2, 64), (4, 128), (6, 256)):
        layer = vae.encoder[i]
        assert layer.weight.shape[0] == channels
        assert layer.weight.shape[2:] == (4, 4)
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, stride=2))
    features = x.flatten(1)
    assert features.shape == (2, 1024)
    mu, logvar = vae.encode(frames(2))
    torch.testing.assert_close(mu, features @ vae.mu.weight.T + vae.mu.bias)
    torch.testing.assert_close(logvar, features @ vae.logvar.weight.T + vae.logvar.bias)


def test_the_first_deconvolution_is_a_transposed_convolution():
    torch.manual_seed(2)
    layer = _FirstDeconvolution(6, 4, 5, stride=2).double()
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(3, 6, 1, 1, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    results = []
    for forward in (
        layer,
        lambda x: F.conv_transpose2d(x, layer.weight, layer.bias, stride=2),
    ):
        layer.zero_grad()
        x.grad = None
        out = forward(x)
        (out * weights).sum().backward()
        results.append((out, x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()))
    torch.testing.assert_close(*results)


def test_the_decoder_is_the_papers():
    torch.manual_seed(3)
    vae = VAE(5)
    z = torch.randn(2, 5)
    x = F.linear(z, vae.decoder[0].weight, vae.decoder[0].bias).view(2, 1024, 1, 1)
    for i, (channels, kernel) in ((2, (128, 5)), (4, (64, 5)), (6, (32, 6)), (8, (3, 6))):
        layer = vae.decoder[i]
        assert layer.weight.shape[1:] == (channels, kernel, kernel)
        x = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
        x = torch.sigmoid(x) if i == 8 else F.relu(x)
    torch.testing.assert_close(vae.decode(z), x)


def test_the_loss_is_the_papers():
    rng = np.random.default_rng(0)
    images, decoded = rng.uniform(0, 1, (2, 5, 3, 64, 64))
    mu, logvar = rng.normal(0, 1.5, (2, 5, 8))
    reconstruction, kl = vae_loss(*map(torch.from_numpy, (images, decoded, mu, logvar)))
    squared = ((images - decoded) ** 2).reshape(5, -1).sum(1)
    each = 0.5 * (mu**2 + np.exp(logvar) - logvar - 1).sum(1)
    assert each.min() > 4  # above the floor of 0.5 nats for each of 8 dimensions
    np.testing.assert_allclose(reconstruction, squared.mean(), rtol=1e-5)
    np.testing.assert_allclose(kl, each.mean(), rtol=1e-5)


def test_few_large_errors_outweigh_many_small_ones_in_the_fourth_power():
    images = torch.full((2, 3, 64, 64), 0.5)
    grain, fireball = images.clone(), images.clone()
    grain += 0.03
    fireball[:, :, 10:12, 20:22] = 1.0
    squared = [((images - seen) ** 2).sum().item() / 2 for seen in (grain, fireball)]
    fourth = [fourth_power_error(images, seen).item() for seen in (grain, fireball)]
    assert squared[0] > 3 * squared[1]
    assert fourth[1] > 50 * fourth[0]
    assert fourth[1] == pytest.approx(12 * 0.5**4)


def test_the_kl_has_a_floor_for_each_sample():
    images = torch.zeros(2, 3, 64, 64)
    mu = torch.tensor([[0.1, 0.0], [4.0, 0.0]], requires_grad=True)
    logvar = torch.zeros(2, 2)
    _, kl = vae_loss(images, images, mu, logvar)
    assert kl.item() == pytest.approx((1.0 + 8.0) / 2)  # 0.005 counts as 0.5 * 2
    kl.backward()
    assert mu.grad[0].tolist() == [0, 0]
    assert mu.grad[1, 0] == 2
    _, kl = vae_loss(images, images, mu, logvar, kl_tolerance=0.0)
    assert kl.item() == pytest.approx((0.005 + 8.0) / 2)


def test_sampled_latents():
    mu, logvar = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), -2.0)
    z = sample_latent(mu, logvar, torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(2.0, abs=0.01)
    assert z.std().item() == pytest.approx(np.exp(-1), rel=0.02)
    torch.testing.assert_close(z, sample_latent(mu, logvar, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(2, 64, 64, 3),
        torch.zeros(64, 64, 3, dtype=torch.uint8),
        torch.zeros(2, 96, 96, 3, dtype=torch.uint8),
        torch.zeros(2, 64, 64, 3, dtype=torch.int32),
    ],
)
def test_bad_frames_are_named(bad):
    with pytest.raises(ValueError, match=r"frames: expected uint8 \(N, 64, 64, 3\) .*got torch"):
        VAE(2).encode(bad)


def test_bad_latents_and_sizes_are_named():
    with pytest.raises(ValueError, match=r"z: expected shape \(N, 2\), got \(4, 3\)"):
        VAE(2).decode(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="latent_dim"):
        VAE(0)

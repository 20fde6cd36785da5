import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels_fast import encoder
from worldmodels_fast.encoder import PackedEncoder
from worldmodels_fast.vae import VAE

PRECISIONS = ("fp32", "bf16")


@pytest.fixture(scope="module")
def vae():
    """A V whose weights are larger than at its beginning, so that its latents differ."""
    torch.manual_seed(0)
    model = VAE(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.0
    return model


@pytest.fixture(scope="module")
def frames():
    """Noise and smooth pictures, (12, 64, 64, 3)."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    smooth = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    return np.concatenate([noise, smooth])


def exactly(vae, frames):
    """mu and logvar in float64."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255
    double = VAE(vae.latent_dim).double()
    double.load_state_dict(vae.state_dict())
    with torch.no_grad():
        return [x.numpy() for x in double.encode(images)]


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("bf16", 0.03)])
def test_it_is_v(vae, frames, precision, tolerance, onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr(encoder, "_has_onednn", lambda: False)
    packed = PackedEncoder(vae, precision)(frames)
    for ours, exact in zip(packed, exactly(vae, frames), strict=True):
        assert ours.dtype == np.float32
        assert exact.std() > 0.1
        assert np.abs(ours - exact).max() < tolerance * np.abs(exact).max()


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=20, deadline=None)
@given(places=st.lists(st.integers(0, 11), min_size=1, max_size=40), threads=st.integers(1, 3))
def test_a_latent_does_not_depend_on_the_batch_or_the_threads(
    vae, frames, precision, places, threads
):
    encode = PackedEncoder(vae, precision)
    alone = [encode(frames[place : place + 1]) for place in range(12)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mu, logvar = encode(frames[places])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(mu, np.concatenate([alone[place][0] for place in places]))
    np.testing.assert_array_equal(logvar, np.concatenate([alone[place][1] for place in places]))


def test_later_changes_of_v_are_not_seen(vae, frames):
    copy = VAE(6)
    copy.load_state_dict(vae.state_dict())
    encode = PackedEncoder(copy)
    before = encode(frames)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(encode(frames), before)


def test_another_precision_is_named(vae):
    with pytest.raises(ValueError, match="vae_precision: expected 'fp32' or 'bf16', got 'fp16'"):
        PackedEncoder(vae, "fp16")

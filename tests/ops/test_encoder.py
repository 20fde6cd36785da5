"""The kernel of V's encoder: against torch, the reference, and itself in other batches."""

import dataclasses

import numpy as np
import pytest
import torch
from backends import LEVELS
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels_fast import ops, reference
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.rollout.encoder import PackedEncoder

PRECISIONS = ("fp32", "bf16")
COMBINATIONS = [(level, precision) for level in LEVELS for precision in PRECISIONS]

# Largest difference from float64 as a share of the largest output. The reference rounds as the
# kernel does, but the inputs of its layers are not rounded before, so some go the other way.
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-3}


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


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("bf16", 0.03)])
def test_it_is_v(vae, frames, precision, tolerance):
    packed = PackedEncoder(vae, precision)(frames)
    for ours, exact in zip(packed, exactly(vae, frames), strict=True):
        assert ours.dtype == np.float32
        assert exact.std() > 0.1
        assert np.abs(ours - exact).max() < tolerance * np.abs(exact).max()


def test_the_reference_is_v(vae, frames):
    weights = vae.encoder_weights()
    for ours, exact in zip(
        reference.encode_frames(weights, frames), exactly(vae, frames), strict=True
    ):
        np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="precision: expected 'fp32' or 'bf16', got 'int8'"):
        reference.encode_frames(weights, frames, precision="int8")


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@pytest.mark.parametrize("latent_dim", [1, 6, 8, 32, 64, 67])
def test_parity(frames, latent_dim, backend, precision):
    torch.manual_seed(latent_dim)
    model = VAE(latent_dim)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.0
    weights = model.encoder_weights()
    packed = ops.pack_vae_encoder(weights, backend=backend, precision=precision)
    assert (packed.backend, packed.precision) == (backend, precision)
    assert packed.latent_dim == latent_dim
    got = ops.encode_frames(packed, frames)
    expected = reference.encode_frames(weights, frames, precision=precision)
    for ours, exact in zip(got, expected, strict=True):
        assert ours.shape == (len(frames), latent_dim)
        assert ours.dtype == np.float32
        assert np.abs(ours - exact).max() < TOLERANCE[precision] * np.abs(exact).max()


def test_bf16_is_the_same_numbers_on_every_level_with_fused_multiply_add(vae, frames):
    latents = [
        ops.encode_frames(
            ops.pack_vae_encoder(vae.encoder_weights(), backend=level, precision="bf16"), frames
        )
        for level in LEVELS
        if level != "generic"
    ]
    for other in latents[1:]:
        np.testing.assert_array_equal(other, latents[0])


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
@settings(max_examples=8, deadline=None)
@given(places=st.lists(st.integers(0, 11), min_size=1, max_size=40), threads=st.integers(1, 3))
def test_a_latent_does_not_depend_on_the_batch_or_the_threads(
    vae, frames, backend, precision, places, threads
):
    alone = PackedEncoder(vae, precision, backend=backend)
    each = [alone(frames[place : place + 1]) for place in range(12)]
    together = PackedEncoder(vae, precision, backend=backend, threads=threads)(frames[places])
    for part in range(2):
        np.testing.assert_array_equal(
            together[part], np.concatenate([each[place][part] for place in places])
        )


def test_auto_is_bf16_where_the_machine_multiplies_it(vae, frames):
    for level in LEVELS:
        encode = PackedEncoder(vae, "auto", backend=level)
        assert encode.precision == ("bf16" if level == "avx512_bf16" else "fp32")
        same = PackedEncoder(vae, encode.precision, backend=level)
        np.testing.assert_array_equal(encode(frames), same(frames))


def test_arrays_in_arrays_of_the_same_kind_out(vae, frames):
    weights = vae.encoder_weights()
    expected = ops.encode_frames(ops.pack_vae_encoder(weights), frames)
    got = ops.encode_frames(weights, torch.from_numpy(frames))
    assert all(isinstance(x, torch.Tensor) for x in got)
    np.testing.assert_array_equal(torch.stack(got).numpy(), np.stack(expected))


def test_bad_input_is_named(vae, frames):
    weights = vae.encoder_weights()
    packed = ops.pack_vae_encoder(weights)
    for bad, error, message in [
        (
            frames.astype(np.float32),
            TypeError,
            "frames: expected a uint8 array .*got dtype float32",
        ),
        (frames[0], ValueError, r"frames: .*\(N, 64, 64, 3\).*got shape \(64, 64, 3\)"),
        (frames[:0], ValueError, "no axis of size 0"),
        (frames[:, ::-1], ValueError, "in C order"),
        (frames[:, :32], ValueError, "got shape"),
        (None, TypeError, "frames: expected a uint8 array"),
        (torch.from_numpy(frames).float(), TypeError, r"frames.to\(torch.uint8\)"),
    ]:
        with pytest.raises(error, match=message):
            ops.encode_frames(packed, bad)
    with pytest.raises(ValueError, match="threads"):
        ops.encode_frames(packed, frames, threads=0)
    for change, message in [
        ({"latent_dim": 5}, r"head_weight: expected .*\(10, 256, 2, 2\)"),
        ({"conv_biases": weights.conv_biases[:3]}, "expected 4 of each, got 4 and 3"),
        ({"conv_weights": weights.conv_weights[::-1]}, "conv1_weight: expected"),
        ({"head_bias": weights.head_bias * np.nan}, "head_bias: expected finite numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.pack_vae_encoder(dataclasses.replace(weights, **change))
    with pytest.raises(
        ValueError, match=r"precision: expected 'fp32', 'bf16' or 'auto', got 'int8'"
    ):
        ops.pack_vae_encoder(weights, precision="int8")
    with pytest.raises(ValueError, match="backend: expected"):
        ops.pack_vae_encoder(weights, backend="sse9")


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
    with pytest.raises(ValueError, match="vae_precision: expected 'fp32', 'bf16' or 'auto', got"):
        PackedEncoder(vae, "fp16")

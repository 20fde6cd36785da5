"""Weights of M and V, rearranged once into the order in which the kernels read them."""

from __future__ import annotations

import sys
from typing import Any

from worldmodels_fast import _core
from worldmodels_fast._core import DeviceArray, PackedMDNRNN, PackedVAEEncoder
from worldmodels_fast.ops.backends import (
    cuda_device_of,
    cuda_index,
    encoder_backend,
    resolve_precision,
)
from worldmodels_fast.ops.types import MDNRNNWeights, VAEEncoderWeights
from worldmodels_fast.utils.arguments import checked_integer


def pack_mdn_rnn(
    weights: MDNRNNWeights,
    *,
    backend: str | None = None,
    precision: str = "fp32",
    device: str | None = None,
) -> PackedMDNRNN:
    """Rearrange the weights of M once, into the order in which the kernels read them.

    The precision is that of the operands of the LSTM's and the head's matrix products: weights, h,
    z, action and restart. Sums, the cell state, logits, the done logit, the reward, the controller
    and sampling are float32 whatever it is. Every level of the CPU computes "fp32", "bf16" and
    "int8"; the last two are faster where the machine has instructions for them ("avx512_bf16").
    "cuda" computes "fp32" and "fp16".

    Args:
        weights: the parameters; they are copied.
        backend: one of `available_backends()`; None is that of `device`, or `default_backend()`.
        precision: "fp32"; "fp16", rounded to half precision, up to +-65504; "bf16", rounded to
            bfloat16; "int8", h and its weights rounded to 8 bits (weights with a scale per output),
            the other inputs to multiples of 1/64 up to +-64, and their weights to 16 bits; "auto",
            "fp16" on "cuda", "bf16" where the backend has instructions for it, "fp32" elsewhere;
            "fastest", the same with "int8" for "bf16"; see `resolve_precision`.
        device: "cpu"; "cuda", the first device that can be used, "cuda:0", "cuda:1", ...; None for
            that of the backend.

    Returns:
        A native object for `mdn_rnn_step` and `dream_rollout`, with the attributes backend, device,
        precision, nbytes, latent_dim, action_dim, hidden_dim, n_mixtures, predicts_done and
        predicts_reward.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, a weight that is not finite, a
            backend or device that cannot run here, a precision that is unknown or not the
            backend's.
        MemoryError: the device's memory does not suffice.
    """
    index = cuda_index(device) if device is not None else None
    if device is not None and backend is None and index is not None:
        backend = "cuda"
    level = _core.backend_name(backend or "")
    if device is not None and (level == "cuda") != (index is not None):
        raise ValueError(f"device: expected one of backend {level!r}, got {device!r}")
    precision = resolve_precision(precision, "mdn_rnn", level)
    if level == "cuda":
        for name in ("weight_ih", "weight_hh", "bias", "head_weight", "head_bias"):
            _check_finite(name, getattr(weights, name))
    return PackedMDNRNN(
        weight_ih=weights.weight_ih,
        weight_hh=weights.weight_hh,
        bias=weights.bias,
        head_weight=weights.head_weight,
        head_bias=weights.head_bias,
        latent_dim=checked_integer("latent_dim", weights.latent_dim, low=1),
        action_dim=checked_integer("action_dim", weights.action_dim, low=1),
        hidden_dim=checked_integer("hidden_dim", weights.hidden_dim, low=1),
        n_mixtures=checked_integer("n_mixtures", weights.n_mixtures, low=1),
        predicts_done=bool(weights.predicts_done),
        predicts_reward=bool(weights.predicts_reward),
        backend=level,
        precision=precision,
        device=-1 if index is None else index,
    )


def pack_vae_encoder(
    weights: VAEEncoderWeights, *, backend: str | None = None, precision: str = "fp32"
) -> PackedVAEEncoder:
    """Rearrange the weights of V's encoder once, into the order in which the kernels read them.

    Args:
        weights: the parameters; they are copied.
        backend: a level of the CPU, see `available_backends()`; None for the fastest one, or for
            WMF_BACKEND where that is one.
        precision: of the convolutions' weights and inputs: "fp32"; "bf16", rounded to bfloat16;
            "auto", "bf16" where the backend has instructions for it, "fp32" elsewhere. Sums and the
            last layer are float32 whatever it is.

    Returns:
        A native object for `encode_frames`, with the attributes backend, precision, nbytes and
        latent_dim.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, a weight that is not finite,
            another precision, a backend that is unknown or cannot run here.
    """
    level = encoder_backend(backend)
    precision = resolve_precision(precision, "vae_encoder", level)
    convolutions = len(weights.conv_weights), len(weights.conv_biases)
    if convolutions != (4, 4):
        raise ValueError(
            f"conv_weights, conv_biases: expected 4 of each, got {convolutions[0]} and "
            f"{convolutions[1]}"
        )
    return PackedVAEEncoder(
        weights=[*weights.conv_weights, weights.head_weight],
        biases=[*weights.conv_biases, weights.head_bias],
        latent_dim=checked_integer("latent_dim", weights.latent_dim, low=1),
        backend=level,
        precision=precision,
    )


def _check_finite(name: str, weight: Any) -> None:
    """Refuse a weight on a device that is not finite; the extension checks those of the host."""
    if cuda_device_of(weight) is None or isinstance(weight, DeviceArray):
        return
    library = sys.modules[type(weight).__module__.partition(".")[0]]
    numpy_like = library if hasattr(library, "isfinite") else weight.__array_namespace__()
    if not bool(numpy_like.isfinite(weight).all()):
        raise ValueError(f"{name}: expected finite numbers; did the training diverge?")

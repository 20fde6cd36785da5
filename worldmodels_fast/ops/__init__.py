"""The native kernels: V's encoder, a step of M and the draws after it, C, whole dreams.

This package alone imports the extension. Arrays are float32 and C-contiguous, of NumPy,
torch, or any library with DLPack or __cuda_array_interface__ (CuPy, JAX, Numba); results are of the
kind that went in. Nothing is copied or cast silently: an array of the wrong kind is an error that
names it, what was expected, what came, and what to do.

All arrays of a call are on one device, and it computes there. On a CUDA device it only enqueues its
work, in the current stream of the first array's library (torch, CuPy; the default stream for
others), and does not wait; for JAX the rules of DLPack for streams hold. The one exception: arrays
of the host given to a model that is packed for "cuda", or to an operation with backend "cuda", are
copied to the device and the results back, and the call waits for them. The values in a device array
are not checked, so NaN in it is no error. The draws of the end and of first latents
(`done_sample`, `initial_latents`) take arrays of the host alone.

`worldmodels_fast.reference` holds the same functions in plain NumPy float64.

Axes: N rows (rollouts), P members of a population, R rollouts per member, Z latent, A action, H
hidden, K mixture components, I stored first latents.
"""

from __future__ import annotations

import os

try:
    from worldmodels_fast._core import DeviceArray, PackedMDNRNN, PackedVAEEncoder
except ImportError as error:
    raise ImportError(
        f"worldmodels_fast was imported from {os.path.dirname(os.path.dirname(__file__))}, where "
        "its compiled extension is not: this is the source folder, and a package that is installed "
        "elsewhere cannot be seen from it. Install with `pip install -e .`, or leave this folder."
    ) from error

from worldmodels_fast.ops.backends import (
    available_backends,
    cuda_kernels,
    cuda_status,
    default_backend,
    device_of,
    resolve_precision,
    to_device,
    why_no_cuda,
)
from worldmodels_fast.ops.kernels import (
    controller_forward,
    done_sample,
    dream_rollout,
    encode_frames,
    initial_latents,
    mdn_rnn_step,
    mixture_sample,
    plan_dream,
)
from worldmodels_fast.ops.limits import peak_rate, read_rate, shared_rate
from worldmodels_fast.ops.packing import pack_mdn_rnn, pack_vae_encoder
from worldmodels_fast.ops.raster import box_resize, car_racing_renderer
from worldmodels_fast.ops.types import (
    ENCODER_PRECISIONS,
    PRECISIONS,
    ControllerSpec,
    MDNRNNStep,
    MDNRNNWeights,
    VAEEncoderWeights,
)

__all__ = [
    "ENCODER_PRECISIONS",
    "PRECISIONS",
    "ControllerSpec",
    "DeviceArray",
    "MDNRNNStep",
    "MDNRNNWeights",
    "PackedMDNRNN",
    "PackedVAEEncoder",
    "VAEEncoderWeights",
    "available_backends",
    "box_resize",
    "car_racing_renderer",
    "controller_forward",
    "cuda_kernels",
    "cuda_status",
    "default_backend",
    "device_of",
    "done_sample",
    "dream_rollout",
    "encode_frames",
    "initial_latents",
    "mdn_rnn_step",
    "mixture_sample",
    "pack_mdn_rnn",
    "pack_vae_encoder",
    "peak_rate",
    "plan_dream",
    "read_rate",
    "resolve_precision",
    "shared_rate",
    "to_device",
    "why_no_cuda",
]

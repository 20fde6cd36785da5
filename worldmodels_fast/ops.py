"""The native kernels: V's encoder, a step of M, a tempered sample, the controller, whole dreams.

This is the only module that imports the extension. Arrays are float32 and C-contiguous, of NumPy,
torch, or any library with DLPack or __cuda_array_interface__ (CuPy, JAX, Numba); what comes out is
of the kind that went in. Nothing is copied or cast silently: an array of the wrong kind is an error
that says which one, what was expected, what came, and what to do.

All arrays of a call are on one device, and it computes there. On a CUDA device it only enqueues its
work, in the current stream of the first array's library (torch, CuPy; the default stream for
others), and does not wait; what DLPack says of streams holds for JAX. The one exception: arrays of
the host given to a model that is packed for "cuda", or to an operation with backend "cuda", are
copied to the device and the results back, and the call waits for them. What a device array holds
is not looked at, so NaN in it is no error.

`worldmodels_fast.reference` holds the same functions in plain NumPy float64.

Axes: N rows (rollouts), P members of a population, R rollouts per member, Z latent, A action, H
hidden, K mixture components, I stored first latents.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

try:
    from worldmodels_fast import _core
    from worldmodels_fast._core import DeviceArray, PackedMDNRNN, PackedVAEEncoder
except ImportError as error:
    raise ImportError(
        f"worldmodels_fast was imported from {os.path.dirname(__file__)}, where its compiled "
        "extension is not: this is the source folder, and a package that is installed elsewhere "
        "cannot be seen from it. Install with `pip install -e .`, or leave this folder."
    ) from error

if TYPE_CHECKING:
    import torch

    from worldmodels_fast._core import CarRacingRenderer

__all__ = [
    "ControllerSpec",
    "DeviceArray",
    "MDNRNNStep",
    "MDNRNNWeights",
    "PackedMDNRNN",
    "PackedVAEEncoder",
    "VAEEncoderWeights",
    "available_backends",
    "car_racing_renderer",
    "controller_forward",
    "cuda_kernels",
    "cuda_status",
    "default_backend",
    "device_of",
    "dream_rollout",
    "encode_frames",
    "mdn_rnn_step",
    "mixture_sample",
    "pack_mdn_rnn",
    "pack_vae_encoder",
    "peak_rate",
    "plan_dream",
    "read_rate",
    "shared_rate",
    "to_device",
    "why_no_cuda",
]

FloatArray = npt.NDArray[np.float32]


class SupportsDLPack(Protocol):
    """An array of another library: CuPy's, JAX's, or our own `DeviceArray`."""

    def __dlpack__(self) -> Any:
        """Return a capsule that shows the array's memory."""

    def __dlpack_device__(self) -> Any:
        """Return (kind, number) of the device that it is on."""


ArrayT = TypeVar("ArrayT", FloatArray, "torch.Tensor", SupportsDLPack)
"""A float32 array of any library; what comes out is of the kind that went in."""

FEATURES = ("z", "h", "c")

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "auto", "fastest")
"""Number formats of the matrix products' operands, and the choice among them: `pack_mdn_rnn`."""


@dataclass(frozen=True)
class MDNRNNWeights:
    """The parameters of M as plain float32 C-contiguous arrays (NumPy or torch).

    Gate order i, f, g, o (PyTorch's). The forget gate's bias already holds the +1 of TensorFlow's
    cell. Rows of the head: the done logit if `predicts_done`, the reward if `predicts_reward`, then
    for every latent dimension [logmix x K | mu x K | logstd x K].

    Attributes:
        weight_ih: (4H, X), X = Z + A (+ 1 if predicts_done); input order [z, action, restart].
        weight_hh: (4H, H).
        bias: (4H,).
        head_weight: (O, H), O = 3 * K * Z (+ 1 if predicts_done) (+ 1 if predicts_reward).
        head_bias: (O,).
        latent_dim: Z.
        action_dim: A.
        hidden_dim: H.
        n_mixtures: K.
        predicts_done: whether the head has a done logit and the input a restart flag.
        predicts_reward: whether the head has the expected reward of the step.
    """

    weight_ih: Any
    weight_hh: Any
    bias: Any
    head_weight: Any
    head_bias: Any
    latent_dim: int
    action_dim: int
    hidden_dim: int
    n_mixtures: int
    predicts_done: bool
    predicts_reward: bool = False


@dataclass(frozen=True)
class VAEEncoderWeights:
    """The parameters of V's encoder as plain float32 C-contiguous arrays (NumPy or torch).

    Four convolutions (PyTorch's layout, stride 2, no padding, a ReLU after each) and the heads.

    Attributes:
        conv_weights: (32, 3, 4, 4), (64, 32, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4).
        conv_biases: (32,), (64,), (128,), (256,).
        head_weight: (2Z, 256, 2, 2), rows of mu and then of logvar.
        head_bias: (2Z,).
        latent_dim: Z.
    """

    conv_weights: tuple[Any, ...]
    conv_biases: tuple[Any, ...]
    head_weight: Any
    head_bias: Any
    latent_dim: int


@dataclass(frozen=True)
class ControllerSpec:
    """What a flat vector of controller parameters means.

    action = clip(scale * tanh(y) + shift, low, high), y = b + x W, x = the features concatenated in
    order. Flat layout: [b (A) if bias, W (inputs x A) row-major]. With hidden_units = U > 0 a tanh
    layer comes first: [b1 (U), W1 (inputs x U), b2 (A), W2 (U x A)], the biases only if bias.

    Attributes:
        features: which of "z", "h", "c" the controller sees, in the order of concatenation.
        latent_dim: Z.
        hidden_dim: H.
        action_dim: A.
        bias: whether the layers have biases.
        hidden_units: U, or 0 for a linear controller.
        scale: per action, default 1.
        shift: per action, default 0.
        low: per action, default -1.
        high: per action, default 1.
    """

    features: tuple[str, ...]
    latent_dim: int
    hidden_dim: int
    action_dim: int
    bias: bool
    hidden_units: int = 0
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Fill in the default squash and check every field."""
        features = tuple(self.features)
        if (
            not features
            or len(set(features)) != len(features)
            or not set(features) <= set(FEATURES)
        ):
            raise ValueError(
                "features: expected a non-empty choice of 'z', 'h', 'c', each at most once; "
                f"got {features!r}"
            )
        for name in ("latent_dim", "hidden_dim", "action_dim"):
            _integer(name, getattr(self, name), low=1)
        _integer("hidden_units", self.hidden_units, low=0)
        object.__setattr__(self, "features", features)
        for name, default in (("scale", 1.0), ("shift", 0.0), ("low", -1.0), ("high", 1.0)):
            values = tuple(float(v) for v in getattr(self, name)) or (default,) * self.action_dim
            if len(values) != self.action_dim or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"{name}: expected {self.action_dim} finite numbers (one per action), "
                    f"got {values}; leave it out for the default"
                )
            object.__setattr__(self, name, values)
        if any(lo > hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise ValueError(
                f"low, high: expected low <= high, got low={self.low}, high={self.high}"
            )

    @functools.cached_property
    def _native(self) -> _core.Controller:
        """What the kernels read, made at the first use."""
        return _core.Controller(
            "".join(self.features),
            self.latent_dim,
            self.hidden_dim,
            self.action_dim,
            bool(self.bias),
            self.hidden_units,
            list(self.scale),
            list(self.shift),
            list(self.low),
            list(self.high),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be pickled and is made again."""
        return {name: value for name, value in vars(self).items() if name != "_native"}

    @property
    def n_inputs(self) -> int:
        """How many numbers the controller sees."""
        return sum(self.latent_dim if name == "z" else self.hidden_dim for name in self.features)

    @property
    def n_params(self) -> int:
        """Length of the flat parameter vector."""
        sizes = [self.n_inputs, self.action_dim]
        if self.hidden_units > 0:
            sizes.insert(1, self.hidden_units)
        return sum((n_in + self.bias) * n_out for n_in, n_out in itertools.pairwise(sizes))


class MDNRNNStep(NamedTuple, Generic[ArrayT]):
    """What one step of M returns; float32, of the kind (NumPy or torch) that went in."""

    logmix: ArrayT
    """(N, Z, K), unnormalised"""
    mu: ArrayT
    """(N, Z, K)"""
    logstd: ArrayT
    """(N, Z, K)"""
    done_logit: ArrayT | None
    """(N,), None if M does not predict the end of a rollout"""
    h: ArrayT
    """(N, H)"""
    c: ArrayT
    """(N, H)"""
    reward: ArrayT | None = None
    """(N,), expected, in the environment's units; None if M does not predict the reward"""


@functools.cache
def available_backends() -> tuple[str, ...]:
    """Return what this build has and this machine can run.

    The levels of the CPU, the fastest last, and then "cuda" if a device can be used.
    """
    return tuple(_core.available_backends())


def default_backend() -> str:
    """Return the backend used where none is given: WMF_BACKEND if set, else the fastest level.

    Arrays and models on a CUDA device are computed there whatever it is.

    Raises:
        ValueError: WMF_BACKEND names a backend that is unknown or that this machine cannot run.
    """
    return _core.backend_name("")


def why_no_cuda() -> str:
    """Say in words why "cuda" cannot run here: not built, no driver, no device; "" if it can."""
    return _core.why_no_cuda()


def cuda_status() -> dict[str, Any]:
    """Describe the CUDA devices.

    Returns:
        built: whether this build has kernels for them; driver and runtime: CUDA versions, 13000 is
        13.0, 0 for none; devices: a list of index, name, sm (90 is compute capability 9.0),
        processors, memory in bytes, and reason, why it cannot be used, "" if it can; reason: see
        `why_no_cuda`.
    """
    return _core.cuda_status()


def cuda_kernels(device: str = "cuda") -> list[dict[str, Any]]:
    """Return name, registers and local_bytes (spills) of the kernels for a device, per thread.

    Raises:
        ValueError: no such device.
    """
    return _core.cuda_kernels(_cuda_number(device))


def device_of(array: Any) -> str:
    """Return where an array is: "cpu", or "cuda:0" or the like; "cpu" for what is no array."""
    return _cuda_device_of(array) or "cpu"


def to_device(array: npt.NDArray[Any], device: str = "cuda") -> DeviceArray:
    """Copy a NumPy array to a CUDA device without any other library.

    Args:
        array: float32 or int32, any shape, C-contiguous.
        device: "cuda", the first that can be used, or "cuda:0", "cuda:1", ...; also "cpu".

    Returns:
        An array that every function here takes, with shape, dtype, device, numpy() to copy it
        back, and DLPack and __cuda_array_interface__ for other libraries.

    Raises:
        TypeError, ValueError: another dtype or layout, or no such device.
        MemoryError: the device's memory does not suffice.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array: expected a NumPy array, got {type(array).__name__}")
    index = _cuda_index(device)
    return DeviceArray(array, -1 if index is None else _core.cuda_device(index))


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
            "fastest", the same with "int8" for "bf16".
        device: "cpu"; "cuda", the first device that can be used, "cuda:0", "cuda:1", ...; None for
            what the backend says.

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
    index = _cuda_index(device) if device is not None else None
    if device is not None and backend is None and index is not None:
        backend = "cuda"
    level = _core.backend_name(backend or "")
    if device is not None and (level == "cuda") != (index is not None):
        raise ValueError(f"device: expected one of backend {level!r}, got {device!r}")
    if precision == "auto":
        precision = {"cuda": "fp16", "avx512_bf16": "bf16"}.get(level, "fp32")
    elif precision == "fastest":
        precision = {"cuda": "fp16", "avx512_bf16": "int8"}.get(level, "fp32")
    if level == "cuda":
        for name in ("weight_ih", "weight_hh", "bias", "head_weight", "head_bias"):
            _check_finite(name, getattr(weights, name))
    return PackedMDNRNN(
        weight_ih=weights.weight_ih,
        weight_hh=weights.weight_hh,
        bias=weights.bias,
        head_weight=weights.head_weight,
        head_bias=weights.head_bias,
        latent_dim=_integer("latent_dim", weights.latent_dim, low=1),
        action_dim=_integer("action_dim", weights.action_dim, low=1),
        hidden_dim=_integer("hidden_dim", weights.hidden_dim, low=1),
        n_mixtures=_integer("n_mixtures", weights.n_mixtures, low=1),
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
    level = backend or default_backend()
    if level == "cuda" and backend is None:
        level = next(name for name in reversed(available_backends()) if name != "cuda")
    if precision == "auto":
        precision = "bf16" if level == "avx512_bf16" else "fp32"
    convolutions = len(weights.conv_weights), len(weights.conv_biases)
    if convolutions != (4, 4):
        raise ValueError(
            f"conv_weights, conv_biases: expected 4 of each, got {convolutions[0]} and "
            f"{convolutions[1]}"
        )
    return PackedVAEEncoder(
        weights=[*weights.conv_weights, weights.head_weight],
        biases=[*weights.conv_biases, weights.head_bias],
        latent_dim=_integer("latent_dim", weights.latent_dim, low=1),
        backend=level,
        precision=precision,
    )


def encode_frames(
    model: PackedVAEEncoder | VAEEncoderWeights, frames: Any, *, threads: int = 1
) -> tuple[Any, Any]:
    """Let V see N frames, on the CPU.

    Every frame's result is bitwise the same whatever N, its place, and `threads`.

    Args:
        model: packed weights, or plain weights, which are then packed for this call only.
        frames: (N, 64, 64, 3) uint8, RGB (NumPy, torch, ...).
        threads: over which the frames are spread.

    Returns:
        mu, logvar (N, Z) float32 of the latent's normal distribution, of the kind of `frames`.

    Raises:
        TypeError: frames that are not uint8.
        ValueError: a wrong shape, an array that is not C-contiguous, threads < 1.
    """
    if isinstance(model, VAEEncoderWeights):
        model = pack_vae_encoder(model)
    results = _core.encode_frames(model, frames, _integer("threads", threads, low=1))
    like: Any = _output_kind(frames)
    mu, logvar = (like(x) for x in results)
    return mu, logvar


def mdn_rnn_step(
    model: PackedMDNRNN | MDNRNNWeights,
    z: ArrayT,
    action: ArrayT,
    h: ArrayT,
    c: ArrayT,
    restart: ArrayT | None = None,
    *,
    threads: int = 1,
    out: MDNRNNStep[ArrayT] | None = None,
) -> MDNRNNStep[ArrayT]:
    """Run one LSTM step and the mixture density head, for N independent rows.

    Every row's result is bitwise the same whatever N, its place, and `threads`.

    Args:
        model: packed weights, or plain weights, which are then packed for this call only.
        z: (N, Z) latent.
        action: (N, A).
        h: (N, H) hidden state before the step.
        c: (N, H) cell state before the step.
        restart: (N,), 1 on the first step of a rollout, else 0; None means all 0. Only if the model
            predicts the end of a rollout.
        threads: of the CPU, over which the rows are spread.
        out: where to write the results, an earlier result for the same N for instance; out.h and
            out.c may be h and c themselves. None makes new arrays.

    Returns:
        MDNRNNStep: logmix, mu, logstd (N, Z, K), done_logit (N,) or None, h, c (N, H), reward (N,)
        or None; `out` if that was given.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, threads < 1, an array of `out`
            that is read-only or overlaps another one, or that is for what the model does not
            predict.
    """
    results = _core.mdn_rnn_step(
        model if type(model) is PackedMDNRNN else _packed(model, z),
        z,
        action,
        h,
        c,
        restart,
        _integer("threads", threads, low=1),
        None if out is None else _step_arrays(out),
    )
    if out is not None:
        return out
    like: Any = _output_kind(z, action, h, c, restart)
    return MDNRNNStep(*(None if x is None else like(x) for x in results))


def mixture_sample(
    logmix: ArrayT,
    mu: ArrayT,
    logstd: ArrayT,
    temperature: float,
    *,
    seed: int = 0,
    rollout: int = 0,
    step: int = 0,
    backend: str | None = None,
    out: ArrayT | None = None,
) -> ArrayT:
    """Draw the next latent from one mixture of normals per dimension, at a temperature.

    pi = softmax(logmix / tau);  k ~ pi;  z' = mu_k + exp(min(logstd_k, 10)) * sqrt(tau) * normal

    The noise depends on (seed, rollout, step, dimension) only, so the result is bitwise the same on
    every backend and for every way of cutting the rows into calls.

    Args:
        logmix: (N, Z, K), unnormalised.
        mu: (N, Z, K).
        logstd: (N, Z, K).
        temperature: tau > 0.
        seed: 0 <= seed < 2**64.
        rollout: id of row 0; row n has id rollout + n, all below 2**32.
        step: 0 <= step < 2**32.
        backend: one of `available_backends()`; None computes where the arrays are, on the CPU with
            `default_backend()`.
        out: (N, Z), where to write the result; None makes a new array.

    Returns:
        z (N, Z); `out` if that was given.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, a number out of its range, an
            `out` that is read-only or overlaps an input.
    """
    z = _core.mixture_sample(
        logmix,
        mu,
        logstd,
        _temperature(temperature),
        _integer("seed", seed, low=0, high=2**64),
        _integer("rollout", rollout, low=0, high=2**32),
        _integer("step", step, low=0, high=2**32),
        backend or "",
        out,
    )
    if out is not None:
        return out
    return cast("ArrayT", _output_kind(logmix, mu, logstd)(z))


def controller_forward(
    spec: ControllerSpec,
    params: ArrayT,
    z: ArrayT | None,
    h: ArrayT | None = None,
    c: ArrayT | None = None,
    *,
    backend: str | None = None,
    out: ArrayT | None = None,
) -> ArrayT:
    """Compute the actions of P controllers, each on its own N / P rows.

    Args:
        spec: how a flat parameter vector is read.
        params: (P, n_params); row n uses params[n // (N // P)].
        z: (N, Z), if it is among spec.features; None otherwise will do.
        h: (N, H), likewise.
        c: (N, H), likewise.
        backend: one of `available_backends()`; None computes where the arrays are, on the CPU with
            `default_backend()`.
        out: (N, A), where to write the result; None makes a new array.

    Returns:
        action (N, A); `out` if that was given.

    Raises:
        TypeError: an array is not float32.
        ValueError: a feature is missing, a wrong shape, an array that is not C-contiguous, N not a
            multiple of P, an `out` that is read-only or overlaps an input.
    """
    features = spec.features
    action = _core.controller_forward(
        spec._native,
        params,
        _feature("z", z) if "z" in features else None,
        _feature("h", h) if "h" in features else None,
        _feature("c", c) if "c" in features else None,
        backend or "",
        out,
    )
    if out is not None:
        return out
    return cast("ArrayT", _output_kind(params, z, h, c)(action))


def dream_rollout(
    model: PackedMDNRNN | MDNRNNWeights,
    spec: ControllerSpec,
    params: ArrayT,
    initial_mu: ArrayT,
    initial_logvar: ArrayT,
    *,
    rollouts: int,
    seed: int,
    temperature: float,
    max_steps: int,
    done_threshold: float = 0.0,
    done_temperature: float = 0.0,
    common_noise: bool = True,
    threads: int | None = None,
    plan: tuple[int, int] = (0, 0),
) -> tuple[Any, Any]:
    """Run every member of a population in the dream, R rollouts each, in one native call.

    Step t of a rollout: a_t = C(z_t, h_t, c_t), then (h, c) = LSTM([z_t, a_t, restart = (t == 0)]),
    the head, and z_{t+1} by `mixture_sample`; the reward is the head's, or 1 if the model predicts
    none. The rollout ends when done_logit > done_threshold (or by chance, see done_temperature) or
    after max_steps; its return is the sum of the rewards in float32, step by step, the last
    included. h_0 = c_0 = 0; z_0 = mu[i] + exp(logvar[i] / 2) * normal with i and the normals from
    the noise.

    The result is bitwise the same for every number of threads and, with common_noise, every way of
    cutting the population into calls. Ctrl-C is answered within a second.

    Args:
        model: packed weights, or plain weights, which are then packed for this call only.
        spec: how a flat parameter vector is read.
        params: (P, n_params), finite.
        initial_mu: (I, Z) means of the stored first latents.
        initial_logvar: (I, Z) log variances of the stored first latents.
        rollouts: R, rollouts per member.
        seed: 0 <= seed < 2**64.
        temperature: tau > 0.
        max_steps: a rollout ends after so many steps at the latest.
        done_threshold: a rollout ends when the done logit is above it; has no effect if the model
            does not predict the end of a rollout.
        done_temperature: 0, or else a rollout ends with probability sigmoid((done_logit -
            done_threshold) / done_temperature). At 1, with the threshold log(w) that undoes a
            weight w of the ends in M's training, ends are as frequent as M believes them to be.
        common_noise: rollout r of every member sees the same noise and first latent (common random
            numbers); otherwise every rollout of the call has its own.
        threads: None uses every core this process may run on.
        plan: only on CUDA, for benchmarks and tests: (thread blocks that step the same rollouts
            together, rollouts that they step at a time), 0 to let it choose. Results do not depend
            on it, bit for bit.

    Returns:
        returns (P, R) float32, in the environment's units, which are the lengths if the model
        predicts no reward; lengths (P, R) int32, steps.

    Raises:
        TypeError: an array is not float32.
        ValueError: a wrong shape, an array that is not C-contiguous, a value that is not finite, a
            number out of its range.
        KeyboardInterrupt: Ctrl-C; the dream is given up.
        MemoryError: the device's memory does not suffice.
        RuntimeError: the device was lost; only a new process can use it again.
    """
    if math.isnan(done_threshold):
        raise ValueError("done_threshold: expected a number, got nan")
    if not 0 <= done_temperature <= 3.4e38:
        raise ValueError(
            f"done_temperature: expected a finite number from 0, got {done_temperature!r}"
        )
    group, slots = plan
    returns, lengths = _core.dream_rollout(
        _packed(model, params),
        spec._native,
        params,
        initial_mu,
        initial_logvar,
        rollouts=_integer("rollouts", rollouts, low=1),
        seed=_integer("seed", seed, low=0, high=2**64),
        temperature=_temperature(temperature),
        max_steps=_integer("max_steps", max_steps, low=1),
        done_threshold=float(done_threshold),
        done_temperature=float(done_temperature),
        common_noise=bool(common_noise),
        threads=_default_threads() if threads is None else _integer("threads", threads, low=1),
        plan=(_integer("plan", group, low=0), _integer("plan", slots, low=0)),
    )
    like: Any = _output_kind(params, initial_mu, initial_logvar)
    return like(returns), like(lengths)


def plan_dream(
    model: PackedMDNRNN,
    spec: ControllerSpec,
    members: int,
    rollouts: int,
    plan: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """Return the (group, slots) that `dream_rollout` would choose on the model's CUDA device.

    Args:
        model: packed for "cuda".
        spec: how a flat parameter vector is read.
        members: P.
        rollouts: R, rollouts per member.
        plan: what is chosen already, 0 for what is not.

    Raises:
        ValueError: a model that is packed for the CPU, or a plan that the device cannot follow.
    """
    members, rollouts = (
        _integer(name, n, low=1) for name, n in (("members", members), ("rollouts", rollouts))
    )
    group, slots = plan
    return _core.plan_dream(model, spec._native, members, rollouts, (group, slots))


def peak_rate(
    precision: str = "fp32", *, backend: str | None = None, threads: int = 1, seconds: float = 0.05
) -> float:
    """Measure how many operations per second this machine multiplies at, in registers alone.

    What a kernel of this precision can reach at most, and what benchmarks give fractions of.

    Args:
        precision: "fp32", "fp16", "bf16" or "int8", as the backend has it; see `pack_mdn_rnn`.
        backend: one of `available_backends()`; None is `default_backend()`.
        threads: how many threads of the CPU multiply at once; on CUDA it is the whole device.
        seconds: for how long; the best of many short stretches counts.

    Returns:
        Operations per second, all threads together; a multiply-add is two.

    Raises:
        ValueError: an unknown precision or backend, threads < 1, seconds not above 0.
    """
    threads = _integer("threads", threads, low=1)
    return _core.peak_rate(precision, backend or "", threads, _seconds(seconds))


def read_rate(
    nbytes: int, *, backend: str | None = None, threads: int = 1, seconds: float = 0.05
) -> float:
    """Measure how fast this machine reads nbytes of memory over and over.

    Args:
        nbytes: per thread, each has its own; what fits into a cache is read from there. On CUDA all
            multiprocessors read the same nbytes, as they do with a model's weights.
        backend: one of `available_backends()`; None is `default_backend()`.
        threads: how many threads of the CPU read at once.
        seconds: for how long; the best of many short stretches counts.

    Returns:
        Bytes per second, all threads together.

    Raises:
        ValueError: nbytes or threads < 1, an unknown backend, seconds not above 0.
        MemoryError: nbytes * threads cannot be had.
    """
    threads = _integer("threads", threads, low=1)
    nbytes = _integer("nbytes", nbytes, low=1, high=2**40)
    return _core.read_rate(nbytes, backend or "", threads, _seconds(seconds))


def shared_rate(device: str = "cuda", *, seconds: float = 0.05) -> float:
    """Measure how many bytes per second a CUDA device's multiprocessors read of shared memory.

    Raises:
        ValueError: no such device, seconds not above 0.
    """
    return _core.shared_rate(_cuda_number(device), _seconds(seconds))


# ------------------------------------------------------------------------------------------------
# Arguments on their way in, results on their way out. Arrays are checked in the extension.
# ------------------------------------------------------------------------------------------------


def _feature(name: str, x: Any) -> Any:
    if x is None:
        raise ValueError(f"{name}: expected an array because spec.features has {name!r}, got None")
    return x


def _step_arrays(out: MDNRNNStep[Any]) -> MDNRNNStep[Any]:
    if not isinstance(out, MDNRNNStep):
        raise TypeError(f"out: expected an MDNRNNStep, got {type(out).__name__}")
    return out


def _is_torch(x: object) -> bool:
    # If x is a tensor then torch is loaded; whoever has no torch never pays for importing it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _output_kind(*arrays: Any) -> Any:
    """Return the function that turns a result into the kind of array that the caller uses.

    The extension gives NumPy arrays for NumPy and for torch on the CPU, torch's and CuPy's own on a
    device, and a `DeviceArray` for the others.
    """
    for x in arrays:
        if type(x) is np.ndarray or x is None:
            continue
        if _is_torch(x):
            return sys.modules["torch"].from_numpy if x.is_cpu else _same
        if not isinstance(x, np.ndarray | DeviceArray):
            return functools.partial(_of_the_library_of, x)
    return _same


def _of_the_library_of(x: Any, result: Any) -> Any:
    """Hand a `DeviceArray` to the library of x, without a copy."""
    if not isinstance(result, DeviceArray):
        return result
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    library = sys.modules[type(x).__module__.partition(".")[0]]
    return library.from_dlpack(result) if hasattr(library, "from_dlpack") else result


def _same(x: Any) -> Any:
    return x


def _packed(model: PackedMDNRNN | MDNRNNWeights, like: Any) -> PackedMDNRNN:
    """Pack plain weights for the device on which `like` is."""
    if isinstance(model, PackedMDNRNN):
        return model
    if not isinstance(model, MDNRNNWeights):
        raise TypeError(
            f"model: expected MDNRNNWeights (of an MDNRNN: its .weights()) or what pack_mdn_rnn "
            f"makes of them, got {type(model).__name__}"
        )
    return pack_mdn_rnn(model, device=_cuda_device_of(like))


def _cuda_device_of(x: Any) -> str | None:
    """Return "cuda:0" or the like; None for what is on the CPU or no array at all."""
    place = -1 if isinstance(x, np.ndarray) else _core.place_of(x)
    return f"cuda:{place}" if place >= 0 else None


def _cuda_index(device: Any) -> int | None:
    """Return the number of a CUDA device, -1 for "cuda", None for "cpu"; torch.device will do."""
    kind, colon, number = str(device).partition(":")
    if kind == "cpu" and not colon:
        return None
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return int(number) if colon else -1


def _cuda_number(device: Any) -> int:
    index = _cuda_index(device)
    if index is None:
        raise ValueError(f"device: expected 'cuda' or 'cuda:N', got {device!r}")
    return index


def _check_finite(name: str, weight: Any) -> None:
    """Look into a weight that is on a device; those of the host are looked at by the extension."""
    if _cuda_device_of(weight) is None or isinstance(weight, DeviceArray):
        return
    library = sys.modules[type(weight).__module__.partition(".")[0]]
    numpy_like = library if hasattr(library, "isfinite") else weight.__array_namespace__()
    if not bool(numpy_like.isfinite(weight).all()):
        raise ValueError(f"{name}: expected finite numbers; did the training diverge?")


def _default_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _integer(name: str, value: Any, *, low: int, high: int = 2**31) -> int:
    if type(value) is int and low <= value < high:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if not low <= number < high:
        raise ValueError(f"{name}: expected {low} <= {name} < {high}, got {number}")
    return number


def _temperature(value: float) -> float:
    # The kernels compute in float32, where a tiny tau would be 0 and a huge one infinite.
    tau = float(value)
    if not 1e-45 <= tau <= 3.4e38:
        raise ValueError(
            f"temperature: expected a finite number above 0 (1e-45 to 3.4e38), got {value!r}"
        )
    return tau


def _seconds(value: float) -> float:
    if not 0 < value <= 3600:
        raise ValueError(f"seconds: expected a number above 0, up to 3600, got {value!r}")
    return float(value)


def car_racing_renderer(
    hull: list[FloatArray], wheel: FloatArray, wheel_half_width: float, wheel_radius: float
) -> CarRacingRenderer:
    """Return what draws CarRacing's frames as Gymnasium does, for one environment and one thread.

    Its methods; all numbers must be finite:

    - ``set_track(quads, colours)``: the road's tiles and kerbs in the order in which they are
      drawn; float64 (n, 4, 2), metres, and float64 (n, 3), 0 to 255. `colours` is kept and looked
      at anew for every frame.
    - ``set_ground(half_size, patch_size, background, grass)``: of the playfield and of its patches
      of grass, metres; colours float64 (3,).
    - ``draw(state, score, frame)``: draws into `frame`, uint8 (96, 96, 3), or (64, 64, 3) for rows
      0 to 83 of it, area-averaged. `score` is the picture of the score, uint8 (12, 12), grey.
      `state` is a list of 28 floats, metres, seconds and radians: time, the hull's x, y, angle,
      velocity x and y, angular velocity, the first wheel's steering angle; then for each of four
      wheels x, y, angle, phase, angular velocity.

    Args:
        hull: the convex parts of the car's body, each float32 (3 to 16 corners, 2), metres.
        wheel: a wheel's outline, the same.
        wheel_half_width: metres.
        wheel_radius: metres.

    Raises:
        TypeError: an array is of another dtype.
        ValueError: an array has another shape, or a number is not finite.
    """
    return _core.CarRacingRenderer(
        hull=hull, wheel=wheel, wheel_half_width=wheel_half_width, wheel_radius=wheel_radius
    )

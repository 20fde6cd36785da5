"""Types of the kernels' arguments: weights of M and V, a controller's form, a step of M."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from worldmodels_fast import _core
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.arguments import checked_integer

if TYPE_CHECKING:
    import torch


class SupportsDLPack(Protocol):
    """An array of another library: CuPy's, JAX's, or our own `DeviceArray`."""

    def __dlpack__(self) -> Any:
        """Return a capsule that shows the array's memory."""

    def __dlpack_device__(self) -> Any:
        """Return (kind, number) of the device that it is on."""


Integers = npt.NDArray[np.integer[Any]]
"""Integers of any size, (N,)."""


ArrayT = TypeVar("ArrayT", Floats, "torch.Tensor", SupportsDLPack)
"""A float32 array of any library; what comes out is of the kind that went in."""


FEATURES = ("z", "h", "c")


PRECISIONS = ("fp32", "fp16", "bf16", "int8", "auto", "fastest")
"""Number formats of the operands of M's matrix products, and two rules that choose among them."""


ENCODER_PRECISIONS = ("fp32", "bf16", "auto")
"""The same for the convolutions of V's encoder."""


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

    def __repr__(self) -> str:
        return (
            f"MDNRNNWeights(latent_dim={self.latent_dim}, action_dim={self.action_dim}, "
            f"hidden_dim={self.hidden_dim}, n_mixtures={self.n_mixtures}, "
            f"predicts_done={self.predicts_done}, predicts_reward={self.predicts_reward})"
        )


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

    def __repr__(self) -> str:
        return f"VAEEncoderWeights(latent_dim={self.latent_dim})"


@dataclass(frozen=True)
class ControllerSpec:
    """The form of a controller, by which a flat parameter vector is read.

    action = clip(scale * tanh(y) + shift, low, high), y = b + x W, x = the features concatenated in
    order. Flat layout: [b (A) if bias, W (inputs x A) row-major]. With hidden_units = U > 0 a tanh
    layer comes first: [b1 (U), W1 (inputs x U), b2 (A), W2 (U x A)], the biases only if bias.

    Attributes:
        features: the controller's inputs, of "z", "h", "c", in the order of concatenation.
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
            checked_integer(name, getattr(self, name), low=1)
        checked_integer("hidden_units", self.hidden_units, low=0)
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
        """The same for the kernels, made at the first use."""
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
        """Leave out `_native`, which cannot be pickled and is made again."""
        return {name: value for name, value in vars(self).items() if name != "_native"}

    @property
    def n_inputs(self) -> int:
        """Length of the features concatenated."""
        return sum(self.latent_dim if name == "z" else self.hidden_dim for name in self.features)

    @property
    def n_params(self) -> int:
        """Length of the flat parameter vector."""
        sizes = [self.n_inputs, self.action_dim]
        if self.hidden_units > 0:
            sizes.insert(1, self.hidden_units)
        return sum((n_in + self.bias) * n_out for n_in, n_out in itertools.pairwise(sizes))


class MDNRNNStep(NamedTuple, Generic[ArrayT]):
    """The result of one step of M; float32, of the kind (NumPy or torch) that went in."""

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

    def __repr__(self: Any) -> str:
        n, latent_dim, n_mixtures = self.logmix.shape
        return (
            f"MDNRNNStep(N={n}, latent_dim={latent_dim}, n_mixtures={n_mixtures}, "
            f"hidden_dim={self.h.shape[1]}, done_logit={self.done_logit is not None}, "
            f"reward={self.reward is not None})"
        )

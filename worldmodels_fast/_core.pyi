"""The extension; see csrc/. Only `worldmodels_fast.ops` and the tests call it."""

from typing import Any

import numpy as np
import numpy.typing as npt

_F32 = npt.NDArray[np.float32]
_In = Any
"""A float32 NumPy array or CPU torch tensor; whatever else comes is refused with a clear error."""

class PackedMDNRNN:
    def __init__(
        self,
        *,
        weight_ih: _In,
        weight_hh: _In,
        bias: _In,
        head_weight: _In,
        head_bias: _In,
        latent_dim: int,
        action_dim: int,
        hidden_dim: int,
        n_mixtures: int,
        predicts_done: bool,
        backend: str,
        precision: str,
    ) -> None: ...
    @property
    def backend(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def latent_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def hidden_dim(self) -> int: ...
    @property
    def n_mixtures(self) -> int: ...
    @property
    def predicts_done(self) -> bool: ...

class Controller:
    def __init__(
        self,
        features: str,
        latent_dim: int,
        hidden_dim: int,
        action_dim: int,
        bias: bool,
        hidden_units: int,
        scale: list[float],
        shift: list[float],
        low: list[float],
        high: list[float],
    ) -> None: ...
    @property
    def n_params(self) -> int: ...

def available_backends() -> list[str]: ...
def backend_name(name: str) -> str: ...
def mdn_rnn_step(
    model: PackedMDNRNN,
    z: _In,
    action: _In,
    h: _In,
    c: _In,
    restart: _In | None,
    threads: int,
    out: tuple[_In | None, ...] | None,
) -> tuple[_F32, _F32, _F32, _F32 | None, _F32, _F32]: ...
def mixture_sample(
    logmix: _In,
    mu: _In,
    logstd: _In,
    temperature: float,
    seed: int,
    rollout: int,
    step: int,
    backend: str,
    out: _In | None,
) -> _F32: ...
def controller_forward(
    controller: Controller,
    params: _In,
    z: _In | None,
    h: _In | None,
    c: _In | None,
    backend: str,
    out: _In | None,
) -> _F32: ...
def dream_rollout(
    model: PackedMDNRNN,
    controller: Controller,
    params: _In,
    initial_mu: _In,
    initial_logvar: _In,
    *,
    rollouts: int,
    seed: int,
    temperature: float,
    max_steps: int,
    done_threshold: float,
    common_noise: bool,
    threads: int,
) -> tuple[_F32, npt.NDArray[np.int32]]: ...
def peak_rate(precision: str, backend: str, threads: int, seconds: float) -> float: ...
def read_rate(nbytes: int, backend: str, threads: int, seconds: float) -> float: ...
def philox(counter: npt.NDArray[np.uint32], seed: int, backend: str) -> npt.NDArray[np.uint32]:
    """Random words for the tests: counter (N, 4) uint32 -> (N, 4) uint32."""

def vector_math(name: str, x: _F32, backend: str) -> _F32:
    """Apply a function by name ("exp", "log", ..., "gate_tanh") to x (N,), for the tests."""

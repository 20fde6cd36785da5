"""The extension; see csrc/. Only `worldmodels_fast.ops` and the tests call it."""

import numpy as np
import numpy.typing as npt

_F32 = npt.NDArray[np.float32]

class PackedMDNRNN:
    def __init__(
        self,
        *,
        weight_ih: _F32,
        weight_hh: _F32,
        bias: _F32,
        head_weight: _F32,
        head_bias: _F32,
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
    z: _F32,
    action: _F32,
    h: _F32,
    c: _F32,
    restart: _F32 | None,
    threads: int,
    out: tuple[_F32 | None, ...] | None,
) -> tuple[_F32, _F32, _F32, _F32 | None, _F32, _F32]: ...
def mixture_sample(
    logmix: _F32,
    mu: _F32,
    logstd: _F32,
    temperature: float,
    seed: int,
    rollout: int,
    step: int,
    backend: str,
    out: _F32 | None,
) -> _F32: ...
def controller_forward(
    controller: Controller,
    params: _F32,
    z: _F32 | None,
    h: _F32 | None,
    c: _F32 | None,
    backend: str,
    out: _F32 | None,
) -> _F32: ...
def dream_rollout(
    model: PackedMDNRNN,
    controller: Controller,
    params: _F32,
    initial_mu: _F32,
    initial_logvar: _F32,
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
    """Apply "exp", "log", "tanh", "sigmoid", "cos_2pi", "gate_sigmoid" or "gate_tanh" to x (N,), for
    the tests."""

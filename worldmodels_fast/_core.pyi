"""The extension; see csrc/. Only `worldmodels_fast.ops` and the tests call it."""

from typing import Any

import numpy as np
import numpy.typing as npt

_F32 = npt.NDArray[np.float32]
_In = Any
"""A float32 array of any library; anything else is refused with a clear error."""
_Out = Any
"""An array of the first input's library; of NumPy for torch on the CPU, else a DeviceArray."""

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
        predicts_reward: bool,
        backend: str,
        precision: str,
        device: int,
    ) -> None: ...
    @property
    def backend(self) -> str: ...
    @property
    def device(self) -> str: ...
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
    @property
    def predicts_reward(self) -> bool: ...

class PackedVAEEncoder:
    def __init__(
        self,
        *,
        weights: list[_In],
        biases: list[_In],
        latent_dim: int,
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

class NoiseIds:
    """Whose noise the rows of a call use; see `ops.mixture_sample`."""

    def __init__(
        self, seed: int, rollout: int, step: int, rows: npt.NDArray[np.uint32] | None
    ) -> None: ...

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

class CarRacingRenderer:
    """Draws CarRacing's frames; see `ops.car_racing_renderer`."""

    def __init__(
        self,
        *,
        hull: list[_F32],
        wheel: _F32,
        wheel_half_width: float,
        wheel_radius: float,
    ) -> None: ...
    def set_track(
        self, quads: npt.NDArray[np.float64], colours: npt.NDArray[np.float64]
    ) -> None: ...
    def set_ground(
        self,
        half_size: float,
        patch_size: float,
        background: npt.NDArray[np.float64],
        grass: npt.NDArray[np.float64],
    ) -> None: ...
    def draw(
        self,
        state: list[float],
        score: npt.NDArray[np.uint8],
        frame: npt.NDArray[np.uint8],
    ) -> None: ...

class DeviceArray:
    """An array of our own on a CUDA device or the CPU, for any library; see `ops.to_device`."""

    def __init__(self, array: npt.NDArray[Any], place: int) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    def numpy(self) -> npt.NDArray[Any]: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...

def available_backends() -> list[str]: ...
def why_no_cuda() -> str: ...
def cuda_status() -> dict[str, Any]: ...
def place_of(array: object) -> int: ...
def cuda_device(wish: int) -> int: ...
def cuda_kernels(device: int) -> list[dict[str, Any]]: ...
def backend_name(name: str) -> str: ...
def box_resize(frame: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None: ...
def encode_frames(model: PackedVAEEncoder, frames: _In, threads: int) -> tuple[_Out, _Out]: ...
def mdn_rnn_step(
    model: PackedMDNRNN,
    z: _In,
    action: _In,
    h: _In,
    c: _In,
    restart: _In | None,
    threads: int,
    out: tuple[_In | None, ...] | None,
) -> tuple[_Out, _Out, _Out, _Out | None, _Out, _Out]: ...
def mixture_sample(
    logmix: _In,
    mu: _In,
    logstd: _In,
    temperature: float,
    noise: NoiseIds,
    backend: str,
    out: _In | None,
) -> _Out: ...
def done_sample(
    done_logit: _In,
    done_threshold: float,
    done_temperature: float,
    noise: NoiseIds,
    backend: str,
) -> _Out: ...
def initial_latents(
    initial_mu: _In, initial_logvar: _In, rows: int, noise: NoiseIds, backend: str
) -> _Out: ...
def controller_forward(
    controller: Controller,
    params: _In,
    z: _In | None,
    h: _In | None,
    c: _In | None,
    backend: str,
    out: _In | None,
) -> _Out: ...
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
    done_temperature: float,
    common_noise: bool,
    threads: int,
    plan: tuple[int, int],
) -> tuple[_Out, _Out]: ...
def plan_dream(
    model: PackedMDNRNN,
    controller: Controller,
    members: int,
    rollouts: int,
    plan: tuple[int, int],
) -> tuple[int, int]: ...
def peak_rate(precision: str, backend: str, threads: int, seconds: float) -> float: ...
def read_rate(nbytes: int, backend: str, threads: int, seconds: float) -> float: ...
def shared_rate(device: int, seconds: float) -> float: ...
def philox(counter: npt.NDArray[np.uint32], seed: int, backend: str) -> npt.NDArray[np.uint32]:
    """Random words for the tests: counter (N, 4) uint32 -> (N, 4) uint32."""

def vector_math(name: str, x: _F32, backend: str) -> _F32:
    """Apply a function by name ("exp", "log", ..., "gate_tanh") to x (N,), for the tests."""

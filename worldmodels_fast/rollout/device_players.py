"""V, M and C of many slots on a CUDA device: `rollout.Players` with two transfers a step.

One block is copied to the device: each slot's frame, its noise and its number. The actions are
copied back. M's memory and the controllers stay on the device; M and C are our kernels, in torch's
current stream, and V is torch's convolutions.

M and C compute each row bitwise the same in any batch. V's convolutions need not: cuDNN chooses
their algorithm by the number of frames. So V always encodes the frames of all slots. An episode
then depends on the number of slots and on the type of the device, but neither on its slot nor on
the episodes in other slots.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels_fast import ops
from worldmodels_fast.envs.registry import FRAME_SIZE
from worldmodels_fast.rollout.slots import SlotNoise, Slots, check_parts
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.utils.arguments import checked_choice

if TYPE_CHECKING:
    from worldmodels_fast.models.mdn_rnn import MDNRNN
    from worldmodels_fast.models.vae import VAE

__all__ = ["DeviceEncoder", "DevicePlayers"]


FRAME_BYTES = FRAME_SIZE * FRAME_SIZE * 3


class DeviceEncoder:
    """V's encoder on one device.

    Args:
        vae: V; it is copied.
        precision: of the convolutions, "fp32", "bf16" or "auto", see `ops.resolve_precision`; the
            last layer is always fp32.
        device: of torch.

    Raises:
        ValueError: another precision.
    """

    def __init__(self, vae: VAE, precision: str, device: torch.device) -> None:
        checked_choice("vae_precision", precision, ops.ENCODER_PRECISIONS)
        backend = "cuda" if device.type == "cuda" else None
        precision = ops.resolve_precision(precision, "vae_encoder", backend)
        self.latent_dim = vae.latent_dim
        self._dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        encoder = copy.deepcopy(vae.encoder).requires_grad_(False)
        first = next(layer for layer in encoder if isinstance(layer, nn.Conv2d))
        first.weight /= 255  # so that bytes are its input, exact in bf16 as well
        self._encoder = encoder.to(device, self._dtype)  # its weights stay channels-last
        heads = [(head.weight.detach(), head.bias.detach()) for head in (vae.mu, vae.logvar)]
        self._weight, self._bias = (
            torch.cat(parts).to(device) for parts in zip(*heads, strict=True)
        )

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and logvar (N, Z) float32 of frames (N, 64, 64, 3) uint8, all on the device."""
        x = frames.permute(0, 3, 1, 2).to(self._dtype, memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            features = self._encoder(x).float()
        heads = torch.addmm(self._bias, features, self._weight.T)
        return heads[:, : self.latent_dim], heads[:, self.latent_dim :]


class DevicePlayers:
    """V, M and C in N slots of a device; the methods of `rollout.Players`.

    Args:
        vae: V; it is copied.
        mdn_rnn: M; it is copied. None if the controller sees z alone: then M is not run.
        controller: the meaning of a row of parameters.
        slots: N.
        latent: "sample" or "mu".
        vae_precision: see `DeviceEncoder`.
        precision: of M, "fp32", "fp16" or "auto"; see `ops.pack_mdn_rnn`.
        device: "cuda", "cuda:0", "cuda:1", ...

    Raises:
        ValueError: an unknown setting, or a device that cannot be used.
    """

    def __init__(
        self,
        vae: VAE,
        mdn_rnn: MDNRNN | None,
        controller: ops.ControllerSpec,
        slots: int = 1,
        *,
        latent: str = "sample",
        vae_precision: str = "fp32",
        precision: str = "fp32",
        device: str = "cuda",
    ) -> None:
        check_parts(vae, mdn_rnn, controller, latent)
        self.spec = controller
        self._model: ops.PackedMDNRNN | None = None
        if mdn_rnn is not None and {"h", "c"} & set(controller.features):
            self._model = ops.pack_mdn_rnn(mdn_rnn.weights(), precision=precision, device=device)
            device = self._model.device
        self._device = torch.device(device)
        self._vae = DeviceEncoder(vae, vae_precision, self._device)
        self._sampled = latent == "sample"
        self._noise = SlotNoise(slots, vae.latent_dim)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=self._device, dtype=torch.float32)

        self._params = zeros(slots, controller.n_params)
        self._h, self._c = zeros(slots, controller.hidden_dim), zeros(slots, controller.hidden_dim)
        self._restart = zeros(slots) + 1
        row = np.dtype(
            [
                ("frame", np.uint8, FRAME_BYTES),
                ("noise", np.float32, vae.latent_dim),
                ("slot", np.int64),
            ]
        )
        self._offsets = [row.fields[name][1] for name in ("noise", "slot")] if row.fields else []
        up = torch.zeros(slots, row.itemsize, dtype=torch.uint8, device="cpu")
        self._up = up.pin_memory() if self._device.type == "cuda" else up
        self._rows = self._up.numpy().view(row)[:, 0]
        self._there = self._up.to(self._device)
        self._step: tuple[Tensor, Tensor, Tensor] | None = None  # slots, z, actions on the device

    def begin(self, slot: int, params: Floats, rng: np.random.Generator | None = None) -> None:
        """Begin an episode in a slot; see `rollout.Players.begin`."""
        self._params[slot] = torch.from_numpy(np.ascontiguousarray(params, np.float32))
        self._h[slot] = 0.0
        self._c[slot] = 0.0
        self._restart[slot] = 1.0
        if rng is not None:
            self._noise.begin(slot, rng)

    @torch.inference_mode()
    def act(self, slots: Slots, frames: Frames) -> tuple[Any, Floats]:
        """Encode frames and act on them.

        Args:
            slots: (n,) different numbers of slots.
            frames: (n, 64, 64, 3) uint8, RGB.

        Returns:
            z (n, Z), a tensor on the device, and actions (n, A) float32, a NumPy array.
        """
        n = len(slots)
        rows = self._rows[:n]
        rows["frame"] = frames.reshape(n, -1)
        rows["slot"] = slots
        if self._sampled:
            rows["noise"] = self._noise.next(slots)
        self._there[:n].copy_(self._up[:n], non_blocking=True)
        everywhere = self._there[:, :FRAME_BYTES].view(-1, FRAME_SIZE, FRAME_SIZE, 3)
        mu, logvar = (x[:n] for x in self._vae(everywhere))
        noise, index = self._part(n, 0, torch.float32), self._part(n, 1, torch.int64)[:, 0]
        z = (mu + torch.exp(0.5 * logvar) * noise if self._sampled else mu).contiguous()
        actions = ops.controller_forward(
            self.spec, self._params[index], z, self._h[index], self._c[index]
        )
        self._step = index, z, actions
        return z, actions.cpu().numpy()

    @torch.inference_mode()
    def remember(self, slots: Slots, z: Any, actions: Any) -> None:
        """Feed M the z and the actions of the last `act`.

        Args:
            slots: those of the last `act`.
            z: not used, the device has it.
            actions: not used, the device has them.

        Raises:
            ValueError: other slots.
        """
        if self._step is None or len(slots) != len(self._step[0]):
            raise ValueError("slots: expected those of the last `act`")
        index, z, chosen = self._step
        self._step = None
        if self._model is None:
            return
        restart = self._restart[index] if self._model.predicts_done else None
        step = ops.mdn_rnn_step(self._model, z, chosen, self._h[index], self._c[index], restart)
        self._h.index_copy_(0, index, step.h)
        self._c.index_copy_(0, index, step.c)
        self._restart.index_fill_(0, index, 0.0)

    def _part(self, n: int, which: int, dtype: torch.dtype) -> Tensor:
        """Return the first n rows' noise (0) or slot number (1) of the block on the device."""
        begin, end = [*self._offsets, self._there.shape[1]][which : which + 2]
        return self._there[:n, begin:end].contiguous().view(dtype)

"""C: a linear layer, or the paper's small network, evolved as one flat vector.

    action = clip(scale * tanh(y) + shift, low, high),  y = x W + b,  x = the features side by side

Features: z, the latent; h and c, M's hidden and cell state from before it was given z.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worldmodels_fast import ops
from worldmodels_fast.envs.squash import Squash

__all__ = ["LinearController"]


class LinearController(nn.Module):
    """The paper's C; its parameters are one flat vector `flat`, at first float32 on the CPU.

    867 parameters for CarRacing (z 32, h 256, 3 actions, bias), 1,088 for Take Cover (z 64,
    c 512, h 512, 1 action, no bias) and 1,443 for the variant with 40 hidden units
    (z 32, 3 actions, bias).

    Layout of `flat`: bias (A), if there is one, then W (inputs x A) row by row. With
    ``hidden_units`` U the same for the tanh layer (inputs x U), and then for the outputs (U x A).

    Args:
        features: subset of "z", "h", "c" in the order in which they are concatenated.
        latent_dim: Z.
        hidden_dim: H.
        action_dim: A.
        bias: whether outputs (and hidden units) have a bias.
        hidden_units: size of a tanh layer in between; 0 for none.
        squash: how outputs become actions; None for tanh.

    Raises:
        ValueError: unknown or repeated features, sizes that are not positive.
    """

    def __init__(
        self,
        features: Sequence[str] = ("z", "c", "h"),
        *,
        latent_dim: int,
        hidden_dim: int,
        action_dim: int,
        bias: bool = False,
        hidden_units: int = 0,
        squash: Squash | None = None,
    ) -> None:
        super().__init__()
        squash = squash or Squash.plain(action_dim)
        self._spec = ops.ControllerSpec(
            features=tuple(features),
            latent_dim=latent_dim,
            hidden_dim=hidden_dim,
            action_dim=action_dim,
            bias=bias,
            hidden_units=hidden_units,
            scale=squash.scale,
            shift=squash.shift,
            low=squash.low,
            high=squash.high,
        )
        zeros = torch.zeros(self._spec.n_params, device="cpu", dtype=torch.float32)
        self.flat = nn.Parameter(zeros)  # CMA-ES starts at zero, too

    @property
    def spec(self) -> ops.ControllerSpec:
        """The form of `flat`, for the kernels."""
        return self._spec

    @property
    def n_params(self) -> int:
        """Length of `flat`."""
        return self._spec.n_params

    def set_flat(self, params: Any) -> LinearController:
        """Set the parameters, (n_params,) of NumPy or torch, and return self.

        Raises:
            ValueError: another shape, or values that are not finite.
        """
        flat = torch.as_tensor(params, dtype=torch.float32, device="cpu")
        if flat.shape != (self.n_params,):
            raise ValueError(
                f"params: expected shape ({self.n_params},) for this controller, "
                f"got {tuple(flat.shape)}"
            )
        if not bool(torch.isfinite(flat).all()):
            raise ValueError("params: expected finite numbers, got NaN or infinity")
        with torch.no_grad():
            self.flat.copy_(flat)
        return self

    def forward(self, z: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        """Return actions (N, A) for z (N, Z), h (N, H), c (N, H); those not in use may be None.

        h and c are M's from *before* z is fed to it.
        """
        spec = self._spec
        given = {"z": z, "h": h, "c": c}
        used = []
        for name in spec.features:
            value = given[name]
            if value is None:
                raise ValueError(f"{name}: this controller uses it, but it is None")
            used.append(value)
        x = torch.cat(used, dim=-1)
        rest: Tensor = self.flat
        if spec.hidden_units:
            y, rest = _layer(x, rest, spec.hidden_units, spec.bias)
            x = torch.tanh(y)
        y, rest = _layer(x, rest, spec.action_dim, spec.bias)
        limits = (x.new_tensor(v) for v in (spec.scale, spec.shift, spec.low, spec.high))
        scale, shift, low, high = limits
        return torch.clamp(scale * torch.tanh(y) + shift, low, high)

    def config(self) -> dict[str, Any]:
        """Return the arguments that make this controller again, as JSON; see `from_config`."""
        spec = self._spec
        return {
            "features": list(spec.features),
            "latent_dim": spec.latent_dim,
            "hidden_dim": spec.hidden_dim,
            "action_dim": spec.action_dim,
            "bias": spec.bias,
            "hidden_units": spec.hidden_units,
            "squash": {
                "scale": list(spec.scale),
                "shift": list(spec.shift),
                "low": list(spec.low),
                "high": list(spec.high),
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LinearController:
        """Return the controller that `config` describes, with parameters of zero."""
        arguments = dict(config)
        squash = arguments.pop("squash", None)
        if squash is not None:
            squash = Squash(**{name: tuple(values) for name, values in squash.items()})
        return cls(**arguments, squash=squash)


def _layer(x: Tensor, flat: Tensor, n_outputs: int, bias: bool) -> tuple[Tensor, Tensor]:
    """Return the outputs (N, n_outputs) of the layer at the front of `flat`, and the rest of it."""
    b, flat = (flat[:n_outputs], flat[n_outputs:]) if bias else (0.0, flat)
    size = x.shape[-1] * n_outputs
    weight = flat[:size].reshape(x.shape[-1], n_outputs)
    return x @ weight + b, flat[size:]

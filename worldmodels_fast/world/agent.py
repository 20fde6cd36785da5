"""The agent: V, M and C of a world, frames in, actions out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.players import Players
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.types import Floats

if TYPE_CHECKING:
    from worldmodels_fast.world.world import World


class Agent:
    """A world's player of one episode at a time: V encodes the frame, C acts, M steps.

    As in the paper, C acts on the h and c from before M's step with the present z, and z is
    sampled from V's distribution.

    Args:
        world: the world; its weights are copied.
        seed: of the generator that z is sampled with.
        latent: "sample", or "mu" for the distribution's mean.
        vae_precision: see `PackedEncoder`.
    """

    def __init__(
        self,
        world: World,
        seed: int = 0,
        latent: Latent = "sample",
        vae_precision: VAEPrecision = "fp32",
    ) -> None:
        self._params = world.controller.flat.detach().numpy().copy()
        self._players = Players(
            world.vae,
            world.mdn_rnn,
            world.controller.spec,
            latent=latent,
            vae_precision=vae_precision,
        )
        self._slots = np.zeros(1, np.intp)
        self._repr = (
            f"Agent({world.config.get('environment')!r}, latent_dim={world.vae.latent_dim}, "
            f"action_dim={world.mdn_rnn.action_dim}, hidden_dim={world.mdn_rnn.hidden_dim}, "
            f"latent={latent!r}, vae_precision={vae_precision!r})"
        )
        self.reset(seed)

    def __repr__(self) -> str:
        return self._repr

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: h and c are 0.

        Args:
            seed: of a new generator; None goes on with the present one.
        """
        rng = None if seed is None else np.random.default_rng(seed)
        self._players.begin(0, self._params, rng)

    def act(self, frame: npt.NDArray[np.uint8]) -> Floats:
        """Return the action (A,) float32 for a frame, uint8 (64, 64, 3), RGB, and step M.

        Raises:
            ValueError, TypeError: another shape or dtype.
        """
        frame = np.asarray(frame)
        if frame.dtype != np.uint8:
            raise TypeError(f"frame: expected uint8, got {frame.dtype}")
        if frame.shape != (64, 64, 3):
            raise ValueError(f"frame: expected shape (64, 64, 3), got {frame.shape}")
        z, actions = self._players.act(self._slots, np.ascontiguousarray(frame)[None])
        self._players.remember(self._slots, z, actions)
        action: Floats = actions[0]
        return action

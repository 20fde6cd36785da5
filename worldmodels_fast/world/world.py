"""A world: trained V, M and C, and where its dreams begin, on disk and in memory.

A world's folder holds config.json, vae.safetensors, mdn_rnn.safetensors, controller.safetensors,
initial_latents.safetensors (mu, logvar of stored first frames) and README.md, its model card.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.envs.registry import spec_of
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.rollout.game import Game
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.files import read_json, read_text, write_json, write_text
from worldmodels_fast.utils.tensors import load_tensors, save_tensors
from worldmodels_fast.world.agent import Agent

FORMAT = 1
"""Version of the folder's layout, in config.json."""


_DREAM_SETTINGS = {
    "temperature": 1.15,
    "max_steps": 2100,
    "done_threshold": 0.0,
    "done_temperature": 0.0,
}


@dataclass
class World:
    """A trained world model, its controller, and where its dreams begin.

    Attributes:
        vae: V.
        mdn_rnn: M.
        controller: C.
        initial_latents: (mu, logvar), (I, Z) float32 each.
        card: the model card, Markdown.
        config: settings as JSON, kept in config.json: "dream" (temperature, max_steps,
            done_threshold, done_temperature), "environment" (a name from `envs.ENVIRONMENTS`),
            and whatever the run wants remembered.
    """

    vae: VAE
    mdn_rnn: MDNRNN
    controller: LinearController
    initial_latents: tuple[Floats, Floats]
    card: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        spec, rnn = self.controller.spec, self.mdn_rnn
        sizes = {
            "latent_dim": (self.vae.latent_dim, rnn.latent_dim, spec.latent_dim),
            "hidden_dim": (rnn.hidden_dim, spec.hidden_dim),
            "action_dim": (rnn.action_dim, spec.action_dim),
        }
        for name, values in sizes.items():
            if len(set(values)) > 1:
                raise ValueError(f"world: its parts differ in {name}: {values} (V, M, C)")

    @property
    def latent(self) -> Latent:
        """What z M and C were trained on and see in the game: "sample", the paper's, or "mu"."""
        latent: Latent = self.config.get("latent", "sample")
        return latent

    def agent(self, seed: int = 0, latent: Latent | None = None) -> Agent:
        """A new `Agent` of this world, whose own randomness comes from ``seed``."""
        return Agent(self, seed=seed, latent=latent or self.latent)

    def dream(self, **settings: Any) -> Dream:
        """This world's `Dream`, with its own settings where ``settings`` say nothing."""
        own = {**_DREAM_SETTINGS, **self.config.get("dream", {})}
        return Dream(self.mdn_rnn, self.controller, self.initial_latents, **{**own, **settings})

    def game(self, env_id: str | None = None, **settings: Any) -> Game:
        """This world's `Game`, the real one, with its own settings where ``settings`` say nothing.

        Raises:
            ValueError: no `env_id`, and config.json names no environment that is known.
        """
        if env_id is None:
            env_id = spec_of(self.config).env_id
            settings = {"env_kwargs": self.config.get("env_kwargs", {}), **settings}
        settings = {"latent": self.latent, **settings}
        return Game(self.vae, self.mdn_rnn, self.controller, env_id, **settings)

    def digest(self) -> str:
        """SHA-256 of all weights (as float32), to keep with every score; 16 hex digits."""
        sha = hashlib.sha256()
        for tensors in self._tensors().values():
            for name in sorted(tensors):
                sha.update(name.encode())
                sha.update(tensors[name].tobytes())
        return sha.hexdigest()[:16]

    def save(self, folder: Path | str, dtype: Literal["fp16", "fp32"] = "fp16") -> None:
        """Write the world's folder.

        Args:
            folder: made if it does not exist; files of another world in it are replaced.
            dtype: weights are rounded to 16-bit floats, half the size, or kept as they are.

        Raises:
            ValueError: a weight is not finite, or too large for 16 bits.
        """
        folder = Path(folder)
        kind = {"fp16": np.float16, "fp32": np.float32}[dtype]
        for part, tensors in self._tensors().items():
            with np.errstate(over="ignore"):
                rounded = {name: tensor.astype(kind) for name, tensor in tensors.items()}
            for name, tensor in rounded.items():
                if not np.isfinite(tensor).all():
                    raise ValueError(
                        f"{part}: {name} holds NaN, infinity, or numbers too large for {dtype}"
                    )
            save_tensors(folder / f"{part}.safetensors", rounded, {"format": "pt"})
        rnn = self.mdn_rnn
        config = {
            **self.config,
            "format": FORMAT,
            "vae": {"latent_dim": self.vae.latent_dim},
            "mdn_rnn": {
                "latent_dim": rnn.latent_dim,
                "action_dim": rnn.action_dim,
                "hidden_dim": rnn.hidden_dim,
                "n_mixtures": rnn.n_mixtures,
                "predicts_done": rnn.predicts_done,
                "predicts_reward": rnn.predicts_reward,
            },
            "controller": self.controller.config(),
            "dream": {**_DREAM_SETTINGS, **self.config.get("dream", {})},
        }
        write_json(folder / "config.json", config)
        write_text(folder / "README.md", self.card)

    @classmethod
    def load(cls, folder: Path | str) -> World:
        """Read a world's folder; weights come back as float32.

        Raises:
            ValueError: something is missing, or is not what config.json says.
        """
        folder = Path(folder)
        config = read_json(folder / "config.json")
        if config is None:
            raise ValueError(f"{folder} is not a world: it has no config.json")
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{folder / 'config.json'}: expected format {FORMAT}, got "
                f"{config.get('format')!r}; a newer worldmodels_fast may read it"
            )
        try:
            vae = VAE(**config["vae"])
            mdn_rnn = MDNRNN(**config["mdn_rnn"])
            controller = LinearController.from_config(config["controller"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'config.json'}: cannot be understood: {error}") from error
        for part, module in (("vae", vae), ("mdn_rnn", mdn_rnn), ("controller", controller)):
            path = folder / f"{part}.safetensors"
            try:
                module.load_state_dict({k: torch.from_numpy(v) for k, v in _read(path).items()})
            except RuntimeError as error:
                raise ValueError(f"{path}: not the weights of config.json: {error}") from error
            module.eval().requires_grad_(False)
        latents = _read(folder / "initial_latents.safetensors")
        if latents.keys() != {"mu", "logvar"}:
            raise ValueError(f"initial_latents: expected mu and logvar, got {sorted(latents)}")
        card = folder / "README.md"
        return cls(
            vae=vae,
            mdn_rnn=mdn_rnn,
            controller=controller,
            initial_latents=(latents["mu"], latents["logvar"]),
            card=read_text(card) if card.exists() else "",
            config=config,
        )

    def _tensors(self) -> dict[str, dict[str, Floats]]:
        """Every part's weights as contiguous float32 arrays, by file and name."""
        modules = {"vae": self.vae, "mdn_rnn": self.mdn_rnn, "controller": self.controller}
        tensors = {
            part: {
                name: np.ascontiguousarray(tensor.detach().float().cpu().numpy())
                for name, tensor in module.state_dict().items()
            }
            for part, module in modules.items()
        }
        mu, logvar = (np.ascontiguousarray(x, dtype=np.float32) for x in self.initial_latents)
        return {**tensors, "initial_latents": {"mu": mu, "logvar": logvar}}


def _read(path: Path) -> dict[str, Floats]:
    try:
        arrays = load_tensors(path, "get the world's folder again")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; get the world's folder again") from None
    return {name: array.astype(np.float32) for name, array in arrays.items()}

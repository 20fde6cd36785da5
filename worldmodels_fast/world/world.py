"""A world: trained V, M and C, and the latents that its dreams begin with; on disk, in memory.

A world's folder holds config.json, vae.safetensors, mdn_rnn.safetensors, controller.safetensors,
initial_latents.safetensors (mu, logvar of stored first frames) and README.md, its model card. A
World's own settings stand in config.json, beside the sizes of its parts and the weights' digest.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from worldmodels_fast.dream.config import DREAM_DEFAULTS
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.envs.registry import spec_of
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.models.sizes import check_sizes
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.rollout.game import Game
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.files import (
    json_text,
    one_line,
    read_json,
    read_text,
    reading,
    write_files,
    write_json,
)
from worldmodels_fast.utils.tensors import Arrays, load_tensors, tensor_bytes
from worldmodels_fast.world.agent import Agent

FORMAT = 1
"""Version of the folder's layout, in config.json."""

ADVICE = "save or fetch the world again"
"""Ends the messages about a damaged folder."""


@dataclass(repr=False)
class World:
    """A trained world model, its controller, and the latents that its dreams begin with.

    Attributes:
        vae: V.
        mdn_rnn: M.
        controller: C.
        initial_latents: mu and logvar of stored first frames, (I, Z) float32 each.
        card: the model card, Markdown.
        config: settings as JSON, kept in config.json: "dream" (temperature, max_steps,
            done_threshold, done_temperature), "environment" (a name from `envs.ENVIRONMENTS`),
            and any others.

    Raises:
        ValueError: V, M, C and the initial latents differ in their sizes.
    """

    vae: VAE
    mdn_rnn: MDNRNN
    controller: LinearController
    initial_latents: tuple[Floats, Floats]
    card: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        check_sizes(self.vae, self.mdn_rnn, self.controller)
        latent_dim = self.controller.spec.latent_dim
        shapes = [np.shape(x) for x in self.initial_latents]
        if len(shapes) != 2 or shapes[0] != shapes[1] or shapes[0][1:] != (latent_dim,):
            raise ValueError(
                "initial_latents: expected mu and logvar, each of shape (I, latent_dim = "
                f"{latent_dim}), got {', '.join(map(str, shapes))}"
            )

    def __repr__(self) -> str:
        rnn = self.mdn_rnn
        parts = {"V": self.vae, "M": rnn, "C": self.controller}
        sizes = ", ".join(
            f"{name} {sum(p.numel() for p in part.parameters()):,}" for name, part in parts.items()
        )
        return (
            f"World({self.config.get('environment')!r}, latent_dim={rnn.latent_dim}, "
            f"action_dim={rnn.action_dim}, hidden_dim={rnn.hidden_dim}, "
            f"n_mixtures={rnn.n_mixtures}, initial_latents={len(self.initial_latents[0])}; "
            f"parameters: {sizes})"
        )

    @property
    def latent(self) -> Latent:
        """The z that M and C were trained on and get in the game: "sample" or "mu"."""
        latent: Latent = self.config.get("latent", "sample")
        return latent

    @property
    def dream_settings(self) -> dict[str, Any]:
        """The temperature, max_steps, done_threshold and done_temperature of this world's dream."""
        return {**DREAM_DEFAULTS, **self.config.get("dream", {})}

    def agent(self, seed: int = 0, latent: Latent | None = None) -> Agent:
        """Return a new `Agent` of this world; ``seed`` is that of its samples of z."""
        return Agent(self, seed=seed, latent=latent or self.latent)

    def dream(self, **settings: Any) -> Dream:
        """Return this world's `Dream`; ``settings`` replace those of config.json."""
        own = {**self.dream_settings, **settings}
        return Dream(self.mdn_rnn, self.controller, self.initial_latents, **own)

    def game(self, env_id: str | None = None, **settings: Any) -> Game:
        """Return this world's `Game`, the real one; ``settings`` replace those of config.json.

        Args:
            env_id: Gymnasium id of the environment; None for the one that config.json names.
            settings: of `Game`.

        Raises:
            ValueError: no ``env_id``, and config.json names no known environment.
        """
        if env_id is None:
            env_id = spec_of(self.config).env_id
            settings = {"env_kwargs": self.config.get("env_kwargs", {}), **settings}
        settings = {"latent": self.latent, **settings}
        return Game(self.vae, self.mdn_rnn, self.controller, env_id, **settings)

    def digest(self) -> str:
        """Return the SHA-256 of all weights as float32, 16 hex digits: it is kept with scores."""
        return _digest(self._arrays())

    def save(self, folder: Path | str, dtype: Literal["fp16", "fp32"] = "fp16") -> None:
        """Write the world's folder.

        A save that fails leaves the folder as it was: all files are on the disk before the first
        one replaces an old one. config.json is replaced last and holds the weights' digest, which
        `load` compares, so a save that is killed between two replacements leaves a folder that is
        refused, never a mixture of two worlds. (The card is text alone: edit it as you like.)

        Args:
            folder: made if it does not exist; files of another world in it are replaced.
            dtype: weights are rounded to 16-bit floats, half the size, or kept as they are.

        Raises:
            ValueError: a weight is not finite, or too large for 16 bits.
            OSError: the folder cannot be written.
        """
        kind = {"fp16": np.float16, "fp32": np.float32}[dtype]
        rounded: dict[str, Arrays] = {}
        for part, arrays in self._arrays().items():
            with np.errstate(over="ignore"):
                rounded[part] = {name: array.astype(kind) for name, array in arrays.items()}
            for name, array in rounded[part].items():
                if not np.isfinite(array).all():
                    raise ValueError(
                        f"{part}: {name} holds NaN, infinity, or numbers too large for {dtype}"
                    )
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
            "dream": self.dream_settings,
            "digest": _digest(rounded),
        }
        weights = {
            f"{part}.safetensors": tensor_bytes(arrays, {"format": "pt"})
            for part, arrays in rounded.items()
        }
        folder = Path(folder)
        self._add_digest_of_an_earlier_version(folder)
        write_files(
            folder,
            {"config.json": json_text(config).encode(), **weights, "README.md": self.card.encode()},
        )

    @classmethod
    def _add_digest_of_an_earlier_version(cls, folder: Path) -> None:
        """Let an old config.json say which weights belong to it, before they are replaced."""
        path = folder / "config.json"
        with contextlib.suppress(ValueError):  # a damaged world: there is nothing to mix up
            config = read_json(path, ADVICE)
            if config is not None and "digest" not in config:
                write_json(path, {**config, "digest": cls.load(folder).digest()})

    @classmethod
    def load(cls, folder: Path | str) -> World:
        """Read a world's folder; weights come back as float32.

        Raises:
            ValueError: a file is missing or damaged, the weights are not of config.json's sizes, or
                they are not those that config.json was written with.
        """
        folder = Path(folder)
        path = folder / "config.json"
        config = read_json(path, ADVICE)
        if config is None:
            raise ValueError(f"{folder} is not a world: it has no config.json")
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{path}: expected format {FORMAT}, got {config.get('format')!r}; a newer "
                "worldmodels_fast may read it"
            )
        digest = config.pop("digest", None)  # folders of earlier versions have none
        with reading(path, ADVICE):
            vae = VAE(**config["vae"])
            mdn_rnn = MDNRNN(**config["mdn_rnn"])
            controller = LinearController.from_config(config["controller"])
            config["dream"] = dict(config.get("dream", {}))
        for part, module in (("vae", vae), ("mdn_rnn", mdn_rnn), ("controller", controller)):
            weights = _read(folder / f"{part}.safetensors")
            try:
                module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
            except RuntimeError as error:
                raise ValueError(
                    f"{folder / part}.safetensors: not the weights of config.json "
                    f"({one_line(error)}); {ADVICE}"
                ) from error
            module.eval().requires_grad_(False)
        path = folder / "initial_latents.safetensors"
        latents = _read(path)
        if latents.keys() != {"mu", "logvar"}:
            raise ValueError(f"{path}: expected mu and logvar, got {sorted(latents)}; {ADVICE}")
        card = folder / "README.md"
        with reading(folder, ADVICE):
            world = cls(
                vae=vae,
                mdn_rnn=mdn_rnn,
                controller=controller,
                initial_latents=(latents["mu"], latents["logvar"]),
                card=read_text(card) if card.exists() else "",
                config=config,
            )
        if digest is not None and digest != (found := world.digest()):
            raise ValueError(
                f"{folder}: config.json was written with other weights ({digest}) than those in "
                f"this folder ({found}): a save was killed, or a file was replaced; {ADVICE}"
            )
        return world

    def _arrays(self) -> dict[str, Arrays]:
        """Return every part's weights as contiguous float32 arrays, by part and name."""
        modules = {"vae": self.vae, "mdn_rnn": self.mdn_rnn, "controller": self.controller}
        arrays: dict[str, Arrays] = {
            part: {
                name: np.ascontiguousarray(tensor.detach().float().cpu().numpy())
                for name, tensor in module.state_dict().items()
            }
            for part, module in modules.items()
        }
        mu, logvar = (np.ascontiguousarray(x, dtype=np.float32) for x in self.initial_latents)
        return {**arrays, "initial_latents": {"mu": mu, "logvar": logvar}}


def _digest(parts: dict[str, Arrays]) -> str:
    """Return the SHA-256 of the parts' arrays as float32, 16 hex digits."""
    sha = hashlib.sha256()
    for arrays in parts.values():
        for name in sorted(arrays):
            sha.update(name.encode())
            sha.update(arrays[name].astype(np.float32).tobytes())
    return sha.hexdigest()[:16]


def _read(path: Path) -> dict[str, Floats]:
    """Return a part's arrays as float32, by name."""
    try:
        arrays = load_tensors(path, ADVICE)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; {ADVICE}") from None
    return {name: array.astype(np.float32) for name, array in arrays.items()}

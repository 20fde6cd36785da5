"""A run: its folder, its configuration, and the files in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels_fast import data, envs
from worldmodels_fast.evolution.cma import Params
from worldmodels_fast.evolution.search_space import SearchSpace, feature_statistics
from worldmodels_fast.evolution.untrained import beside_untrained, reads_second_half, widen
from worldmodels_fast.experiments.config import RunConfig, load_config
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.files import read_json, reading
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.utils.tensors import load_tensors, save_tensors
from worldmodels_fast.world.world import World

_NO_WIDTH = -60.0
"""A log-variance whose samples equal the mean in float32."""


FIRST_LATENTS = 1000
"""Stored first frames from which dreams begin (the authors kept as many)."""


@dataclass(frozen=True)
class Run:
    """A run: its folder and its configuration."""

    folder: Path
    config: RunConfig

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Open a run that exists.

        Raises:
            ValueError: the folder holds none.
        """
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder}: no run in here (no config.json)")
        return cls(folder, load_config(folder / "config.json"))

    @property
    def environment(self) -> envs.EnvironmentSpec:
        """The specification of the run's environment."""
        return envs.ENVIRONMENTS[self.config.environment]

    @property
    def episodes(self) -> Path:
        """Folder of the collected episodes."""
        return self.folder / "episodes"

    @property
    def latents(self) -> Path:
        """Folder of the encoded episodes."""
        return self.folder / "latents"

    @property
    def world(self) -> Path:
        """Folder of the finished world: V, M, C and first latents in 16 bits."""
        return self.folder / "world"

    def base(self) -> Run | None:
        """The run that this one goes on from, or None if it is a first round.

        Raises:
            ValueError: there is no such run, or its V or M has other sizes.
        """
        if not self.config.round.base:
            return None
        try:
            base = Run.load(Path(self.config.round.base))
        except ValueError as error:
            raise ValueError(
                f"--round.base: {error}; name the run that this one goes on from with --from RUN"
            ) from error
        _check_base(self.config, base)
        return base

    def record(self, stage: str) -> dict[str, Any] | None:
        """Return the record of a finished stage; None if it is not finished.

        Raises:
            ValueError: the record is damaged.
        """
        path = self.folder / "stages" / f"{stage}.json"
        record = read_json(path)
        if record is not None:
            with reading(path, f"delete it and run the stage `{stage}` again"):
                for key, kind in (("settings", dict), ("figures", dict), ("id", str)):
                    value = record[key] if key == "settings" else record.get(key, kind())
                    if not isinstance(value, kind):
                        raise TypeError(f"{key}: expected {kind.__name__}, got {value!r}")
        return record

    def new_controller(self) -> LinearController:
        """Return an untrained controller of this run's form."""
        c, rnn, vae = self.config.controller, self.config.rnn, self.config.vae
        return LinearController(
            features=c.features,
            latent_dim=vae.latent_dim,
            hidden_dim=rnn.hidden_dim,
            action_dim=self.environment.action_dim,
            bias=c.bias,
            hidden_units=c.hidden_units,
            squash=self.environment.squash,
        )

    def placeholder_controller(self) -> LinearController:
        """Return a controller that has the environment's actions, and is not made to act.

        It stands where a dream or a world needs one and open-loop policies play.
        """
        return LinearController(
            features=("z",),
            latent_dim=self.config.vae.latent_dim,
            hidden_dim=self.config.rnn.hidden_dim,
            action_dim=self.environment.action_dim,
            squash=self.environment.squash,
        )

    def unevolved_world(self, temperature: float | None = None) -> World:
        """Return V, M and first latents as a world whose controller is not evolved yet.

        Args:
            temperature: of its dreams; None for the run's.

        Raises:
            ValueError: V or M is not trained yet.
        """
        config = self.config
        if temperature is None:
            temperature = config.dream.temperature
        return World(
            vae=self.load_vae(),
            mdn_rnn=self.load_mdn_rnn(),
            controller=self.placeholder_controller(),
            initial_latents=self.first_latents(),
            config={
                "environment": config.environment,
                "env_kwargs": config.env_kwargs,
                "latent": config.controller.latent,
                "dream": {"temperature": temperature, **self.dream_end()},
                "seed": config.seed,
            },
        )

    def dream_settings(self) -> dict[str, Any]:
        """Return this run's settings of a `Dream`, as a world's config.json keeps them.

        Raises:
            ValueError: the dream's end is to be calibrated, and M has no calibration.
        """
        return {"temperature": self.config.dream.temperature, **self.dream_end()}

    def dream_end(self) -> dict[str, Any]:
        """Return when this run's dreams end: max_steps, done_threshold and done_temperature.

        Raises:
            ValueError: the end is to be calibrated, and M has no calibration.
        """
        dream = self.config.dream
        if not dream.calibrated:
            names = ("max_steps", "done_threshold", "done_temperature")
            return {name: getattr(dream, name) for name in names}
        fit = (self.record("train-rnn") or {}).get("figures", {}).get("death", {})
        if "threshold" not in fit:
            why = fit.get("none", "it was trained before there was one; run `train-rnn` again")
            raise ValueError(f"--dream.calibrated: M has no calibration: {why}")
        return {
            "max_steps": dream.max_steps,
            "done_threshold": fit["threshold"],
            "done_temperature": fit["temperature"],
        }

    def members_env_kwargs(self) -> dict[str, Any]:
        """Return the environment's settings for the rollouts that members are ranked by.

        They are the run's, with the limits of `GameConfig`.
        """
        kwargs, game = dict(self.config.env_kwargs), self.config.game
        longest = kwargs.get("max_steps") or self.environment.max_steps
        if game.max_steps is not None and game.max_steps < longest:
            kwargs["max_steps"] = game.max_steps
        if game.patience:
            kwargs["patience"] = game.patience
        return kwargs

    def load_vae(self) -> VAE:
        """Return the trained V.

        Raises:
            ValueError: it is not trained yet.
        """
        model = VAE(self.config.vae.latent_dim)
        model.load_state_dict(_weights(self.folder / "vae.safetensors", "train-vae"))
        return model.eval()

    def load_mdn_rnn(self) -> MDNRNN:
        """Return the trained M.

        Raises:
            ValueError: it is not trained yet.
        """
        rnn = self.config.rnn
        model = MDNRNN(
            self.config.vae.latent_dim,
            self.environment.action_dim,
            rnn.hidden_dim,
            rnn.n_mixtures,
            rnn.predicts_done,
            rnn.predicts_reward,
        )
        model.load_state_dict(_weights(self.folder / "mdn_rnn.safetensors", "train-rnn"))
        return model.eval()

    def player(self) -> tuple[MDNRNN, LinearController, Callable[[Params], Params]]:
        """Return the M of the dream, an untrained C for it, and a map to C's parameters.

        The map takes a population (P, n_params) float32 of CMA-ES to one of the C returned. It is
        the identity unless the search is in units of the features, or C sees an untrained M's
        memory.
        """
        config, mdn_rnn, controller = self.config.controller, self.load_mdn_rnn(), None
        spec = self.new_controller().spec
        makers: list[Callable[[Params], Params]] = []
        if config.memory == "untrained":
            mdn_rnn = beside_untrained(mdn_rnn, derive_seed(self.config.seed, "untrained"))
            controller = reads_second_half(spec)
            makers.append(functools.partial(widen, spec))
        if config.search == "features":
            statistics = feature_statistics(mdn_rnn, self.held_out_latents(), self.config.rnn)
            makers.insert(0, SearchSpace(spec, statistics))

        def made(population: Params) -> Params:
            for maker in makers:
                population = maker(population)
            return population

        return mdn_rnn, controller or self.new_controller(), made

    def held_out_latents(self) -> data.Latents:
        """Return the latents of the episodes that nothing is trained on."""
        _, shards = data.split_held_out(data.finished_shards(self.latents, ".safetensors"))
        return data.read_latents(self.latents, shards)

    def first_latents(self) -> tuple[Floats, Floats]:
        """Return mu, logvar (I, Z) of stored first frames; of no width if C sees mu alone."""
        shards, _ = data.split_held_out(data.finished_shards(self.latents, ".safetensors"))
        if not shards:
            raise ValueError(f"{self.latents}: no latents; run the stage `encode` first")
        per_shard = self.config.collect.shard_episodes
        latents = data.read_latents(self.latents, shards[: -(-FIRST_LATENTS // per_shard)])
        mu, logvar = data.first_latents(latents, FIRST_LATENTS)
        if self.config.controller.latent == "mu":
            logvar = np.full_like(logvar, _NO_WIDTH)
        return mu, logvar


def _check_base(config: RunConfig, base: Run) -> None:
    """Raise ValueError unless a run of this configuration can go on from `base`."""
    for name in ("environment", "env_kwargs"):
        own, others = getattr(config, name), getattr(base.config, name)
        if own != others:
            raise ValueError(f"--round.base: {base.folder} has {name} {others!r}, not {own!r}")
    if base.config.rnn.predicts_reward and not config.rnn.predicts_reward:
        raise ValueError(
            f"--round.base: the M of {base.folder} predicts rewards, and this run's, which goes on "
            "from it, does not (--rnn.predicts-reward)"
        )
    sizes = [
        (c.vae.latent_dim, c.rnn.hidden_dim, c.rnn.n_mixtures, c.rnn.predicts_done)
        for c in (config, base.config)
    ]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"--round.base: {base.folder} has a V and an M of other sizes: latent_dim, "
            f"hidden_dim, n_mixtures, predicts_done are {sizes[1]} there, {sizes[0]} here"
        )


def _weights(path: Path, stage: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: not there yet; run the stage `{stage}` first")
    arrays = load_tensors(path, f"delete stages/{stage}.json and run `{stage}` again")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights; the file appears whole or not at all."""
    save_tensors(path, {k: v.detach().cpu().numpy() for k, v in module.state_dict().items()})

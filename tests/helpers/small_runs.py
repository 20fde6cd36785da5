"""A run's folder whose V and M are there, small and random, for the tests of what comes after."""

import dataclasses
import uuid
from pathlib import Path

import torch
from small_episodes import made_up_latents
from small_worlds import small_mdn_rnn

from worldmodels_fast import VAE, data, envs
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evaluation.config import EvaluateConfig
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.experiments.config import RunConfig, SweepConfig
from worldmodels_fast.experiments.pipeline import ENGINE, STAGES, open_run
from worldmodels_fast.experiments.run import Run, save_weights
from worldmodels_fast.migration import FORMAT
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.utils.files import write_json

TOY = envs.EnvironmentSpec("toy_game:Toy-v0", "toy_game:Toy", Squash.plain(1), 40, None, 50.0)
"""To be put into `envs.ENVIRONMENTS` as "toy"."""


def small_config() -> RunConfig:
    """Everything in seconds; "toy" must be among `envs.ENVIRONMENTS`."""
    return RunConfig(
        recipe="take-cover-smoke",
        environment="toy",
        env_kwargs={"pays_actions": True},
        vae=VAEConfig(latent_dim=4),
        rnn=RNNConfig(hidden_dim=8, n_mixtures=3),
        evolve=EvolveConfig(population=4, generations=5, rollouts=2, eval_every=2, eval_rollouts=8),
        dream=DreamConfig(max_steps=50),
        fidelity=FidelityConfig(policies=("still",), real_episodes=2, dream_episodes=8),
        evaluate=EvaluateConfig(episodes=3, random_episodes=3, workers=1),
        sweep=SweepConfig(temperatures=(0.5, 1.15), dream_rollouts=8, episodes=3),
    )


def write_small_run(folder: Path, config: RunConfig, seed: int = 0) -> Run:
    """Write V, M and latents, and the records that say that they are finished."""
    run = open_run(folder, config)
    torch.manual_seed(seed)
    save_weights(VAE(4), folder / "vae.safetensors")
    save_weights(small_mdn_rnn(seed=seed), folder / "mdn_rnn.safetensors")
    for shard in range(3):
        data.write_latents(folder / "latents", shard, made_up_latents([4, 3], 4, seed=shard))
    (folder / "episodes").mkdir(exist_ok=True)
    for name in ("collect", "train-vae", "encode", "train-rnn"):
        finish(run, name)
    return run


def finish(run: Run, name: str) -> None:
    """Write the record of a stage, as if it had just been done (again)."""
    record = {
        "format": FORMAT,
        "stage": name,
        "id": uuid.uuid4().hex,
        "settings": ENGINE.settings_of(name, run.config),
        "inputs": ENGINE._inputs(name, run),
        "figures": {},
        "seconds": 1.0,
    }
    assert name in STAGES
    write_json(run.folder / "stages" / f"{name}.json", record)


def with_section(config: RunConfig, section: str, **settings: object) -> RunConfig:
    """The configuration with other settings in one section."""
    changed = dataclasses.replace(getattr(config, section), **settings)
    return dataclasses.replace(config, **{section: changed})


def with_evolve(config: RunConfig, **settings: object) -> RunConfig:
    """The configuration with other settings of `evolve`."""
    return with_section(config, "evolve", **settings)

"""`worldmodels-fast evaluate`: the stage of a run, or the agent of a finished world."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path

import tyro

from worldmodels_fast.cli import stage
from worldmodels_fast.cli.fidelity import compare_finished_world
from worldmodels_fast.cli.usage import PROGRAM, lacks_target
from worldmodels_fast.evaluation.beside_random import play_beside_random
from worldmodels_fast.evaluation.scores import Evaluation, save_evaluations
from worldmodels_fast.experiments.pipeline import compare_run
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.utils.settings import SettingsCheck
from worldmodels_fast.world import pretrained
from worldmodels_fast.world.world import World

DREAM_FIDELITY = "--dream-fidelity"
"""Option: compare dream and game instead, the evolved controller included."""


def command(args: list[str]) -> None:
    """Score the agent in the real game, beside the random policy."""
    fidelity = DREAM_FIDELITY in args
    args = [arg for arg in args if arg != DREAM_FIDELITY]
    if not lacks_target(args) and stage.is_world(args[0]):
        if fidelity:
            compare_finished_world(args[0], args[1:])
        else:
            prog = f"{PROGRAM} evaluate {args[0]}"
            score_world(args[0], tyro.cli(ScoreConfig, args=args[1:], prog=prog))
    elif fidelity and not lacks_target(args):
        compare_run(stage.open_stage_run("evaluate", args))
    else:
        stage.command(
            "evaluate",
            args,
            f"\nWith {DREAM_FIDELITY} the scores of open-loop policies and of the evolved "
            "controller\nin the dream are compared with those in the game.",
        )


@dataclass(frozen=True)
class ScoreConfig:
    """Score a finished world's agent in the real game, beside the random policy.

    Attributes:
        episodes: number of each player's, on the same seeds.
        unmodified_episodes: number of the agent's where the game has an unmodified environment
            besides ours (CarRacing: Gymnasium's, with its own drawing); None for `episodes`.
        seed: None for the world's own: then these are the episodes of its model card.
        workers: processes; None for as many as suit the machine. The scores do not depend on it.
        vae_precision: of V's convolutions, "fp32" or "bf16"; the scores depend on it a little.
        out: JSON file of every episode's score; None writes none.
    """

    episodes: int = 100
    unmodified_episodes: int | None = None
    seed: int | None = None
    workers: int | None = None
    vae_precision: VAEPrecision = "fp32"
    out: Path | None = None

    def check(self, prefix: str = "--") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("episodes", low=1)
        check.integers("unmodified_episodes", "seed", low=0, or_none=True)
        check.integers("workers", low=1, or_none=True)
        check.choice("vae_precision", typing.get_args(VAEPrecision))


def score_world(name_or_folder: str, config: ScoreConfig) -> dict[str, Evaluation]:
    """Return and print the scores of a finished world's agent and of the random policy.

    Args:
        name_or_folder: a bundled world, or a world's folder.
        config: numbers of episodes and so on.

    Raises:
        ValueError: no such world, or a setting out of range.
    """
    config.check()
    folder = pretrained.folder_of(name_or_folder)
    settings = World.load(folder).config
    seed = int(settings.get("seed", 0)) if config.seed is None else config.seed
    evaluations = play_beside_random(
        folder,
        settings["environment"],
        episodes=config.episodes,
        random_episodes=config.episodes,
        unmodified_episodes=(
            config.episodes if config.unmodified_episodes is None else config.unmodified_episodes
        ),
        seed=derive_seed(seed, "evaluate"),
        workers=config.workers,
        env_kwargs=settings.get("env_kwargs", {}),
        vae_precision=config.vae_precision,
        latent=settings.get("latent", "sample"),
    )
    if config.out is not None:
        save_evaluations(evaluations, config.out)
    return evaluations

"""The commands `evaluate` and `fidelity` on a finished world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels_fast.evaluation.beside_random import play_beside_random
from worldmodels_fast.evaluation.fidelity.compare import compare_with_game
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.scores import Evaluation, save_evaluations
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world import pretrained
from worldmodels_fast.world.world import World


@dataclass(frozen=True)
class ScoreConfig:
    """Let a finished world's agent play the real game, beside the random policy.

    Attributes:
        episodes: of each, on the same seeds.
        unmodified_episodes: the agent's where the game has an unmodified environment besides ours
            (CarRacing: Gymnasium's, with its own drawing); None for `episodes`.
        seed: None for the world's own: then these are the episodes of its model card.
        workers: processes; None for as many as suit the machine. The scores do not depend on it.
        vae_precision: of V's convolutions, "fp32" or "bf16"; the scores depend on it, if little.
        out: file for every episode's score, as JSON; None writes none.
    """

    episodes: int = 100
    unmodified_episodes: int | None = None
    seed: int | None = None
    workers: int | None = None
    vae_precision: VAEPrecision = "fp32"
    out: Path | None = None


def score_world(name_or_folder: str, config: ScoreConfig) -> dict[str, Evaluation]:
    """Score a bundled world or a world's folder, and print the scores.

    Raises:
        ValueError: no such world, or a setting out of range.
    """
    folder = pretrained.folder_of(name_or_folder)
    settings = World.load(folder).config
    seed = _own_seed(settings) if config.seed is None else config.seed
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


def compare_world(name_or_folder: str, config: FidelityConfig) -> list[FidelityRow]:
    """Compare a bundled world's dream, or that of a world's folder, with the game.

    Fixed policies play both, and the world's own controller.

    Raises:
        ValueError: no such world, one whose M predicts neither an end nor a reward, or a setting
            out of range.
    """
    world = pretrained.load_pretrained(name_or_folder)
    if not (world.mdn_rnn.predicts_done or world.mdn_rnn.predicts_reward):
        raise ValueError(
            f"fidelity: the M of {name_or_folder} predicts no end of an episode and no reward"
        )
    return compare_with_game(
        world.dream(temperature=1.0),
        world.config["environment"],
        config,
        seed=_own_seed(world.config),
        env_kwargs=world.config.get("env_kwargs", {}),
        controllers={"agent": world},
    )


def _own_seed(config: dict[str, Any]) -> int:
    return int(config.get("seed", 0))

"""A world against the real game: its agent's score, and whether its dream is as deadly.

The stages `evaluate` and `fidelity`, the same commands on a finished world, and the demo all do
this.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels_fast import envs, pretrained
from worldmodels_fast.agent import World
from worldmodels_fast.dream import Dream
from worldmodels_fast.encoder import VAEPrecision
from worldmodels_fast.evaluation import (
    EpisodeScore,
    Evaluation,
    FidelityRow,
    disagreements,
    evaluate_agent,
    evaluate_policy,
    fidelity,
    fidelity_table,
    save_evaluations,
)
from worldmodels_fast.evolution import derive_seed
from worldmodels_fast.progress import StageProgress, console
from worldmodels_fast.recipes import FidelityConfig

RANDOM_POLICY = "uniform"
"""The paper's random baseline: a fresh uniform action at every step."""


MOST_SCORES_PRINTED = 12
"""Up to so many episodes, every score is printed."""


@dataclass(frozen=True)
class ScoreConfig:
    """Let a finished world's agent play the real game, beside the random policy.

    Attributes:
        episodes: of each, on the same seeds.
        seed: None for the world's own: then these are the episodes of its model card.
        workers: processes; None for as many as suit the machine. The scores do not depend on it.
        vae_precision: of V's convolutions, "fp32" or "bf16"; the scores depend on it, if little.
        out: file for every episode's score, as JSON; None writes none.
    """

    episodes: int = 100
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
        seed=derive_seed(seed, "evaluate"),
        workers=config.workers,
        env_kwargs=settings.get("env_kwargs", {}),
        vae_precision=config.vae_precision,
    )
    if config.out is not None:
        save_evaluations(evaluations, config.out)
    return evaluations


def compare_world(name_or_folder: str, config: FidelityConfig) -> list[FidelityRow]:
    """Compare a bundled world's dream, or that of a world's folder, with the game.

    Raises:
        ValueError: no such world, or a setting out of range.
    """
    world = pretrained.load_pretrained(name_or_folder)
    return compare_with_game(
        world.dream(temperature=1.0),
        world.config["environment"],
        config,
        seed=_own_seed(world.config),
        env_kwargs=world.config.get("env_kwargs", {}),
    )


def _own_seed(config: dict[str, Any]) -> int:
    return int(config.get("seed", 0))


def play_beside_random(
    world: Path,
    environment: str,
    *,
    episodes: int,
    random_episodes: int,
    seed: int,
    workers: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    progress_folder: Path | None = None,
    vae_precision: VAEPrecision = "fp32",
) -> dict[str, Evaluation]:
    """Play the real game with the agent and with the random policy, on the same seeds.

    Args:
        world: the world's folder.
        environment: a name from `envs.ENVIRONMENTS`.
        episodes: the agent's.
        random_episodes: the random policy's.
        seed: of both.
        workers: processes; None for as many as suit the machine.
        env_kwargs: settings of the environment.
        progress_folder: where finished episodes are kept, so that a killed evaluation goes on.
        vae_precision: the agent's, see `PackedEncoder`.

    Returns:
        the evaluations of "agent" and "random", whose summaries are also printed.
    """
    plays: dict[str, tuple[int, Callable[..., Evaluation]]] = {
        "agent": (episodes, functools.partial(evaluate_agent, world, vae_precision=vae_precision)),
        "random": (random_episodes, functools.partial(evaluate_policy, RANDOM_POLICY)),
    }
    evaluations = {}
    for name, (n, play) in plays.items():
        path = None if progress_folder is None else progress_folder / f"evaluate-{name}.jsonl"
        with StageProgress(f"evaluate {name}", n, "episodes") as progress:
            evaluations[name] = play(
                envs.ENVIRONMENTS[environment].env_id,
                episodes=n,
                seed=seed,
                workers=workers,
                env_kwargs=env_kwargs,
                progress_path=path,
                on_episode=functools.partial(_show, progress),
            )
    settings = ", ".join(f"{key} {value}" for key, value in (env_kwargs or {}).items())
    console.print(
        f"\nSteps survived in the real game ({environment}{', ' if settings else ''}{settings}), "
        "mean +- std [95% interval of the mean]:"
    )
    for name, evaluation in evaluations.items():
        scores = " ".join(f"{score:.0f}" for score in evaluation.scores)
        few = f"  ({scores})" if len(evaluation.episodes) <= MOST_SCORES_PRINTED else ""
        console.print(
            f"  {name:<7} {evaluation.summary()}  {len(evaluation.episodes)} episodes{few}"
        )
    return evaluations


def compare_with_game(
    dream: Dream,
    environment: str,
    config: FidelityConfig,
    *,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> list[FidelityRow]:
    """Let fixed policies survive in the dream and in the game; print the table and warn.

    Args:
        dream: the dream, at temperature 1 if the comparison is to be fair.
        environment: a name from `envs.ENVIRONMENTS`.
        config: policies and numbers of episodes.
        seed: of both.
        env_kwargs: settings of the environment.
        folder: where the game's finished episodes are kept; see `evaluation.fidelity`.
    """
    n = len(config.policies) * config.real_episodes
    with StageProgress("fidelity", n, "real episodes") as progress:
        rows = fidelity(
            dream,
            envs.ENVIRONMENTS[environment].env_id,
            policies=config.policies,
            episodes=config.real_episodes,
            dream_episodes=config.dream_episodes,
            seed=seed,
            env_kwargs=env_kwargs,
            folder=folder,
            on_episode=lambda score, done, total: progress.update(done),
        )
    console.print(fidelity_table(rows))
    for row in disagreements(rows, config.warn_factor):
        console.print(
            f"warning: `{row.player}` survives {row.ratio:.2f} times as long in the dream as in "
            "the game: what evolves in there may fail in reality",
            style="yellow",
        )
    return rows


def _show(progress: StageProgress, score: EpisodeScore, done: int, total: int) -> None:
    progress.update(done, f"survived {score.score:.0f}")

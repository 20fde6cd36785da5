"""Open-loop policies and controllers, each in the dream and in the game."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast import envs
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.envs.policies import FIDELITY_POLICIES
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evaluation.evaluate import evaluate_agent, evaluate_policies, show_episode
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.fidelity.row import (
    FidelityRow,
    Measure,
    disagreements,
    fidelity_table,
)
from worldmodels_fast.evaluation.finished_episodes import OnEpisode
from worldmodels_fast.evaluation.scores import EpisodeScore
from worldmodels_fast.utils.progress import StageProgress, console
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World


def fidelity(
    dream: Dream,
    env_id: str,
    *,
    policies: Sequence[str] = FIDELITY_POLICIES,
    episodes: int = 100,
    dream_episodes: int = 256,
    seed: int = 0,
    workers: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    squash: Squash | None = None,
    steps: int | None = None,
    folder: Path | None = None,
    on_episode: OnEpisode | None = None,
) -> list[FidelityRow]:
    """Return the scores of open-loop policies in the dream and in the game: is it as deadly?

    Compare before evolving anything in a dream, at temperature 1. CMA-ES finds the controller that
    stands wherever the dream does not end. Where M predicts rewards, their sums are compared, over
    as many steps as the game has at most.

    Args:
        dream: the dream, at its temperature and threshold.
        env_id: the real game.
        policies: names of open-loop policies, a row each.
        episodes: number of each policy's in the game.
        dream_episodes: number of each policy's in the dream.
        seed: of dream and game.
        workers: processes that play the game.
        env_kwargs: settings of the game.
        squash: the game's actions; see `Policy`.
        steps: of a dream whose rewards are added up; None for the dream's max_steps.
        folder: folder of the game's progress files, `game-POLICY.jsonl`; the game's episodes do
            not depend on the dream and are not played again for another one.
        on_episode: called for each episode of the game; see `OnEpisode`.
    """
    paths = None if folder is None else {p: folder / f"game-{p}.jsonl" for p in policies}
    games = evaluate_policies(
        policies,
        env_id,
        episodes,
        seed,
        workers,
        env_kwargs=env_kwargs,
        squash=squash,
        progress_paths=paths,
        on_episode=on_episode,
    )
    rows, noise = [], derive_seed(seed, "fidelity/dream")
    for policy, game in games.items():
        measure = measured_by(dream)
        dreamt: npt.ArrayLike
        if measure == "reward":
            dreamt = dream.play_policy(policy, dream_episodes, noise, steps)[0]
        else:
            dreamt = dream.survival_of(policy, dream_episodes, noise)
        scores = measured(game.episodes, measure)
        rows.append(FidelityRow.compare(policy, scores, dreamt, measure=measure))
    return rows


def measured_by(dream: Dream) -> Measure:
    """Return the measure that suits a dream: rewards if its M predicts them, else steps."""
    return "reward" if dream.weights.predicts_reward else "steps"


def measured(episodes: Sequence[EpisodeScore], measure: Measure) -> list[float]:
    """Return the steps or the scores of episodes of the game, (n,)."""
    return [float(e.steps) if measure == "steps" else e.score for e in episodes]


def compare_with_game(
    dream: Dream,
    environment: str,
    config: FidelityConfig,
    *,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    folder: Path | None = None,
    controllers: Mapping[str, World] | None = None,
) -> list[FidelityRow]:
    """Return, print and judge the scores of players in the dream and in the game.

    Args:
        dream: the dream, at temperature 1 if the comparison is to be fair.
        environment: a name from `envs.ENVIRONMENTS`.
        config: policies and numbers of episodes.
        seed: of dream and game.
        env_kwargs: settings of the environment.
        folder: see `fidelity`.
        controllers: worlds whose agents play, too, by name: as many episodes of the game, and their
            own dreams at temperature 1.
    """
    config.check()
    spec = envs.ENVIRONMENTS[environment]
    n = len(config.policies) * config.real_episodes
    with StageProgress("fidelity", n, "real episodes") as progress:
        rows = fidelity(
            dream,
            spec.env_id,
            policies=config.policies,
            episodes=config.real_episodes,
            dream_episodes=config.dream_episodes,
            seed=seed,
            env_kwargs=env_kwargs,
            squash=spec.squash,
            steps=most_steps(spec, env_kwargs),
            folder=folder,
            on_episode=lambda score, done, total: progress.update(done),
        )
    for name, world in (controllers or {}).items():
        rows.append(
            compare_controller(
                name, world, environment, config, seed=seed, env_kwargs=env_kwargs, folder=folder
            )
        )
    print_fidelity(rows, config.warn_factor)
    return rows


def most_steps(spec: envs.EnvironmentSpec, env_kwargs: Mapping[str, Any] | None) -> int:
    """Return the number of steps after which an episode of the game is truncated."""
    return int((env_kwargs or {}).get("max_steps", spec.max_steps))


def print_fidelity(rows: Sequence[FidelityRow], warn_factor: float) -> None:
    """Print the table, and a warning for each row that differs by more than `warn_factor`."""
    console.print(fidelity_table(rows))
    for row in disagreements(rows, warn_factor):
        said = (
            f"survives {row.ratio:.2f} times as long in the dream as in the game"
            if row.measure == "steps"
            else f"is paid {row.dream.mean:.0f} in the dream and {row.game.mean:.0f} in the game"
        )
        console.print(
            f"warning: `{row.player}` {said}: a controller evolved in this dream may fail in the "
            "game",
            style="yellow",
        )


def compare_controller(
    name: str,
    world: World,
    environment: str,
    config: FidelityConfig,
    *,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> FidelityRow:
    """Return the row of a world's agent in the game and in its dream; see `compare_with_game`."""
    with StageProgress(f"fidelity of {name}", config.real_episodes, "real episodes") as progress:
        evaluation = evaluate_agent(
            world,
            envs.ENVIRONMENTS[environment].env_id,
            episodes=config.real_episodes,
            seed=seed,
            env_kwargs=env_kwargs,
            latent=world.config.get("latent", "sample"),
            progress_path=None if folder is None else folder / f"game-{name}.jsonl",
            on_episode=functools.partial(show_episode, progress),
        )
    return controller_row(name, world, evaluation.episodes, config.dream_episodes, seed=seed)


def controller_row(
    name: str, world: World, game: Sequence[EpisodeScore], dream_episodes: int, *, seed: int
) -> FidelityRow:
    """Return the row of an evolved controller from its game and its dream at temperature 1.

    Args:
        name: of the row.
        world: with the controller.
        game: the controller's episodes of the real game.
        dream_episodes: number of episodes in the dream.
        seed: of the run.
    """
    params = world.controller.flat.detach().numpy()[None]
    noise = derive_seed(seed, "fidelity/controllers")
    settings: dict[str, Any] = {"temperature": 1.0}
    if world.mdn_rnn.predicts_reward:  # returns need as many steps as the game has at most
        kwargs = world.config.get("env_kwargs")
        settings["max_steps"] = most_steps(envs.spec_of(world.config), kwargs)
    dream = world.dream(**settings)
    result, measure = dream.evaluate(params, dream_episodes, noise), measured_by(dream)
    dreamt = (result.returns if measure == "reward" else result.lengths)[0]
    scores = measured(game, measure)
    return FidelityRow.compare(name, scores, np.asarray(dreamt), "controller", measure)

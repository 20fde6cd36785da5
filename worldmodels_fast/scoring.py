"""A world against the real game: its agent's score, and whether its dream is as deadly.

The stages `evaluate` and `fidelity`, the same commands on a finished world, and the demo all do
this.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels_fast import envs, pretrained
from worldmodels_fast.agent import World
from worldmodels_fast.dream import Dream
from worldmodels_fast.encoder import VAEPrecision
from worldmodels_fast.evaluation import (
    EpisodeScore,
    Evaluation,
    FidelityRow,
    Summary,
    disagreements,
    evaluate_agent,
    evaluate_policy,
    fidelity,
    fidelity_table,
    measured,
    measured_by,
    save_evaluations,
)
from worldmodels_fast.evolution import derive_seed
from worldmodels_fast.progress import StageProgress, console
from worldmodels_fast.recipes import FidelityConfig
from worldmodels_fast.rollout import Latent

RANDOM_POLICY = "uniform"
"""The paper's random baseline: a fresh uniform action at every step."""


UNMODIFIED = "agent-unmodified"
"""The agent in the game's unmodified environment, with its own drawing (CarRacing: Gymnasium's)."""

MOST_SCORES_PRINTED = 12
"""Up to so many episodes, every score is printed."""


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


def play_beside_random(
    world: World | Path,
    environment: str,
    *,
    episodes: int,
    random_episodes: int,
    unmodified_episodes: int = 0,
    seed: int,
    workers: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    progress_folder: Path | None = None,
    vae_precision: VAEPrecision = "fp32",
    latent: Latent = "sample",
    others: Mapping[str, World] | None = None,
) -> dict[str, Evaluation]:
    """Play the real game with the agent and with the random policy, on the same seeds.

    Args:
        world: the world or its folder.
        environment: a name from `envs.ENVIRONMENTS`.
        episodes: the agent's, and those of each of the others.
        random_episodes: the random policy's.
        unmodified_episodes: the agent's in the game's unmodified environment, if it has one.
        seed: of all.
        workers: processes; None for as many as suit the machine.
        env_kwargs: settings of the environment.
        progress_folder: where finished episodes are kept, so that a killed evaluation goes on.
        vae_precision: the agents', see `PackedEncoder`.
        latent: what they see, see `Agent`.
        others: further agents, by name.

    Returns:
        the evaluations of "agent", the others, "agent-unmodified" and "random", whose summaries
        are also printed.
    """
    card = envs.ENVIRONMENTS[environment]
    agent = functools.partial(evaluate_agent, vae_precision=vae_precision, latent=latent)
    plays: dict[str, tuple[int, str, Callable[..., Evaluation]]] = {
        name: (episodes, card.env_id, functools.partial(agent, player))
        for name, player in {"agent": world, **(others or {})}.items()
    }
    if card.unmodified_id is not None and unmodified_episodes:
        plays[UNMODIFIED] = (
            unmodified_episodes,
            card.unmodified_id,
            functools.partial(agent, world),
        )
    random = functools.partial(evaluate_policy, RANDOM_POLICY, squash=card.squash)
    plays["random"] = (random_episodes, card.env_id, random)
    evaluations = {}
    for name, (n, env_id, play) in plays.items():
        path = None if progress_folder is None else progress_folder / f"evaluate-{name}.jsonl"
        with StageProgress(f"evaluate {name}", n, "episodes") as progress:
            evaluations[name] = play(
                env_id,
                episodes=n,
                seed=seed,
                workers=workers,
                env_kwargs=env_kwargs,
                progress_path=path,
                on_episode=functools.partial(show, progress),
            )
    settings = ", ".join(f"{key} {value}" for key, value in (env_kwargs or {}).items())
    console.print(
        f"\n{card.score.capitalize()} in the real game "
        f"({environment}{', ' if settings else ''}{settings}), "
        "mean +- std [95% interval of the mean]:"
    )
    width = max(7, *map(len, evaluations))
    for name, evaluation in evaluations.items():
        scores = " ".join(f"{score:.0f}" for score in evaluation.scores)
        few = f"  ({scores})" if len(evaluation.episodes) <= MOST_SCORES_PRINTED else ""
        console.print(
            f"  {name:<{width}} {evaluation.summary()}  {len(evaluation.episodes)} episodes{few}"
        )
    return evaluations


def unmodified_beside(evaluations: Mapping[str, Evaluation]) -> str:
    """Say how the agent's scores in the unmodified environment differ from those in ours."""
    ours = {episode.episode: episode.score for episode in evaluations["agent"].episodes}
    pairs = [
        (episode.score, ours[episode.episode])
        for episode in evaluations[UNMODIFIED].episodes
        if episode.episode in ours
    ]
    if not pairs:
        return "no episode in common."
    difference = np.subtract(*np.array(pairs).T)
    return (
        f"{difference.mean():+.1f} on average over {len(pairs)} episodes (standard deviation of "
        f"the differences {difference.std():.1f}; {np.mean(difference == 0):.0%} are the same)."
    )


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
    """Let players play in the dream and in the game; print the table and warn.

    Args:
        dream: the dream, at temperature 1 if the comparison is to be fair.
        environment: a name from `envs.ENVIRONMENTS`.
        config: policies and numbers of episodes.
        seed: of both.
        env_kwargs: settings of the environment.
        folder: where the game's finished episodes are kept; see `evaluation.fidelity`.
        controllers: worlds whose agents play, beside the fixed policies, by name; in the game as
            many episodes, and their own dreams at temperature 1.
    """
    card = envs.ENVIRONMENTS[environment]
    n = len(config.policies) * config.real_episodes
    with StageProgress("fidelity", n, "real episodes") as progress:
        rows = fidelity(
            dream,
            card.env_id,
            policies=config.policies,
            episodes=config.real_episodes,
            dream_episodes=config.dream_episodes,
            seed=seed,
            env_kwargs=env_kwargs,
            squash=card.squash,
            steps=_most_steps(card, env_kwargs),
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


def _most_steps(card: envs.EnvironmentCard, env_kwargs: Mapping[str, Any] | None) -> int:
    """Steps after which an episode of the game is cut."""
    return int((env_kwargs or {}).get("max_steps", card.max_steps))


def print_fidelity(rows: Sequence[FidelityRow], warn_factor: float) -> None:
    """Print the table, and a warning for each row that differs by more than this factor."""
    console.print(fidelity_table(rows))
    for row in disagreements(rows, warn_factor):
        said = (
            f"survives {row.ratio:.2f} times as long in the dream as in the game"
            if row.measure == "steps"
            else f"is paid {row.dream.mean:.0f} in the dream and {row.game.mean:.0f} in the game"
        )
        console.print(
            f"warning: `{row.player}` {said}: what evolves in there may fail in reality",
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
    """Let a world's agent play in the game and in its dream; see `compare_with_game`."""
    with StageProgress(f"fidelity of {name}", config.real_episodes, "real episodes") as progress:
        evaluation = evaluate_agent(
            world,
            envs.ENVIRONMENTS[environment].env_id,
            episodes=config.real_episodes,
            seed=seed,
            env_kwargs=env_kwargs,
            latent=world.config.get("latent", "sample"),
            progress_path=None if folder is None else folder / f"game-{name}.jsonl",
            on_episode=functools.partial(show, progress),
        )
    return controller_row(name, world, evaluation.episodes, config.dream_episodes, seed=seed)


def controller_row(
    name: str, world: World, game: Sequence[EpisodeScore], dream_episodes: int, *, seed: int
) -> FidelityRow:
    """The row of an evolved controller: what comes of it in the game, and in the dream at tau = 1.

    Args:
        name: of the row.
        world: the controller's world.
        game: its episodes of the real game.
        dream_episodes: of it in the dream.
        seed: the run's.
    """
    params = world.controller.flat.detach().numpy()[None]
    noise = derive_seed(seed, "fidelity/controllers")
    settings: dict[str, Any] = {"temperature": 1.0}
    if world.mdn_rnn.predicts_reward:  # returns need as many steps as the game has at most
        kwargs = world.config.get("env_kwargs")
        settings["max_steps"] = _most_steps(envs.card_of(world.config), kwargs)
    dream = world.dream(**settings)
    result, measure = dream.evaluate(params, dream_episodes, noise), measured_by(dream)
    dreamt = (result.returns if measure == "reward" else result.lengths)[0]
    scores = measured(game, measure)
    return FidelityRow.compare(name, scores, np.asarray(dreamt), "controller", measure)


def write_fidelity(path: Path, rows: Sequence[FidelityRow]) -> None:
    """Write rows as JSON; what was in the file is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    text = json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}, indent=1)
    unfinished.write_text(text + "\n")
    os.replace(unfinished, path)


def read_fidelity(path: Path) -> list[FidelityRow]:
    """Read what `write_fidelity` wrote; no rows if there is no file."""
    if not path.is_file():
        return []
    rows = []
    for raw in json.loads(path.read_text())["rows"]:
        summaries = {key: Summary(**raw[key]) for key in ("game", "dream")}
        rows.append(FidelityRow(**{**raw, **summaries}))
    return rows


def write_controller_rows(path: Path, rows: Sequence[FidelityRow]) -> None:
    """Add rows of evolved controllers to those in the file; one of the same name is replaced."""
    names = {row.player for row in rows}
    kept = [row for row in read_fidelity(path) if row.kind == "policy" or row.player not in names]
    write_fidelity(path, [*kept, *rows])


def show(progress: StageProgress, score: EpisodeScore, done: int, total: int) -> None:
    """Show an episode that is over (an `OnEpisode`, but for the progress)."""
    progress.update(done, f"the last one scored {score.score:.0f}")

"""Dream and game compared, printed and stored: `fidelity.json`."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels_fast import envs
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evaluation.config import FidelityConfig
from worldmodels_fast.evaluation.evaluate import evaluate_agent
from worldmodels_fast.evaluation.fidelity import (
    FidelityRow,
    disagreements,
    fidelity,
    fidelity_table,
    measured,
    measured_by,
)
from worldmodels_fast.evaluation.scores import EpisodeScore
from worldmodels_fast.evaluation.scoring import show
from worldmodels_fast.evaluation.statistics import Summary
from worldmodels_fast.utils.progress import StageProgress, console
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World


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
    """Steps after which an episode of the game is cut."""
    return int((env_kwargs or {}).get("max_steps", spec.max_steps))


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
        settings["max_steps"] = most_steps(envs.spec_of(world.config), kwargs)
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

"""An agent in the real game, beside the random policy on the same seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels_fast import envs
from worldmodels_fast.evaluation.evaluate import evaluate_agent, evaluate_policy, show_episode
from worldmodels_fast.evaluation.scores import Evaluation
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.utils.progress import StageProgress, console
from worldmodels_fast.world.world import World

RANDOM_POLICY = "uniform"
"""The paper's random baseline: a fresh uniform action at every step."""


UNMODIFIED = "agent-unmodified"
"""The agent in the game's unmodified environment, with its own drawing (CarRacing: Gymnasium's)."""


MOST_SCORES_PRINTED = 12
"""Every score is printed of an evaluation of at most so many episodes."""


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
    """Return and print the scores of the agent and of the random policy, on the same seeds.

    Args:
        world: the world or its folder.
        environment: a name from `envs.ENVIRONMENTS`.
        episodes: number of the agent's, and of each of the others'.
        random_episodes: number of the random policy's.
        unmodified_episodes: number of the agent's in the game's unmodified environment, if it has
            one.
        seed: of all evaluations.
        workers: processes; None for as many as suit the machine.
        env_kwargs: settings of the environment.
        progress_folder: folder of the progress files, `evaluate-NAME.jsonl`; None keeps none.
        vae_precision: of the agents, see `PackedEncoder`.
        latent: z that the agents see, see `Agent`.
        others: further agents, by name.

    Returns:
        The evaluations by name: "agent", the others', "agent-unmodified" and "random".
    """
    spec = envs.ENVIRONMENTS[environment]
    agent = functools.partial(evaluate_agent, vae_precision=vae_precision, latent=latent)
    plays: dict[str, tuple[int, str, Callable[..., Evaluation]]] = {
        name: (episodes, spec.env_id, functools.partial(agent, player))
        for name, player in {"agent": world, **(others or {})}.items()
    }
    if spec.unmodified_id is not None and unmodified_episodes:
        plays[UNMODIFIED] = (
            unmodified_episodes,
            spec.unmodified_id,
            functools.partial(agent, world),
        )
    random = functools.partial(evaluate_policy, RANDOM_POLICY, squash=spec.squash)
    plays["random"] = (random_episodes, spec.env_id, random)
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
                on_episode=functools.partial(show_episode, progress),
            )
    settings = ", ".join(f"{key} {value}" for key, value in (env_kwargs or {}).items())
    console.print(
        f"\n{spec.score.capitalize()} in the real game "
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
    """Return a sentence: the agent's scores in the unmodified environment less those in ours."""
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

"""Players in the real game: an agent or an open-loop policy plays many episodes.

Agents play many episodes at once (`rollout.game`), open-loop policies one in each worker process.
Finished episodes are kept in a progress file (`finished_episodes`), so a killed evaluation resumes
with the missing ones. The seeds of episode i depend on the evaluation's seed and on i alone: not on
the workers, and not on any seed that training used (`utils.seeding`, streams "evaluate/..."). Two
players under one seed play the same games.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from worldmodels_fast import envs, ops
from worldmodels_fast.envs.policies import make_policy
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evaluation.finished_episodes import (
    FinishedEpisodes,
    OnEpisode,
    PlayerEpisodes,
)
from worldmodels_fast.evaluation.open_loop import (
    PolicyEpisode,
    episode_score,
    episode_seeds,
    play_policy_episode,
)
from worldmodels_fast.evaluation.scores import EpisodeScore, Evaluation
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.utils.processes import run_tasks
from worldmodels_fast.utils.progress import StageProgress
from worldmodels_fast.world.world import World

_DISTRIBUTIONS = ("worldmodels-fast", "vizdoom", "gymnasium", "torch", "numpy")


def evaluate_agent(
    world: World | Path | str,
    env_id: str,
    episodes: int = 100,
    seed: int = 0,
    workers: int | None = None,
    *,
    env_kwargs: dict[str, Any] | None = None,
    latent: Latent = "sample",
    vae_precision: VAEPrecision = "fp32",
    progress_path: Path | None = None,
    on_episode: OnEpisode | None = None,
) -> Evaluation:
    """Return the scores of a world's agent in the real game.

    Every episode is bitwise the one that `Agent` plays by itself from the same seeds.

    Args:
        world: the world or its folder.
        env_id: a Gymnasium id, e.g. "worldmodels_fast/TakeCover-v0".
        episodes: number of episodes.
        seed: of the evaluation, from 0; see the module.
        workers: processes that step environments; None for as many as suit the machine.
        env_kwargs: settings of the environment.
        latent: see `Agent`.
        vae_precision: see `PackedEncoder`.
        progress_path: see `PlayerEpisodes`.
        on_episode: see `OnEpisode`.

    Raises:
        ValueError: a setting out of range, or a `progress_path` of other settings.
        RuntimeError: an episode failed three times; the message says why.
    """
    if not isinstance(world, World):
        world = World.load(world)
    settings = {
        "player": "agent",
        "world": world.digest(),
        "latent": latent,
        "precision": "fp32",
        "vae_precision": ops.resolve_precision(vae_precision, "vae_encoder"),
        "backend": ops.default_backend(),
        **_environment_settings(env_id, env_kwargs, seed),
    }
    finished = FinishedEpisodes([PlayerEpisodes(settings, episodes, progress_path)], on_episode)
    missing = [episode for _, episode in finished.missing]
    if missing:
        with world.game(
            env_id,
            env_kwargs=env_kwargs,
            latent=latent,
            vae_precision=vae_precision,
            workers=workers,
        ) as game:

            def add(index: int, result: EpisodeResult) -> None:
                finished.add(0, episode_score(missing[index], played[index].env_seed, result))

            played = [Episode(*episode_seeds(seed, episode)) for episode in missing]
            params = world.controller.flat.detach().numpy()
            game.play(params[None], played, add)
    return finished.evaluations()[0]


def evaluate_policy(
    policy: str,
    env_id: str,
    episodes: int = 100,
    seed: int = 0,
    workers: int | None = None,
    *,
    env_kwargs: dict[str, Any] | None = None,
    squash: Squash | None = None,
    progress_path: Path | None = None,
    on_episode: OnEpisode | None = None,
) -> Evaluation:
    """Return the scores of an open-loop policy (`policies.POLICY_NAMES`) in the real game.

    Args: as `evaluate_agent`'s, and `squash`, the environment's actions; see `Policy`.
    """
    paths = None if progress_path is None else {policy: progress_path}
    return evaluate_policies(
        [policy],
        env_id,
        episodes,
        seed,
        workers,
        env_kwargs=env_kwargs,
        squash=squash,
        progress_paths=paths,
        on_episode=on_episode,
    )[policy]


def evaluate_policies(
    policies: Sequence[str],
    env_id: str,
    episodes: int = 100,
    seed: int = 0,
    workers: int | None = None,
    *,
    env_kwargs: dict[str, Any] | None = None,
    squash: Squash | None = None,
    progress_paths: dict[str, Path] | None = None,
    on_episode: OnEpisode | None = None,
) -> dict[str, Evaluation]:
    """Return the scores of several open-loop policies by name; see `evaluate_policy`."""
    players = []
    for policy in dict.fromkeys(policies):
        make_policy(policy)  # an unknown name is an error here, not in a worker
        settings = {"player": policy, **_environment_settings(env_id, env_kwargs, seed)}
        path = (progress_paths or {}).get(policy)
        players.append(PlayerEpisodes(settings, episodes, path))
    finished = FinishedEpisodes(players, on_episode)
    tasks = [
        PolicyEpisode(
            number,
            episode,
            players[number].settings["player"],
            env_id,
            env_kwargs or {},
            squash,
            seed,
        )
        for number, episode in finished.missing
    ]
    for task, score in run_tasks(play_policy_episode, tasks, workers=workers):
        finished.add(task.player, score)
    return dict(zip(dict.fromkeys(policies), finished.evaluations(), strict=True))


def _environment_settings(
    env_id: str, env_kwargs: dict[str, Any] | None, seed: int
) -> dict[str, Any]:
    """Return all that a score in this environment depends on, defaults included."""
    if seed < 0:
        raise ValueError(f"seed: expected a number from 0, got {seed}")
    module, _, name = env_id.rpartition(":")  # Gymnasium's "module:Name-v0"
    if module:
        import_module(module)
    spec = gymnasium.spec(name)
    entry = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    parameters = inspect.signature(creator).parameters.values() if creator is not None else ()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    environment = {**defaults, **spec.kwargs, **(env_kwargs or {})}
    if "max_steps" in environment and environment["max_steps"] is None:
        environment["max_steps"] = environment.get("max_episode_steps", spec.max_episode_steps)
    versions = {}
    engines = (
        known.engines
        for known in envs.ENVIRONMENTS.values()
        if spec.id in (known.env_id, known.unmodified_id)
    )
    for name in (*_DISTRIBUTIONS, *itertools.chain(*engines)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "env_id": env_id,
        "environment": environment,
        "seed": seed,
        "versions": versions,
    }


def show_episode(progress: StageProgress, score: EpisodeScore, done: int, total: int) -> None:
    """Show the score of an episode just finished; with `progress` bound it is an `OnEpisode`."""
    progress.update(done, f"the last one scored {score.score:.0f}")

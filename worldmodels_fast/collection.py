"""Stage `collect`: episodes of the real environment under policies that look at nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldmodels_fast import data, envs
from worldmodels_fast.data import Floats, Frames
from worldmodels_fast.policies import Policy, make_policy
from worldmodels_fast.workers import run_tasks

_SEED_STREAM = 1
"""Keeps collection's seeds apart from those of evaluation (another stream of the run's seed)."""


@dataclass(frozen=True)
class CollectConfig:
    """What is collected.

    Attributes:
        episodes: episodes kept in all.
        policies: names from `policies.py`, taken in turn, one for each episode.
        min_steps: an episode is kept if it is longer than this (paper: 100).
        shard_episodes: episodes in each shard.
        workers: processes; None takes every processor.
    """

    episodes: int = 10_000
    policies: tuple[str, ...] = ("held-random",)
    min_steps: int = 100
    shard_episodes: int = 25
    workers: int | None = None


@dataclass(frozen=True)
class ShardTask:
    """One worker's piece of work: everything that decides a shard's content."""

    folder: Path
    shard: int
    episodes: int
    environment: str
    env_kwargs: dict[str, Any] = field(hash=False)
    policies: tuple[str, ...]
    min_steps: int
    seed: int


def play_episode(
    env: gymnasium.Env[Frames, Floats],
    policy: Policy,
    max_steps: int,
    seed: int,
    rng: np.random.Generator,
) -> data.Episode:
    """Play one episode and return its (frame before the action, action) records."""
    policy.reset(rng)
    frame, _ = env.reset(seed=seed)
    frames: list[Frames] = []
    actions: list[Floats] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated) and len(frames) < max_steps:
        action = policy.act()
        frames.append(frame)
        actions.append(action)
        frame, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
    return data.Episode(
        frames=np.stack(frames),
        actions=np.stack(actions).astype(np.float32),
        rewards=np.asarray(rewards, dtype=np.float32),
        terminated=terminated,
        seed=seed,
    )


def collect_shard(task: ShardTask) -> tuple[int, int]:
    """Collect one shard; return (frames seen, frames kept). Depends on `task` alone."""
    card = envs.ENVIRONMENTS[task.environment]
    rng = np.random.default_rng((task.seed, _SEED_STREAM, task.shard))
    env = gymnasium.make(card.env_id, **task.env_kwargs)
    seen = 0
    kept: list[data.Episode] = []
    try:
        while len(kept) < task.episodes:
            name = task.policies[len(kept) % len(task.policies)]
            episode = play_episode(
                env,
                make_policy(name, card.action_dim),
                card.max_steps,
                int(rng.integers(2**31)),
                rng,
            )
            seen += len(episode)
            if len(episode) > task.min_steps:
                kept.append(episode)
    finally:
        env.close()
    data.write_episodes(task.folder, task.shard, kept, card.env_id)
    return seen, sum(map(len, kept))


def collect(
    folder: Path,
    environment: str,
    config: CollectConfig,
    *,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    on_shard: Callable[[int, int, int], None] = lambda episodes, seen, kept: None,
) -> None:
    """Collect every shard that `folder` does not hold yet.

    Args:
        folder: the `episodes/` folder.
        environment: a name from `envs.ENVIRONMENTS`.
        config: how much, under which policies.
        seed: the run's seed; shard s depends on (seed, s) alone, not on the number of workers.
        env_kwargs: settings of the environment.
        on_shard: called with (episodes, frames seen, frames kept) of each finished shard.

    Raises:
        ValueError: a setting is out of range, or a policy's name is unknown.
    """
    if config.episodes < 1 or config.shard_episodes < 1:
        raise ValueError(
            f"episodes, shard_episodes: expected at least 1, got {config.episodes}, "
            f"{config.shard_episodes}"
        )
    if not config.policies:
        raise ValueError("policies: expected the name of at least one")
    for name in config.policies:
        make_policy(name)
    longest = min(
        envs.ENVIRONMENTS[environment].max_steps,
        int((env_kwargs or {}).get("max_steps", envs.ENVIRONMENTS[environment].max_steps)),
    )
    if config.min_steps >= longest:
        raise ValueError(
            f"min_steps: {config.min_steps} would reject every episode: none is longer than "
            f"{longest} steps"
        )
    data.remove_unfinished(folder)
    n_shards = -(-config.episodes // config.shard_episodes)
    done = set(data.finished_shards(folder))
    tasks = [
        ShardTask(
            folder=folder,
            shard=shard,
            episodes=min(config.shard_episodes, config.episodes - shard * config.shard_episodes),
            environment=environment,
            env_kwargs=dict(env_kwargs or {}),
            policies=config.policies,
            min_steps=config.min_steps,
            seed=seed,
        )
        for shard in range(n_shards)
        if shard not in done
    ]
    for task, (seen, kept) in run_tasks(collect_shard, tasks, workers=config.workers):
        on_shard(task.episodes, seen, kept)
    data.remove_unfinished(folder)

"""Episodes of the game: under open-loop policies, or, in a further round, of an evolved agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from worldmodels_fast import data, envs
from worldmodels_fast.envs.policies import Policy, check_policies, make_policy
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.utils.processes import run_tasks
from worldmodels_fast.utils.settings import SettingsCheck, option_of

if TYPE_CHECKING:
    from worldmodels_fast.world.world import World

_SEED_STREAM = 1
"""Stream of the run's seed for collected episodes; evaluation has others."""

_AGENT_STREAM = 2
"""Stream of the run's seed for episodes that an agent plays."""


@dataclass(frozen=True)
class CollectConfig:
    """Settings of the collection.

    Attributes:
        episodes: number of episodes kept.
        policies: names of open-loop policies (`envs.policies`), one per episode in turn.
        min_steps: an episode is kept if it is longer than this (paper: 100).
        shard_episodes: episodes in each shard.
        workers: number of worker processes; None for one per processor.
    """

    episodes: int = 10_000
    policies: tuple[str, ...] = ("held-random",)
    min_steps: int = 100
    shard_episodes: int = 25
    workers: int | None = None

    def check(self, prefix: str = "--collect.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("episodes", "shard_episodes", low=1)
        check.integers("min_steps", low=0)
        check.integers("workers", low=1, or_none=True)
        check_policies(option_of(prefix, "policies"), self.policies)


@dataclass(frozen=True)
class ShardTask:
    """A worker's task: everything that decides a shard's content."""

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
    """Play one episode of at most `max_steps` steps under an open-loop policy, and return it."""
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
    """Write one shard, which depends on `task` alone; return (frames played, frames kept)."""
    spec = envs.ENVIRONMENTS[task.environment]
    rng = np.random.default_rng((task.seed, _SEED_STREAM, task.shard))
    env = envs.make_environment(spec.env_id, **task.env_kwargs)
    seen = 0
    kept: list[data.Episode] = []
    try:
        while len(kept) < task.episodes:
            name = task.policies[len(kept) % len(task.policies)]
            episode = play_episode(
                env,
                make_policy(name, spec.squash),
                spec.max_steps,
                int(rng.integers(2**31)),
                rng,
            )
            seen += len(episode)
            if len(episode) > task.min_steps:
                kept.append(episode)
    finally:
        env.close()
    data.write_episodes(task.folder, task.shard, kept, spec.env_id)
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
        config: see `CollectConfig`.
        seed: the run's seed; shard s depends on (seed, s) alone, not on the number of workers.
        env_kwargs: settings of the environment.
        on_shard: called with (episodes, frames played, frames kept) of each finished shard.

    Raises:
        ValueError: a setting is out of range, or a policy's name is unknown.
    """
    config.check()
    registered = envs.ENVIRONMENTS[environment].max_steps
    longest = min(registered, int((env_kwargs or {}).get("max_steps") or registered))
    if config.min_steps >= longest:
        raise ValueError(
            f"--collect.min-steps: expected fewer than {longest}, since no episode is longer and "
            f"all would be rejected, got {config.min_steps}"
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


def collect_with_agent(
    folder: Path,
    world: World,
    shards: Sequence[int],
    shard_episodes: int,
    *,
    sigma: float,
    seed: int,
    spread: float = 1.0,
    n_params: int | None = None,
    to_params: Callable[[Floats], Floats] = lambda noise: noise,
    vae_precision: VAEPrecision = "fp32",
    on_shard: Callable[[int, int, int], None] = lambda episodes, seen, kept: None,
) -> None:
    """Write shards of episodes that a world's agent plays.

    An agent exploits the errors of its dream; M, trained on these episodes too, corrects them. Each
    episode is played by the controller with Gaussian noise on its parameters, of the width of an
    evolution's population, so similar controllers play, too. Episode i of shard s
    depends on (seed, s, i) and the world alone.

    Args:
        folder: the `episodes/` folder.
        world: V, M and C, and the environment's name and settings.
        shards: numbers of the shards to write; those in `folder` are left as they are.
        shard_episodes: episodes in each shard.
        sigma: standard deviation of the noise on C's parameters.
        seed: the run's seed.
        spread: each episode's own sigma is log-uniform from sigma / spread to sigma.
        n_params: number of parameters that the evolution searched; None for all of C's.
        to_params: maps noise (P, n_params) on those to noise on C's parameters.
        vae_precision: of V, while the agent plays; see `PackedEncoder`.
        on_shard: called with (episodes, frames played, frames kept) of each finished shard.

    Raises:
        ValueError: sigma below 0, spread below 1, or fewer than one episode in a shard.
        RuntimeError: an episode failed three times.
    """
    if shard_episodes < 1:
        raise ValueError(f"shard_episodes: expected at least 1, got {shard_episodes}")
    if not sigma >= 0:
        raise ValueError(f"sigma: expected a number from 0, got {sigma}")
    if not spread >= 1:
        raise ValueError(f"spread: expected a number from 1, got {spread}")
    data.remove_unfinished(folder)
    done = set(data.finished_shards(folder))
    missing = [shard for shard in shards if shard not in done]
    if not missing:
        return
    best = world.controller.flat.detach().numpy()
    n_searched = best.size if n_params is None else n_params
    members: list[Floats] = []
    episodes: list[Episode] = []
    for shard in missing:
        rng = np.random.default_rng((seed, _AGENT_STREAM, shard))
        for _ in range(shard_episodes):
            size = sigma if spread == 1 else sigma * spread ** -rng.uniform()
            noise = np.float32(size) * rng.standard_normal((1, n_searched), dtype=np.float32)
            members.append(best + to_params(noise)[0])
            env_seed, player_seed = rng.integers(2**31, size=2).tolist()
            episodes.append(Episode(env_seed, player_seed, member=len(episodes)))

    records: dict[int, list[tuple[Frames, Floats, float]]] = {}
    finished: dict[int, data.Episode] = {}
    env_id = envs.spec_of(world.config).env_id

    def on_step(place: int, step: int, frame: Frames, action: Floats, reward: float) -> None:
        if step == 0:
            records[place] = []
        records[place].append((frame, action, reward))

    def on_episode(place: int, result: EpisodeResult) -> None:
        frames, actions, rewards = zip(*records.pop(place), strict=True)
        finished[place] = data.Episode(
            frames=np.stack(frames),
            actions=np.stack(actions),
            rewards=np.asarray(rewards, np.float32),
            terminated=result.terminated,
            seed=episodes[place].env_seed,
        )
        first = place // shard_episodes * shard_episodes
        places = range(first, first + shard_episodes)
        if all(p in finished for p in places):
            mine = [finished.pop(p) for p in places]
            data.write_episodes(folder, missing[first // shard_episodes], mine, env_id)
            n = sum(map(len, mine))
            on_shard(len(mine), n, n)

    with world.game(vae_precision=vae_precision) as game:
        game.play(np.stack(members), episodes, on_episode, on_step)
    data.remove_unfinished(folder)

"""Episodes of open-loop policies in the real game, one at a time in a worker process.

A worker imports this module and no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from worldmodels_fast import envs
from worldmodels_fast.envs.policies import make_policy
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evaluation.scores import EpisodeScore
from worldmodels_fast.rollout.episodes import EpisodeResult
from worldmodels_fast.utils.seeding import derive_seed


def episode_seeds(seed: int, episode: int) -> tuple[int, int]:
    """Return the seed that an episode's environment is reset with, and that of its player."""
    env_seed = derive_seed(seed, "evaluate/environment", episode) % 2**31
    return env_seed, derive_seed(seed, "evaluate/player", episode)


def episode_score(episode: int, env_seed: int, result: EpisodeResult) -> EpisodeScore:
    """Return an episode's result as its score."""
    return EpisodeScore(episode, env_seed, result.score, result.steps, result.terminated)


@dataclass(frozen=True)
class PolicyEpisode:
    """One episode of an open-loop policy, for a worker; error messages show its repr."""

    player: int
    episode: int
    policy: str
    env_id: str
    env_kwargs: dict[str, Any] = field(hash=False)
    squash: Squash | None
    seed: int


def play_policy_episode(task: PolicyEpisode) -> EpisodeScore:
    """Return the score of one episode (in a worker)."""
    env_seed, player_seed = episode_seeds(task.seed, task.episode)
    env = _environment(task.env_id, json.dumps(task.env_kwargs, sort_keys=True))
    policy = make_policy(task.policy, task.squash)
    policy.reset(np.random.default_rng(player_seed))
    try:
        env.reset(seed=env_seed)
        score, steps, terminated, truncated = 0.0, 0, False, False
        while not (terminated or truncated):
            _, reward, terminated, truncated, _ = env.step(policy.act())
            score += float(reward)
            steps += 1
    except Exception:
        # The next try of this episode gets an environment that has not failed.
        _environment.cache_clear()
        env.close()
        raise
    return episode_score(task.episode, env_seed, EpisodeResult(score, steps, bool(terminated)))


@lru_cache(maxsize=1)
def _environment(env_id: str, env_kwargs: str) -> Any:
    """Return this worker's environment: made once, closed when the process ends."""
    env = envs.make_environment(env_id, **json.loads(env_kwargs))
    Finalize(None, env.close, exitpriority=10)
    return env

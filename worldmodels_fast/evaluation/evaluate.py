"""Players in the real game: an agent or an open-loop policy plays many episodes.

Agents play many episodes at once (`rollout.game`), open-loop policies one in each worker process.
Each episode is appended to a JSON-lines file as soon as it is done, so a killed evaluation resumes
with the missing ones. Episode i's seeds depend on the evaluation's seed and i alone: not on the
workers, and not on any seed that training used (`utils.seeding`, streams "evaluate/..."). Two
players under one seed meet the same games.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from worldmodels_fast import envs, ops
from worldmodels_fast.envs.policies import make_policy
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.evaluation.scores import EpisodeScore, Evaluation
from worldmodels_fast.rollout.encoder import VAEPrecision, resolved
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.utils.processes import run_tasks
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World

OnEpisode = Callable[["EpisodeScore", int, int], None]
"""Called with (an episode just finished, episodes finished, episodes in all)."""


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
    """Let a world's agent play the real game.

    Every episode is bitwise the one that `Agent` plays by itself from the same seeds.

    Args:
        world: the world or its folder.
        env_id: a Gymnasium id, e.g. "worldmodels_fast/TakeCover-v0".
        episodes: how many.
        seed: of the evaluation, see the module.
        workers: processes that step environments; None for as many as suit the machine.
        env_kwargs: settings of the environment.
        latent: see `Agent`.
        vae_precision: see `PackedEncoder`.
        progress_path: JSON-lines file of the episodes finished so far; None keeps none.
        on_episode: see `OnEpisode`.

    Raises:
        ValueError: settings that make no sense, or a `progress_path` of other settings.
        RuntimeError: an episode failed three times; the message says why.
    """
    if not isinstance(world, World):
        world = World.load(world)
    settings = {
        "player": "agent",
        "world": world.digest(),
        "latent": latent,
        "precision": "fp32",
        "vae_precision": resolved(vae_precision),
        "backend": ops.default_backend(),
        **_environment_settings(env_id, env_kwargs, seed),
    }
    book = _Book([_Job(settings, episodes, progress_path)], on_episode)
    missing = [episode for _, episode in book.missing]
    if missing:
        with world.game(
            env_id,
            env_kwargs=env_kwargs,
            latent=latent,
            vae_precision=vae_precision,
            workers=workers,
        ) as game:

            def write(place: int, result: EpisodeResult) -> None:
                book.write(0, _score(missing[place], played[place].env_seed, result))

            played = [Episode(*_seeds(seed, episode)) for episode in missing]
            params = world.controller.flat.detach().numpy()
            game.play(params[None], played, write)
    return book.evaluations()[0]


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
    """Let a fixed policy (`policies.POLICY_NAMES`) play the real game.

    Args: as `evaluate_agent`'s, and the environment's actions, `squash`; see `Policy`.
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
    """Several fixed policies at once, by name; see `evaluate_policy`."""
    jobs = []
    for policy in dict.fromkeys(policies):
        make_policy(policy)  # an unknown name is an error here, not in a worker
        settings = {"player": policy, **_environment_settings(env_id, env_kwargs, seed)}
        path = (progress_paths or {}).get(policy)
        jobs.append(_Job(settings, episodes, path))
    book = _Book(jobs, on_episode)
    tasks = [
        _Task(
            number, episode, jobs[number].settings["player"], env_id, env_kwargs or {}, squash, seed
        )
        for number, episode in book.missing
    ]
    for task, score in run_tasks(_play, tasks, workers=workers):
        book.write(task.job, score)
    return dict(zip(dict.fromkeys(policies), book.evaluations(), strict=True))


@dataclass(frozen=True)
class _Job:
    """All episodes of one player."""

    settings: dict[str, Any]
    episodes: int
    progress_path: Path | None


class _Book:
    """The finished episodes of some jobs, in memory and in their files."""

    def __init__(self, jobs: Sequence[_Job], on_episode: OnEpisode | None) -> None:
        for job in jobs:
            if job.episodes < 1:
                raise ValueError(f"episodes: expected at least 1, got {job.episodes}")
        self._jobs = jobs
        self._on_episode = on_episode
        self._finished = [_read_progress(job) for job in jobs]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """(job, episode) of all that are still to be played."""
        return [
            (number, episode)
            for number, job in enumerate(self._jobs)
            for episode in range(job.episodes)
            if episode not in self._finished[number]
        ]

    def write(self, job: int, score: EpisodeScore) -> None:
        """Keep an episode that is over, and tell of it."""
        self._finished[job][score.episode] = score
        path = self._jobs[job].progress_path
        if path is not None:
            with path.open("a") as file:
                file.write(json.dumps(asdict(score)) + "\n")
        if self._on_episode is not None:
            done = sum(map(len, self._finished))
            self._on_episode(score, done, sum(job.episodes for job in self._jobs))

    def evaluations(self) -> list[Evaluation]:
        """The jobs' results, when all is played."""
        return [
            Evaluation(job.settings, tuple(scores[episode] for episode in range(job.episodes)))
            for job, scores in zip(self._jobs, self._finished, strict=True)
        ]


def _read_progress(job: _Job) -> dict[int, EpisodeScore]:
    """The episodes that a job's file holds; begins the file if there is none."""
    path = job.progress_path
    if path is None:
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().split("\n") if path.exists() else []
    complete = lines[:-1]  # a kill may have left half a line after the last newline
    settings = json.loads(json.dumps(job.settings, default=str))
    if complete:
        earlier = json.loads(complete[0])
        changed = [key for key in {**earlier, **settings} if earlier.get(key) != settings.get(key)]
        if changed:
            raise ValueError(
                f"progress_path: {path} was made with other settings ("
                + ", ".join(f"{k}: {earlier.get(k)!r}, now {settings.get(k)!r}" for k in changed)
                + "); delete it to evaluate anew"
            )
    else:
        complete = [json.dumps(settings)]
    path.write_text("".join(line + "\n" for line in complete))
    scores = [EpisodeScore(**json.loads(line)) for line in complete[1:]]
    return {score.episode: score for score in scores if score.episode < job.episodes}


def _environment_settings(
    env_id: str, env_kwargs: dict[str, Any] | None, seed: int
) -> dict[str, Any]:
    """All that a score in this environment depends on, with its defaults spelt out."""
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
        "environment": {**defaults, **spec.kwargs, **(env_kwargs or {})},
        "seed": seed,
        "versions": versions,
    }


def _seeds(seed: int, episode: int) -> tuple[int, int]:
    """What an episode's environment is reset with, and the seed of its player."""
    env_seed = derive_seed(seed, "evaluate/environment", episode) % 2**31
    return env_seed, derive_seed(seed, "evaluate/player", episode)


def _score(episode: int, env_seed: int, result: EpisodeResult) -> EpisodeScore:
    return EpisodeScore(episode, env_seed, result.score, result.steps, result.terminated)


@dataclass(frozen=True)
class _Task:
    """One episode of a fixed policy, for a worker; its repr is what an error message shows."""

    job: int
    episode: int
    policy: str
    env_id: str
    env_kwargs: dict[str, Any] = field(hash=False)
    squash: Squash | None
    seed: int


def _play(task: _Task) -> EpisodeScore:
    """Play one episode (in a worker)."""
    env_seed, player_seed = _seeds(task.seed, task.episode)
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
        # Whoever plays this episode again gets an environment that has not failed.
        _environment.cache_clear()
        env.close()
        raise
    return _score(task.episode, env_seed, EpisodeResult(score, steps, bool(terminated)))


@lru_cache(maxsize=1)
def _environment(env_id: str, env_kwargs: str) -> Any:
    """This worker's environment: made once, closed when the process ends."""
    env = gymnasium.make(env_id, **json.loads(env_kwargs))
    Finalize(None, env.close, exitpriority=10)
    return env

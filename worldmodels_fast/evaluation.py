"""Scores in the real game, and how far the dream's survival is from them.

Agents play many episodes at once (`rollout.Game`), fixed policies one in each worker process. Each
episode is kept in a JSON-lines file as soon as it is over, so a killed evaluation goes on with
those that are missing. Episode i's seeds depend on the evaluation's seed and i alone: not on the
workers, and not on any seed that training used (`evolution.derive_seed`, streams "evaluate/...").
Two players under one seed meet the same games.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import load_env_creator

from worldmodels_fast import envs, ops
from worldmodels_fast.agent import World
from worldmodels_fast.dream import Dream
from worldmodels_fast.encoder import VAEPrecision, resolved
from worldmodels_fast.evolution import derive_seed
from worldmodels_fast.policies import FIDELITY_POLICIES, make_policy
from worldmodels_fast.rollout import Episode, EpisodeResult, Latent
from worldmodels_fast.squash import Squash
from worldmodels_fast.workers import run_tasks

__all__ = [
    "EpisodeScore",
    "Evaluation",
    "FidelityRow",
    "Summary",
    "disagreements",
    "evaluate_agent",
    "evaluate_policies",
    "evaluate_policy",
    "fidelity",
    "fidelity_table",
    "load_evaluations",
    "save_evaluations",
    "summary",
]

OnEpisode = Callable[["EpisodeScore", int, int], None]
"""Called with (an episode just finished, episodes finished, episodes in all)."""

_DISTRIBUTIONS = ("worldmodels-fast", "vizdoom", "gymnasium", "torch", "numpy")


@dataclass(frozen=True)
class Summary:
    """A sample of scores in a few numbers.

    Attributes:
        n: number of scores.
        mean: their mean.
        std: their standard deviation (of the sample itself, ddof 0, as the paper's).
        low: lower end of the bootstrap 95% interval of the mean.
        high: its upper end.
        min: the lowest score.
        median: the middle one.
        max: the highest.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    min: float
    median: float
    max: float

    def __str__(self) -> str:
        return f"{self.mean:.0f} +- {self.std:.0f} [{self.low:.0f}, {self.high:.0f}]"


def summary(scores: npt.ArrayLike, resamples: int = 10_000) -> Summary:
    """Summarise scores (n,); the interval is the percentile bootstrap's, with a fixed seed."""
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"scores: expected at least one, shape (n,), got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("scores: expected finite numbers, got NaN or infinity")
    low, high = np.percentile(_bootstrap_means(x, resamples), (2.5, 97.5))
    return Summary(
        n=x.size,
        mean=float(x.mean()),
        std=float(x.std()),
        low=float(low),
        high=float(high),
        min=float(x.min()),
        median=float(np.median(x)),
        max=float(x.max()),
    )


def _bootstrap_means(
    x: npt.NDArray[np.float64], resamples: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Means of samples drawn from x with replacement, (resamples,)."""
    rng = np.random.default_rng(seed)
    return np.array([x[rng.integers(x.size, size=x.size)].mean() for _ in range(resamples)])


@dataclass(frozen=True)
class EpisodeScore:
    """One episode of the real game.

    Attributes:
        episode: its number, from 0.
        seed: what the environment was reset with.
        score: the undiscounted return.
        steps: its length.
        terminated: whether it ended by itself (a death), not by a time limit.
    """

    episode: int
    seed: int
    score: float
    steps: int
    terminated: bool


@dataclass(frozen=True)
class Evaluation:
    """Every episode's score, with the settings that they depend on.

    Attributes:
        settings: player, environment with all its arguments (Doom's skill among them), seed,
            precision, versions.
        episodes: in the order of their numbers.
    """

    settings: dict[str, Any]
    episodes: tuple[EpisodeScore, ...]

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """(n,) returns."""
        return np.array([episode.score for episode in self.episodes])

    def summary(self) -> Summary:
        """Mean, standard deviation, interval and so on of the scores."""
        return summary(self.scores)

    def to_json(self) -> dict[str, Any]:
        """Settings, summary and every episode, as JSON."""
        return {
            "settings": self.settings,
            "summary": asdict(self.summary()),
            "episodes": [asdict(episode) for episode in self.episodes],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        """The inverse of `to_json`."""
        episodes = tuple(EpisodeScore(**episode) for episode in data["episodes"])
        return cls(settings=data["settings"], episodes=episodes)


def save_evaluations(evaluations: dict[str, Evaluation], path: Path) -> None:
    """Write several players' settings, summaries and every episode's score as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    text = json.dumps({name: e.to_json() for name, e in evaluations.items()}, indent=1)
    unfinished.write_text(text + "\n")
    os.replace(unfinished, path)


def load_evaluations(path: Path) -> dict[str, Evaluation]:
    """Read what `save_evaluations` wrote."""
    return {name: Evaluation.from_json(e) for name, e in json.loads(path.read_text()).items()}


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


# --- dream against game -----------------------------------------------------------------------


Measure = Literal["steps", "reward"]
"""What dream and game are compared by: how long episodes last, or the sums of their rewards."""


@dataclass(frozen=True)
class FidelityRow:
    """What comes of one player in the game and in the dream.

    Attributes:
        player: a policy's name, or what else was compared.
        game: summary of its scores in the game.
        dream: the same in the dream.
        ratio: dream over game, of the means; None for rewards, whose means may be of either sign.
        ratio_low: lower end of the ratio's bootstrap 95% interval.
        ratio_high: its upper end.
        game_scores: every episode of the game.
        dream_scores: every episode of the dream.
        kind: "policy" for a fixed one, "controller" for an evolved one.
        measure: what the scores are: "steps" survived, or "reward" where M predicts that.
        difference: dream less game, of the means; for rewards.
        difference_low: lower end of its bootstrap 95% interval.
        difference_high: its upper end.
    """

    player: str
    game: Summary
    dream: Summary
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    game_scores: list[float] = field(repr=False)
    dream_scores: list[float] = field(repr=False)
    kind: str = "policy"
    measure: Measure = "steps"
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    @classmethod
    def compare(
        cls,
        player: str,
        game: npt.ArrayLike,
        dream: npt.ArrayLike,
        kind: str = "policy",
        measure: Measure = "steps",
    ) -> FidelityRow:
        """The row of one player from its scores in the game (n,) and in the dream (m,)."""
        real = np.asarray(game, dtype=np.float64)
        dreamt = np.asarray(dream, dtype=np.float64)
        means = _bootstrap_means(dreamt, 5000, seed=1), _bootstrap_means(real, 5000, seed=2)
        by_ratio = measure == "steps"
        low, high = np.percentile(
            means[0] / means[1] if by_ratio else means[0] - means[1], (2.5, 97.5)
        ).tolist()
        return cls(
            player=player,
            game=summary(real),
            dream=summary(dreamt),
            ratio=float(dreamt.mean() / real.mean()) if by_ratio else None,
            ratio_low=low if by_ratio else None,
            ratio_high=high if by_ratio else None,
            game_scores=real.tolist(),
            dream_scores=dreamt.tolist(),
            kind=kind,
            measure=measure,
            difference=None if by_ratio else float(dreamt.mean() - real.mean()),
            difference_low=None if by_ratio else low,
            difference_high=None if by_ratio else high,
        )

    def compared(self) -> str:
        """Dream against game in a table's cell: the ratio, or the difference of rewards."""
        if self.measure == "steps":
            return f"{self.ratio:.2f} [{self.ratio_low:.2f}, {self.ratio_high:.2f}]"
        return f"{self.difference:+.0f} [{self.difference_low:+.0f}, {self.difference_high:+.0f}]"

    def disagreement(self, factor: float) -> float:
        """How far dream and game differ; above 1 it is by more than a factor.

        Rewards have no ratio. For them it is more than factor - 1 of the game's mean, or of the
        standard deviation of its scores if that is larger.
        """
        if self.ratio is not None:
            return float(abs(np.log(self.ratio)) / np.log(factor))
        assert self.difference is not None
        scale = max(abs(self.game.mean), self.game.std, 1e-9)
        return abs(self.difference) / ((factor - 1) * scale)


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
    """What comes of fixed policies in the dream, beside the game: is the dream as deadly?

    Look at this before evolving anything in a dream (and use temperature 1 for it). Where the
    dream forgets to kill, a controller will be found that stands there. Where M predicts rewards,
    their sums are compared, over as many steps as the game has at most: an episode that ends
    before that has no more.

    Args:
        dream: the dream, at its temperature and threshold.
        env_id: the real game.
        policies: names of the rows.
        episodes: of each policy in the game.
        dream_episodes: of each policy in the dream.
        seed: of both.
        workers: processes for the game.
        env_kwargs: settings of the game.
        squash: the game's actions; see `Policy`.
        steps: of a dream whose rewards are added up; None for the dream's own most.
        folder: where the game's finished episodes are kept, one JSON-lines file per policy; they
            do not depend on the dream and are not played again for another one.
        on_episode: see `OnEpisode`; for the game's.
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
    """What a dream is compared with the game by: rewards, if its M predicts them."""
    return "reward" if dream.weights.predicts_reward else "steps"


def measured(episodes: Sequence[EpisodeScore], measure: Measure) -> list[float]:
    """The steps or the scores of some episodes of the game."""
    return [float(e.steps) if measure == "steps" else e.score for e in episodes]


def fidelity_table(rows: Sequence[FidelityRow]) -> str:
    """The rows as a Markdown table: mean +- std [95% interval of the mean], steps or rewards."""
    sign = "-" if any(row.measure == "reward" for row in rows) else "/"
    lines = [f"| player | game | dream | dream {sign} game |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.player} | {row.game} | {row.dream} | {row.compared()} |" for row in rows]
    return "\n".join(lines)


def disagreements(rows: Sequence[FidelityRow], factor: float = 1.5) -> list[FidelityRow]:
    """Those rows whose dream and game differ by more than a factor, the worst first.

    The ratio lies outside of [1 / factor, factor]; for rewards see `FidelityRow.disagreement`.
    """
    bad = [row for row in rows if row.disagreement(factor) > 1]
    return sorted(bad, key=lambda row: -row.disagreement(factor))


# --- playing ----------------------------------------------------------------------------------


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
        card.engines
        for card in envs.ENVIRONMENTS.values()
        if spec.id in (card.env_id, card.unmodified_id)
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

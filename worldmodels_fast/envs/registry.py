"""The environments: one specification each, registered with Gymnasium."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from worldmodels_fast.envs.squash import CAR_RACING_SQUASH, Squash

FRAME_SIZE = 64
"""Height and width of V's frames in pixels."""

CAR_RACING_ENV_ID = "worldmodels_fast/CarRacing-v0"
"""CarRacing with Gymnasium's own observation, 96x96: takes the place of CarRacing-v3, but fast."""

DEFAULT_ENVIRONMENT = "take-cover"
"""Environment of runs whose config.json names none: they are older than the second one."""

DREAM_ENV_ID = "worldmodels_fast/TakeCoverDream-v0"
"""The dream as a vector environment, for `gymnasium.make_vec`."""


AUTHORS_CORES = 64
"""Cores on which the paper's authors evolved their controllers."""


@dataclass(frozen=True)
class AuthorsCurve:
    """The learning curve that the paper's authors had in this environment.

    Attributes:
        name: for the legend.
        folder: of their log, see `report.curves.published_folder`.
        quoted: points that are commonly quoted, for where the log is missing: generations done,
            core-hours (NaN where not known), best score so far.
    """

    name: str
    folder: str
    quoted: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class EnvironmentSpec:
    """A real environment, for the rest of the package.

    Attributes:
        env_id: Gymnasium id.
        entry_point: the class, as Gymnasium's "module:name".
        squash: its continuous actions: their ranges, and how C's outputs become them.
        max_steps: registered limit of an episode's steps, in Gymnasium `max_episode_steps`.
        random_score: the paper's score of a random policy, for plots (None: not stated).
        solved_score: the score from which the paper calls the task solved.
        kwargs: default keyword arguments of the environment.
        score: name of the sum of an episode's rewards.
        fps: steps in a second of the game.
        paper_scores: the paper's table: mean and standard deviation of each player over 100
            episodes.
        unmodified_id: Gymnasium id of the same game, of the same arguments and seeds, in somebody
            else's unmodified environment: final scores are given there, too. None if there is none.
        unmodified_entry_point: the class of `unmodified_id`.
        engines: the distributions, beside ours and Gymnasium's, on whose versions scores depend.
        open_loop_policy: name of the policy that plays in videos where no controller has evolved.
        paper_losses: ends of the authors' training logs, where known: "reconstruction", "kl",
            "z_loss", "weighted_loss".
        authors_curve: their learning curve, for reports; None: not known.
        contents: dotted name of the module that measures what frames of this game show (see
            `evaluation.quality.contents`); None if there is none.
    """

    env_id: str
    entry_point: str
    squash: Squash
    max_steps: int
    random_score: float | None
    solved_score: float
    kwargs: dict[str, object] = field(default_factory=dict)
    score: str = "steps survived"
    fps: int = 35
    paper_scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unmodified_id: str | None = None
    unmodified_entry_point: str | None = None
    engines: tuple[str, ...] = ()
    open_loop_policy: str = "uniform"
    paper_losses: Mapping[str, float] = field(default_factory=dict)
    authors_curve: AuthorsCurve | None = None
    contents: str | None = None

    @property
    def action_dim(self) -> int:
        """Number of continuous actions A."""
        return self.squash.action_dim


ENVIRONMENTS: dict[str, EnvironmentSpec] = {
    "car-racing": EnvironmentSpec(
        env_id="worldmodels_fast/CarRacing64-v0",
        entry_point="worldmodels_fast.envs.car_racing:CarRacingEnv",
        squash=CAR_RACING_SQUASH,
        max_steps=1000,
        random_score=None,
        solved_score=900.0,
        kwargs={"frame": "world-models"},
        score="reward",
        fps=50,
        paper_scores={
            "z only": (632.0, 251.0),
            "z, with a hidden layer": (788.0, 141.0),
            "z and h": (906.0, 21.0),
        },
        unmodified_id="worldmodels_fast/GymnasiumCarRacing64-v0",
        unmodified_entry_point=(
            "worldmodels_fast.envs.gymnasium_car_racing:GymnasiumCarRacing64Env"
        ),
        engines=("box2d", "pygame-ce", "pygame"),
        open_loop_policy="random-linear",  # about straight on
        authors_curve=AuthorsCurve(  # 46.6 days on 64 cores
            name="the authors, 64 cores",
            folder="carracing",
            quoted=(
                (25, 15.6 * AUTHORS_CORES, 823.0),
                (200, 114.6 * AUTHORS_CORES, 880.0),
                (1800, 46.6 * 24 * AUTHORS_CORES, 900.5),
            ),
        ),
    ),
    "take-cover": EnvironmentSpec(
        env_id="worldmodels_fast/TakeCover-v0",
        entry_point="worldmodels_fast.envs.take_cover:TakeCoverEnv",
        squash=Squash.plain(1),
        max_steps=2100,
        random_score=210.0,
        solved_score=750.0,
        paper_scores={"tau 1.15": (1092.0, 556.0), "random policy": (210.0, 108.0)},
        open_loop_policy="swing-40",  # from wall to wall
        paper_losses={
            "reconstruction": 4.0,
            "kl": 32.0,
            "z_loss": 0.98,
            "weighted_loss": 0.0005,
        },
        authors_curve=AuthorsCurve(  # 54 hours on 64 cores
            name="the authors, tau 1.25, 64 cores",
            folder="doom",
            quoted=(
                (25, math.nan, 702.0),
                (200, 4.0 * AUTHORS_CORES, 815.0),
                (1800, 54.0 * AUTHORS_CORES, 958.0),
            ),
        ),
        contents="worldmodels_fast.evaluation.quality.take_cover",
    ),
}


def spec_of(config: Mapping[str, Any]) -> EnvironmentSpec:
    """Return the spec of the environment that a world's config.json names.

    Raises:
        ValueError: it names none, or none that is known.
    """
    name = config.get("environment")
    if name not in ENVIRONMENTS:
        raise ValueError(
            f"environment: the world's config.json should name one of {', '.join(ENVIRONMENTS)}, "
            f"got {name!r}"
        )
    return ENVIRONMENTS[name]


def make_environment(env_id: str | EnvSpec, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return `gymnasium.make`'s environment; a `max_steps` above the registered limit holds.

    The registered limit is Gymnasium's `TimeLimit`, which the argument `max_steps` of our
    environments cannot raise; runs and worlds state their limit by that argument alone.

    Args:
        env_id: Gymnasium id, or the registration itself.
        kwargs: arguments of the environment, and of `gymnasium.make`.
    """
    spec = env_id if isinstance(env_id, EnvSpec) else gymnasium.registry.get(env_id)
    most = kwargs.get("max_steps")
    limit = spec.max_episode_steps if spec is not None else None
    if limit is not None and isinstance(most, int) and most > limit:
        kwargs = {"max_episode_steps": most, **kwargs}
    return gymnasium.make(env_id, **kwargs)


def register_environments() -> None:
    """Register every environment of `ENVIRONMENTS` with Gymnasium, once."""
    for spec in ENVIRONMENTS.values():
        _register(spec.env_id, spec, spec.entry_point, dict(spec.kwargs))
        if spec.unmodified_id is not None and spec.unmodified_entry_point is not None:
            _register(spec.unmodified_id, spec, spec.unmodified_entry_point)
    car_racing = ENVIRONMENTS["car-racing"]
    _register(CAR_RACING_ENV_ID, car_racing, car_racing.entry_point)
    if DREAM_ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=DREAM_ENV_ID, vector_entry_point="worldmodels_fast.world.dream_env:DreamVectorEnv"
        )


def _register(
    env_id: str, spec: EnvironmentSpec, entry_point: str, kwargs: dict[str, object] | None = None
) -> None:
    if env_id not in gymnasium.registry:
        gymnasium.register(
            id=env_id,
            entry_point=entry_point,
            reward_threshold=spec.solved_score,
            max_episode_steps=spec.max_steps,
            kwargs=kwargs or {},
        )

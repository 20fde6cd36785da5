"""Which environments there are: one specification each, registered with Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from worldmodels_fast.envs.squash import CAR_RACING_SQUASH, Squash

FRAME_SIZE = 64
"""Height and width in pixels of the frames that V eats."""

CAR_RACING_ENV_ID = "worldmodels_fast/CarRacing-v0"
"""CarRacing with Gymnasium's own observation, 96x96: takes the place of CarRacing-v3, but fast."""

DREAM_ENV_ID = "worldmodels_fast/TakeCoverDream-v0"
"""The dream as a vector environment, for `gymnasium.make_vec`."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """What the rest of the package needs to know of a real environment.

    Attributes:
        env_id: Gymnasium id.
        entry_point: where Gymnasium finds the class.
        squash: its continuous actions: their ranges, and how C's outputs become them.
        max_steps: steps after which an episode is truncated.
        random_score: the paper's score of a random policy, for plots (None: not stated).
        solved_score: the score from which the paper calls the task solved.
        kwargs: default keyword arguments of the environment.
        score: what the sum of an episode's rewards is called.
        fps: steps in a second of the game.
        paper_scores: the paper's table: mean and standard deviation of each player over 100
            episodes.
        unmodified_id: Gymnasium id of the same game, of the same arguments and seeds, in somebody
            else's unmodified environment: final scores are given there, too. None if there is none.
        engines: the distributions, beside ours and Gymnasium's, on whose versions scores depend.
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
    engines: tuple[str, ...] = ()

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
        engines=("box2d", "pygame-ce", "pygame"),
    ),
    "take-cover": EnvironmentSpec(
        env_id="worldmodels_fast/TakeCover-v0",
        entry_point="worldmodels_fast.envs.take_cover:TakeCoverEnv",
        squash=Squash.plain(1),
        max_steps=2100,
        random_score=210.0,
        solved_score=750.0,
        paper_scores={"tau 1.15": (1092.0, 556.0), "random policy": (210.0, 108.0)},
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


def register_environments() -> None:
    """Register every environment of `ENVIRONMENTS` with Gymnasium, once."""
    for spec in ENVIRONMENTS.values():
        if spec.env_id not in gymnasium.registry:
            gymnasium.register(
                id=spec.env_id,
                entry_point=spec.entry_point,
                kwargs=dict(spec.kwargs),
                # The environment truncates by itself: it must also know the limit when it is
                # made without Gymnasium's wrappers.
                max_episode_steps=None,
            )
    if CAR_RACING_ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=CAR_RACING_ENV_ID,
            entry_point=ENVIRONMENTS["car-racing"].entry_point,
            reward_threshold=ENVIRONMENTS["car-racing"].solved_score,
        )
    unmodified = ENVIRONMENTS["car-racing"].unmodified_id
    if unmodified is not None and unmodified not in gymnasium.registry:
        gymnasium.register(
            id=unmodified,
            entry_point="worldmodels_fast.envs.gymnasium_car_racing:make_gymnasium_car_racing",
        )
    if DREAM_ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=DREAM_ENV_ID, vector_entry_point="worldmodels_fast.world.dream_env:DreamVectorEnv"
        )

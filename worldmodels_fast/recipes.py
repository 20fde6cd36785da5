"""Experiments: one function each, returning the whole configuration of a run.

To make an experiment of your own, add a function here (it gets its name from the function), or
override single settings on the command line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldmodels_fast import envs
from worldmodels_fast.collection import CollectConfig
from worldmodels_fast.evolution import EvolveConfig
from worldmodels_fast.ops import PRECISIONS, ControllerSpec
from worldmodels_fast.policies import FIDELITY_POLICIES, make_policy
from worldmodels_fast.training import RNNConfig, VAEConfig, products_in_bf16


@dataclass(frozen=True)
class ControllerConfig:
    """C's form.

    Attributes:
        features: what C sees, in this order, of z, c and h.
        bias: whether its layers have biases.
        hidden_units: units of a tanh layer between; 0 for a linear controller.
    """

    features: tuple[str, ...] = ("z", "c", "h")
    bias: bool = False
    hidden_units: int = 0


@dataclass(frozen=True)
class FidelityConfig:
    """How the dream is compared with the game before C is evolved in it.

    Attributes:
        policies: fixed policies that play both.
        real_episodes: of each policy in the game.
        dream_episodes: of each policy in the dream, at temperature 1.
        warn_factor: the run warns where dream and game differ by more than this factor.
    """

    policies: tuple[str, ...] = FIDELITY_POLICIES
    real_episodes: int = 50
    dream_episodes: int = 256
    warn_factor: float = 1.5


@dataclass(frozen=True)
class EvaluateConfig:
    """How the agent is scored in the real game.

    Attributes:
        episodes: the agent's, on seeds that nothing else uses (paper: 100).
        random_episodes: those of a uniform random policy, on the same seeds.
        workers: processes; None takes every processor.
    """

    episodes: int = 100
    random_episodes: int = 100
    workers: int | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run; written to `config.json` in its folder.

    Attributes:
        recipe: name of the function in this file that it began as.
        environment: a name from `envs.ENVIRONMENTS`.
        env_kwargs: settings of the environment, e.g. {"skill": 4}.
        seed: every other seed is derived from this one.
        collect: stage `collect`.
        vae: stage `train-vae`.
        rnn: stage `train-rnn`.
        controller: C's form.
        evolve: stage `evolve`.
        fidelity: the comparison of dream and game before C is evolved.
        evaluate: stage `evaluate`.
    """

    recipe: str
    environment: str = "take-cover"
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    collect: CollectConfig = field(default_factory=CollectConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    rnn: RNNConfig = field(default_factory=RNNConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        """Check now what a stage would find wrong only hours later."""
        if self.environment not in envs.ENVIRONMENTS:
            raise ValueError(
                f"environment: expected one of {', '.join(envs.ENVIRONMENTS)}, "
                f"got {self.environment!r}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected a number from 0, got {self.seed}")
        for policy in (*self.collect.policies, *self.fidelity.policies):
            make_policy(policy)
        for precision in (self.vae.precision, self.rnn.precision):
            products_in_bf16(precision)
        if self.evolve.precision not in PRECISIONS:
            raise ValueError(
                f"evolve.precision: expected one of {', '.join(PRECISIONS)}, "
                f"got {self.evolve.precision!r}"
            )
        self.evolve.check(self.controller_spec().n_params)

    def controller_spec(self) -> ControllerSpec:
        """Return C's form with its sizes."""
        return ControllerSpec(
            features=self.controller.features,
            latent_dim=self.vae.latent_dim,
            hidden_dim=self.rnn.hidden_dim,
            action_dim=envs.ENVIRONMENTS[self.environment].action_dim,
            bias=self.controller.bias,
            hidden_units=self.controller.hidden_units,
        )


def take_cover_paper() -> RunConfig:
    """Take Cover as in the paper: 10,000 episodes, 10 epochs of V, 400 of M, tau 1.15."""
    return RunConfig(
        recipe="take-cover-paper",
        # The paper's game is drawn larger; skill 4 is what its random policy's score points to.
        env_kwargs={"skill": 4, "resolution": "320x240"},
        collect=CollectConfig(episodes=10_000, policies=("held-random",)),
        vae=VAEConfig(steps=300_000),
        # The paper's rate falls by 0.99999 a step, to 0.78e-3 after 24,400 steps.
        rnn=RNNConfig(epochs=400, final_learning_rate=7.8e-4),
        evolve=EvolveConfig(generations=1800, precision="auto"),
    )


def take_cover_quick() -> RunConfig:
    """Take Cover from scratch in about an hour on two cores.

    Beyond the paper's: half of the episodes linger at walls, learning rates are higher and fall on
    a cosine, and a generation takes 8 rollouts of each member instead of 16.
    """
    return RunConfig(
        recipe="take-cover-quick",
        env_kwargs={"skill": 4, "resolution": "160x120"},
        collect=CollectConfig(episodes=5_000, policies=("held-random", "lingering")),
        vae=VAEConfig(steps=9_000, learning_rate=5e-4, final_learning_rate=2e-5),
        rnn=RNNConfig(epochs=16, batch=64, chunk=100, learning_rate=1.5e-3),
        evolve=EvolveConfig(generations=60, rollouts=8, eval_every=10, precision="auto"),
    )


def take_cover_smoke() -> RunConfig:
    """The whole pipeline in a minute or two: it proves that it runs, its dream is no good yet."""
    return RunConfig(
        recipe="take-cover-smoke",
        env_kwargs={"skill": 4, "resolution": "160x120"},
        collect=CollectConfig(
            episodes=40, policies=("held-random", "lingering"), shard_episodes=10
        ),
        vae=VAEConfig(steps=150, learning_rate=1e-3, final_learning_rate=1e-4, checkpoint_every=50),
        rnn=RNNConfig(hidden_dim=64, epochs=4, batch=20, chunk=100, learning_rate=4e-3),
        evolve=EvolveConfig(
            population=16,
            generations=6,
            rollouts=4,
            eval_every=3,
            eval_rollouts=64,
            max_steps=300,
            precision="auto",
        ),
        fidelity=FidelityConfig(
            policies=("uniform", "still", "left", "right"), real_episodes=4, dream_episodes=100
        ),
        evaluate=EvaluateConfig(episodes=4, random_episodes=4),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    function.__name__.replace("_", "-"): function
    for function in (take_cover_smoke, take_cover_quick, take_cover_paper)
}


def make_recipe(name: str) -> RunConfig:
    """Return the recipe of that name.

    Raises:
        ValueError: no such recipe; the message lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]()


def save_config(config: RunConfig, path: Path) -> None:
    """Write a configuration as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    os.replace(unfinished, path)


def load_config(path: Path) -> RunConfig:
    """Read what `save_config` wrote.

    Raises:
        ValueError: not a configuration, or one with settings that this version does not know.
    """
    try:
        config = _build(RunConfig, json.loads(path.read_text()))
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a configuration of this version ({error})") from error
    assert isinstance(config, RunConfig)
    return config


def _build(kind: Any, value: Any) -> Any:
    """Turn JSON back into dataclasses and tuples."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise KeyError(f"unknown settings {sorted(unknown)}")
        return kind(**{key: _build(hints[key], item) for key, item in value.items()})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple:
        return tuple(value)
    if isinstance(kind, types.UnionType) and isinstance(value, list):
        return tuple(value)
    return value

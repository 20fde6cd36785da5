"""The configuration of a run: one section per subject, saved as config.json."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worldmodels_fast import envs
from worldmodels_fast.data.collect import CollectConfig
from worldmodels_fast.envs.policies import make_policy
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.ops.types import PRECISIONS, ControllerSpec
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.training.config import Precision, RNNConfig, VAEConfig
from worldmodels_fast.utils.arguments import checked_choice
from worldmodels_fast.utils.files import read_json, write_json


@dataclass(frozen=True)
class ControllerConfig:
    """C's form.

    Attributes:
        features: what C sees, in this order, of z, c and h.
        bias: whether its layers have biases.
        hidden_units: units of a tanh layer between; 0 for a linear controller.
        latent: z that C sees: "sample" of what V says, as in the paper, or its mean, "mu".
        memory: whose h and c it sees: those of the M that dreams, "trained", or those of an
            "untrained" M that is fed the same z and actions (see `untrained.py`).
        search: the units of its parameters to CMA-ES: "plain", as in the paper, or "features",
            what they do to the action (see `search_space.py`).
    """

    features: tuple[str, ...] = ("z", "c", "h")
    bias: bool = False
    hidden_units: int = 0
    latent: Latent = "sample"
    memory: Literal["trained", "untrained"] = "trained"
    search: Literal["plain", "features"] = "plain"


@dataclass(frozen=True)
class DeathConfig:
    """When a dream ends by itself, wherever one is dreamt in a run.

    Attributes:
        threshold: of M's done logit (paper: 0).
        temperature: 0 for the paper's rule, logit > threshold; above 0 an end is drawn, with
            probability sigmoid((logit - threshold) / temperature).
        calibrated: both are taken from the fit to held-out episodes that follows M's training (see
            `calibration.py`), so that the dream is as deadly as M knows the game to be.
    """

    threshold: float = 0.0
    temperature: float = 0.0
    calibrated: bool = False


@dataclass(frozen=True)
class GapConfig:
    """The exploit gap: how much better the evolving controller is in the dream than in the game.

    It is only watched. Neither the search nor the choice of the controller knows of it.

    Attributes:
        every: after every so many generations, and the last, the distribution's mean plays the
            game; 0 for never.
        episodes: real ones, always the same, and no other stage's.
    """

    every: int = 0
    episodes: int = 16


@dataclass(frozen=True)
class SweepConfig:
    """The temperature table: C evolved and scored at several temperatures of the dream.

    Attributes:
        temperatures: its rows; a run with none has no such stage.
        dream_rollouts: the score in the dream is the mean of so many, on fresh seeds.
        episodes: of each controller in the real game, the same for all, and no other stage's.
        generations: of each evolution; None for those of `evolve`.
        rollouts: of each member in a generation; None for those of `evolve`.
    """

    temperatures: tuple[float, ...] = ()
    dream_rollouts: int = 1024
    episodes: int = 100
    generations: int | None = None
    rollouts: int | None = None


PAPER_TEMPERATURES = (0.1, 0.5, 1.0, 1.15, 1.3)


@dataclass(frozen=True)
class EvaluateConfig:
    """How the agent is scored in the real game.

    Attributes:
        episodes: the agent's, on seeds that nothing else uses (paper: 100).
        random_episodes: those of a uniform random policy, on the same seeds.
        unmodified_episodes: the agent's where the game has an unmodified environment besides ours
            (CarRacing: Gymnasium's, with its own drawing), on the same seeds.
        vae_precision: of V's convolutions; "auto" is bf16 where the machine multiplies it natively.
        workers: processes; None takes every processor.
    """

    episodes: int = 100
    random_episodes: int = 100
    unmodified_episodes: int = 100
    vae_precision: Precision = "fp32"
    workers: int | None = None


@dataclass(frozen=True)
class RoundConfig:
    """A further round, beyond the paper: what an evolved agent plays teaches M what its dream hid.

    The run takes over the episodes and V of another one, adds episodes that the other's agent plays
    in the real game, and M goes on from the other's. If only this M predicts rewards, that is what
    it learns on top.

    Attributes:
        base: folder of the run whose world it goes on from; empty for a first round.
        episodes: those that its agent plays.
        sigma: standard deviation of the noise on its parameters, as CMA-ES searches for them, anew
            for each episode: a search visits the agent's neighbours, too.
        spread: each episode has a sigma of its own, log-uniform from sigma / spread to sigma; 1 for
            the same in all. So both the agent and worse players than it are seen.
    """

    base: str = ""
    episodes: int = 1_500
    sigma: float = 0.05
    spread: float = 1.0


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run; written to `config.json` in its folder.

    Attributes:
        recipe: name of the function in this file that it began as.
        environment: a name from `envs.ENVIRONMENTS`.
        env_kwargs: settings of the environment, e.g. {"skill": 4}.
        seed: every other seed is derived from this one.
        collect: stage `collect`.
        round: what it goes on from, if it is a further round.
        vae: stage `train-vae`.
        rnn: stage `train-rnn`.
        death: when a dream ends.
        controller: C's form.
        evolve: stage `evolve`.
        fidelity: the comparison of dream and game before C is evolved.
        quality: the dream measured on held-out episodes, before C is evolved, too.
        evaluate: stage `evaluate`.
        gap: what is watched while C evolves.
        sweep: stage `sweep-temperature`.
    """

    recipe: str
    environment: str = "take-cover"
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    collect: CollectConfig = field(default_factory=CollectConfig)
    round: RoundConfig = field(default_factory=RoundConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    rnn: RNNConfig = field(default_factory=RNNConfig)
    death: DeathConfig = field(default_factory=DeathConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    gap: GapConfig = field(default_factory=GapConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        """Check now what a stage would find wrong only hours later."""
        if self.environment not in envs.ENVIRONMENTS:
            raise ValueError(
                f"environment: expected one of {', '.join(envs.ENVIRONMENTS)}, "
                f"got {self.environment!r}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected a number from 0, got {self.seed}")
        if not (math.isfinite(self.death.threshold) and 0 <= self.death.temperature < math.inf):
            raise ValueError(
                "death: expected a finite `threshold` and a finite `temperature` from 0, got "
                f"{self.death.threshold} and {self.death.temperature}"
            )
        for policy in (*self.collect.policies, *self.fidelity.policies):
            make_policy(policy)
        self.quality.check()
        further = self.round
        sizes = 0 <= further.sigma < math.inf and 1 <= further.spread < math.inf
        if further.episodes < 1 or not sizes:
            raise ValueError(
                "round: expected `episodes` from 1 and a finite `sigma` from 0 and `spread` from "
                f"1, got {further.episodes}, {further.sigma} and {further.spread}"
            )
        for precision in (self.vae.precision, self.rnn.precision, self.evaluate.vae_precision):
            checked_choice("precision", precision, typing.get_args(Precision))
        if self.evolve.precision not in PRECISIONS:
            raise ValueError(
                f"evolve.precision: expected one of {', '.join(PRECISIONS)}, "
                f"got {self.evolve.precision!r}"
            )
        limit = self.rnn.reward_limit
        if not 0 < self.rnn.reward_weight < math.inf or not (limit is None or limit > 0):
            raise ValueError(
                "rnn: expected a finite `reward_weight` above 0 and a `reward_limit` above 0 or "
                f"none, got {self.rnn.reward_weight} and {limit}"
            )
        self.evolve.check(self.controller_spec().n_params)
        self._check_where()
        for name, value, allowed in (
            ("controller.latent", self.controller.latent, ("sample", "mu")),
            ("controller.memory", self.controller.memory, ("trained", "untrained")),
            ("controller.search", self.controller.search, ("plain", "features")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        if self.gap.every < 0 or self.gap.episodes < 1:
            raise ValueError(
                "gap: expected `every` from 0 (never) and `episodes` from 1, got "
                f"{self.gap.every} and {self.gap.episodes}"
            )
        taus = self.sweep.temperatures
        if len(set(taus)) < len(taus) or not all(0 < tau < math.inf for tau in taus):
            raise ValueError(f"sweep.temperatures: expected different positive numbers, got {taus}")
        for name in ("dream_rollouts", "episodes", "generations", "rollouts"):
            value = getattr(self.sweep, name)
            if value is not None and value < 1:
                raise ValueError(f"sweep.{name}: expected at least 1, got {value}")

    def _check_where(self) -> None:
        """Check that C's score means something where it is evolved."""
        in_game = self.evolve.where == "game"
        if not (in_game or self.rnn.predicts_done or self.rnn.predicts_reward):
            raise ValueError(
                "evolve.where: expected 'game', since M predicts no end (rnn.predicts_done) and no "
                "reward (rnn.predicts_reward), and all dreams are worth the same, got "
                f"{self.evolve.where!r}"
            )
        if in_game and (self.gap.every or self.sweep.temperatures):
            raise ValueError(
                "gap.every, sweep.temperatures: C is evolved in the game (evolve.where), not in "
                "dreams; expected 0 and none, got "
                f"{self.gap.every} and {self.sweep.temperatures}"
            )
        if self.death.calibrated and not self.rnn.predicts_done:
            raise ValueError("death.calibrated: M predicts no end (rnn.predicts_done)")

    def controller_spec(self) -> ControllerSpec:
        """Return C's form with its sizes and its actions."""
        squash = envs.ENVIRONMENTS[self.environment].squash
        return ControllerSpec(
            features=self.controller.features,
            latent_dim=self.vae.latent_dim,
            hidden_dim=self.rnn.hidden_dim,
            action_dim=squash.action_dim,
            bias=self.controller.bias,
            hidden_units=self.controller.hidden_units,
            **dataclasses.asdict(squash),
        )


def save_config(config: RunConfig, path: Path) -> None:
    """Write a configuration as JSON."""
    write_json(path, dataclasses.asdict(config))


def load_config(path: Path) -> RunConfig:
    """Read what `save_config` wrote.

    Raises:
        ValueError: not a configuration, or one with settings that this version does not know.
    """
    try:
        config = _build(RunConfig, read_json(path))
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
        return tuple(_build(typing.get_args(kind)[0], item) for item in value)
    if isinstance(kind, types.UnionType) and isinstance(value, list):
        return tuple(value)
    return value

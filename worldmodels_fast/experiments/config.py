"""The configuration of a run: one section per subject, saved as config.json."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worldmodels_fast import envs
from worldmodels_fast.data.collect import CollectConfig
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.evaluation.config import EvaluateConfig
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.migration import migrate_config
from worldmodels_fast.ops.types import FEATURES, ControllerSpec
from worldmodels_fast.rollout.config import GameConfig
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.utils.files import read_json, write_json
from worldmodels_fast.utils.settings import SettingsCheck, option_of


@dataclass(frozen=True)
class ControllerConfig:
    """C's form.

    Attributes:
        features: what C sees, in this order, of z, c and h.
        bias: whether its layers have biases.
        hidden_units: units of a tanh layer between; 0 for a linear controller.
        latent: z that C sees: a "sample" of V's Gaussian, as in the paper, or its mean, "mu".
        memory: whose h and c it sees: those of the M that dreams, "trained", or those of an
            "untrained" M with the same z and actions as input (see `evolution.untrained`).
        search: the units in which CMA-ES searches its parameters: "plain", as in the paper, or
            "features", their effect on the action (see `evolution.search_space`).
    """

    features: tuple[str, ...] = ("z", "c", "h")
    bias: bool = False
    hidden_units: int = 0
    latent: Latent = "sample"
    memory: Literal["trained", "untrained"] = "trained"
    search: Literal["plain", "features"] = "plain"

    def check(self, prefix: str = "--controller.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        chosen = self.features
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(FEATURES):
            check.refuse("features", "a non-empty choice of 'z', 'h', 'c', each at most once")
        check.integers("hidden_units", low=0)
        check.choice("latent", typing.get_args(Latent))
        check.choice("memory", ("trained", "untrained"))
        check.choice("search", ("plain", "features"))


@dataclass(frozen=True)
class GapConfig:
    """The exploit gap: how much better the evolving controller is in the dream than in the game.

    It is only measured; neither the search nor the choice of the controller depends on it.

    Attributes:
        every: after every so many generations, and the last, the distribution's mean plays the
            game; 0 for never.
        episodes: episodes of the game, the same each time, on seeds of their own.
    """

    every: int = 0
    episodes: int = 16

    def check(self, prefix: str = "--gap.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("every", low=0)
        check.integers("episodes", low=1)


@dataclass(frozen=True)
class SweepConfig:
    """The temperature table: C evolved and scored at several temperatures of the dream.

    Attributes:
        temperatures: its rows; a run with none has no such stage.
        dream_rollouts: the score in the dream is the mean of so many, on fresh seeds.
        episodes: of each controller in the game, the same for all, on seeds of their own.
        generations: of each evolution; None for those of `evolve`.
        rollouts: of each member in a generation; None for those of `evolve`.
    """

    temperatures: tuple[float, ...] = ()
    dream_rollouts: int = 1024
    episodes: int = 100
    generations: int | None = None
    rollouts: int | None = None

    def check(self, prefix: str = "--sweep.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        taus = self.temperatures
        if len(set(taus)) < len(taus) or not all(0 < tau < math.inf for tau in taus):
            check.refuse("temperatures", "different positive numbers")
        check.integers("dream_rollouts", "episodes", low=1)
        check.integers("generations", "rollouts", low=1, or_none=True)


PAPER_TEMPERATURES = (0.1, 0.5, 1.0, 1.15, 1.3)


@dataclass(frozen=True)
class RoundConfig:
    """A further round, beyond the paper: M is trained on, also on an evolved agent's episodes.

    The run takes over the episodes and V of another one, adds episodes that the other's agent plays
    in the game, and M's training continues from the other's M. If only this M predicts rewards, it
    learns to do so in addition.

    Attributes:
        base: folder of the run whose world it goes on from; empty for a first round.
        episodes: those that its agent plays.
        sigma: standard deviation of the noise on its parameters, in the units of CMA-ES, drawn
            for each episode: a search evaluates the agent's neighbours, too.
        spread: each episode has a sigma of its own, log-uniform from sigma / spread to sigma; 1 for
            the same in all. So the agent and worse players are both in the data.
    """

    base: str = ""
    episodes: int = 1_500
    sigma: float = 0.05
    spread: float = 1.0

    def check(self, prefix: str = "--round.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("episodes", low=1)
        check.numbers("sigma", low=0)
        check.numbers("spread", low=1)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run; written to `config.json` in its folder.

    Attributes:
        recipe: name of the recipe that it began as.
        environment: a name from `envs.ENVIRONMENTS`.
        env_kwargs: settings of the environment, e.g. {"skill": 4}.
        seed: every other seed is derived from this one.
        collect: stage `collect`.
        round: the run that it continues from, if it is a further round.
        vae: stage `train-vae`.
        rnn: stage `train-rnn`.
        controller: C's form.
        evolve_in: where C is evolved, in the "dream" or in the real "game".
        evolve: CMA-ES, in the stage `evolve`.
        dream: how the run dreams.
        game: how C is evolved in the game.
        fidelity: stage `fidelity`, the comparison of dream and game before C is evolved.
        quality: stage `quality`, the dream measured on held-out episodes.
        evaluate: stage `evaluate`.
        gap: the exploit gap, measured while C evolves.
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
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    evolve_in: Literal["dream", "game"] = "dream"
    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    game: GameConfig = field(default_factory=GameConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    gap: GapConfig = field(default_factory=GapConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        """Check every setting now; a stage would find some of them wrong only hours later."""
        self.check()

    def check(self, prefix: str = "--") -> None:
        """Check all sections, each by its own `check`, and what must fit together.

        Args:
            prefix: what the options begin with on the command line.

        Raises:
            ValueError, TypeError: a setting out of range; the message names its option.
        """
        check = SettingsCheck(self, prefix)
        check.choice("environment", tuple(envs.ENVIRONMENTS))
        check.integers("seed", low=0)
        check.choice("evolve_in", ("dream", "game"))
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if dataclasses.is_dataclass(value):
                value.check(f"{option_of(prefix, section.name)}.")  # type: ignore[union-attr]
        if self.controller_spec().n_params < 2:
            raise ValueError(
                "--controller, --vae.latent-dim, --rnn.hidden-dim: expected a controller of at "
                "least 2 parameters, since CMA-ES cannot search fewer, got 1"
            )
        in_game = self.evolve_in == "game"
        if not (in_game or self.rnn.predicts_done or self.rnn.predicts_reward):
            check.refuse(
                "evolve_in",
                "'game', since M predicts no end (--rnn.predicts-done) and no reward "
                "(--rnn.predicts-reward), and all dreams have the same return",
            )
        if in_game and (self.gap.every or self.sweep.temperatures):
            raise ValueError(
                "--gap.every, --sweep.temperatures: expected 0 and none, since C is evolved in the "
                f"game (--evolve-in), got {self.gap.every} and {self.sweep.temperatures}"
            )
        if self.dream.calibrated and not self.rnn.predicts_done:
            raise ValueError(
                "--dream.calibrated: expected False, since M predicts no end "
                "(--rnn.predicts-done), got True"
            )

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
    """Read what `save_config` wrote, also that of an earlier version.

    Raises:
        ValueError: no configuration, one with settings that this version does not know, or a
            setting out of range.
    """
    values = read_json(path)
    if values is None:
        raise ValueError(f"{path}: no configuration in here")
    try:
        config = _build(RunConfig, migrate_config(values))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a configuration of this version ({error}); repair the file, or delete it "
            "and name the run's recipe again"
        ) from error
    except ValueError as error:  # a setting out of range
        raise ValueError(f"{path}: {error}") from error
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

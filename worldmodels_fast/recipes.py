"""Experiments: one function each, returning the whole configuration of a run.

To make an experiment of your own, add a function here (it gets its name from the function), or
override single settings on the command line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worldmodels_fast import envs
from worldmodels_fast.collection import CollectConfig
from worldmodels_fast.evolution import EvolveConfig
from worldmodels_fast.ops import PRECISIONS, ControllerSpec
from worldmodels_fast.policies import FIDELITY_POLICIES, make_policy
from worldmodels_fast.quality.config import QualityConfig
from worldmodels_fast.rollout import Latent
from worldmodels_fast.training import Precision, RNNConfig, VAEConfig, products_in_bf16


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
class FidelityConfig:
    """How the dream is compared with the game before C is evolved in it.

    Attributes:
        policies: fixed policies that play both.
        real_episodes: of each policy in the game.
        dream_episodes: of each policy in the dream, at temperature 1.
        warn_factor: the run warns where dream and game differ by more than this factor. (Returns
            may be of either sign: where they are compared, by as much of the game's mean, or of
            its scores' standard deviation if that is larger.)
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
            products_in_bf16(precision)
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
        gap=GapConfig(every=25),
        sweep=SweepConfig(temperatures=PAPER_TEMPERATURES),
    )


def take_cover_quick() -> RunConfig:
    """Take Cover from scratch in about an hour on two cores.

    Beyond the paper's: a third of the episodes linger at walls and a third roam, so that the walls
    and the late game are seen; V's loss keeps small fireballs; learning rates are higher and fall
    on a cosine; a dream's end is drawn with the probability that held-out episodes bear out; and
    CMA-ES searches in units of what C's parameters do.
    """
    return RunConfig(
        recipe="take-cover-quick",
        env_kwargs={"skill": 4, "resolution": "160x120"},
        collect=CollectConfig(episodes=6_000, policies=("held-random", "lingering", "roaming")),
        vae=VAEConfig(
            steps=14_000,
            batch=50,
            learning_rate=5e-4,
            final_learning_rate=2e-5,
            reconstruction_weight=3.0,
            focus=50.0,
        ),
        rnn=RNNConfig(epochs=8, batch=64, chunk=100, learning_rate=1.5e-3),
        death=DeathConfig(calibrated=True),
        evolve=EvolveConfig(
            generations=100,
            eval_every=10,
            precision="fastest",
            sigma0=0.03,
            temperature=1.3,
        ),
        controller=ControllerConfig(search="features"),
        gap=GapConfig(every=10),
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
        quality=QualityConfig(
            episodes=10, windows=20, warm_up=20, horizon=20, samples=4, frames=60, dreams=12
        ),
        evaluate=EvaluateConfig(episodes=4, random_episodes=4),
        gap=GapConfig(every=3, episodes=2),
        sweep=SweepConfig(temperatures=(0.5, 1.15), dream_rollouts=64, episodes=2, generations=3),
    )


def car_racing_paper() -> RunConfig:
    """CarRacing as in the paper: 10,000 episodes, 10 epochs of V, 4,000 batches of M.

    C is evolved in the game. The authors took 46.6 days on 64 workers for 1,800 generations; after
    25 of them the score was 823.
    """
    return RunConfig(
        recipe="car-racing-paper",
        environment="car-racing",
        collect=CollectConfig(episodes=10_000, policies=("random-linear",)),
        vae=VAEConfig(latent_dim=32, steps=1_000_000),
        # A batch is 100 episodes of 999 steps, so an epoch has 100 at most. The paper's rate falls
        # by 0.99999 a step.
        rnn=RNNConfig(
            hidden_dim=256,
            predicts_done=False,
            epochs=40,
            chunk=999,
            learning_rate=1e-3,
            final_learning_rate=9.6e-4,
        ),
        controller=ControllerConfig(features=("z", "h"), bias=True),
        evolve=EvolveConfig(where="game", generations=1800, temperature=1.0, max_steps=1000),
    )


def car_racing_quick() -> RunConfig:
    """CarRacing from scratch in about two hours on two cores.

    Beyond the paper's: half of the episodes are of held actions, which stay on the road for longer
    (89% of their steps, at a speed of 4; of the random linear policy's 34%, at 21; either visits 20
    tiles); learning rates fall on a cosine; M and C are fed the mean of what V says, not a sample
    (M is trained on samples); members have two rollouts, later four and eight, instead of 16, and
    those that come no further are given up; CMA-ES searches in units of what C's parameters do and
    learns a step for each of them.
    """
    paper = car_racing_paper()
    return dataclasses.replace(
        paper,
        recipe="car-racing-quick",
        collect=CollectConfig(episodes=600, policies=("random-linear", "held-random")),
        vae=VAEConfig(
            latent_dim=32,
            steps=5_000,
            learning_rate=5e-4,
            final_learning_rate=2e-5,
            reconstruction_weight=3.0,
        ),
        rnn=dataclasses.replace(
            paper.rnn, epochs=6, batch=50, chunk=100, learning_rate=2e-3, final_learning_rate=1e-5
        ),
        controller=dataclasses.replace(paper.controller, latent="mu", search="features"),
        evolve=EvolveConfig(
            where="game",
            generations=150,
            sigma0=0.03,
            rollouts=2,
            rollout_schedule=((90, 4), (140, 8)),
            temperature=1.0,
            max_steps=1000,
            patience=100,
            eval_every=10,
            eval_rollouts=64,
            vae_precision="auto",
            cma_options={"CMA_diagonal": True},
        ),
        evaluate=EvaluateConfig(vae_precision="auto"),
    )


def car_racing_smoke() -> RunConfig:
    """The whole of CarRacing in a minute or two: it proves that it runs, and drives nowhere yet."""
    quick = car_racing_quick()
    return dataclasses.replace(
        quick,
        recipe="car-racing-smoke",
        env_kwargs={"max_steps": 200},
        collect=CollectConfig(
            episodes=24, policies=("random-linear", "held-random"), shard_episodes=6
        ),
        vae=VAEConfig(
            latent_dim=32,
            steps=60,
            batch=50,
            learning_rate=1e-3,
            final_learning_rate=1e-4,
            checkpoint_every=30,
        ),
        rnn=dataclasses.replace(quick.rnn, epochs=3, batch=10, learning_rate=4e-3),
        evolve=dataclasses.replace(
            quick.evolve,
            population=8,
            generations=4,
            rollouts=1,
            rollout_schedule=((2, 2),),
            max_steps=150,
            patience=60,
            eval_every=2,
            eval_rollouts=4,
        ),
        quality=QualityConfig(
            episodes=6, windows=20, warm_up=20, horizon=20, samples=4, frames=60, dreams=12
        ),
        evaluate=EvaluateConfig(
            episodes=4, random_episodes=4, unmodified_episodes=2, vae_precision="auto"
        ),
    )


def _another_c(base: RunConfig, recipe: str, **controller: Any) -> RunConfig:
    """Return `base` with other settings of its controller, under the name of another recipe."""
    changed = dataclasses.replace(base.controller, **controller)
    return dataclasses.replace(base, recipe=recipe, controller=changed)


def take_cover_z_only(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees z alone and remembers nothing."""
    return _another_c(base or take_cover_quick(), "take-cover-z-only", features=("z",))


def take_cover_untrained_m(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees the memory of an untrained M, in the dream of the trained one."""
    return _another_c(base or take_cover_quick(), "take-cover-untrained-m", memory="untrained")


def take_cover_mu(base: RunConfig | None = None) -> RunConfig:
    """Ablation: M and C are fed the mean of what V says, not a sample."""
    base = base or take_cover_quick()
    return dataclasses.replace(
        base,
        recipe="take-cover-mu",
        rnn=dataclasses.replace(base.rnn, latent="mu"),
        controller=dataclasses.replace(base.controller, latent="mu"),
    )


def take_cover_fp32(base: RunConfig | None = None) -> RunConfig:
    """Ablation: V, M and the dream in 32 bits throughout."""
    base = base or take_cover_quick()
    return dataclasses.replace(
        base,
        recipe="take-cover-fp32",
        vae=dataclasses.replace(base.vae, precision="fp32"),
        rnn=dataclasses.replace(base.rnn, precision="fp32"),
        evolve=dataclasses.replace(base.evolve, precision="fp32"),
    )


def take_cover_second_round(base: RunConfig | None = None) -> RunConfig:
    """Beyond the paper: a run's agent plays the game, M learns from that, C is evolved anew.

    The agent lives two or three times as long as the policies of the first round, and goes where
    its dream was wrong.
    """
    base = base or take_cover_quick()
    return dataclasses.replace(
        base,
        recipe="take-cover-second-round",
        round=RoundConfig(base=f"runs/{base.recipe}"),
        rnn=dataclasses.replace(base.rnn, epochs=4, learning_rate=1e-3),
        evolve=dataclasses.replace(base.evolve, generations=200, temperature=1.15),
        gap=GapConfig(every=20),
        sweep=dataclasses.replace(base.sweep, generations=100),
    )


def car_racing_dream(base: RunConfig | None = None) -> RunConfig:
    """Beyond the paper: M predicts rewards, too, and C is evolved in the car's dream.

    The paper evolves this game's C in the game. A dream of what random policies see knows no
    driving, so the run goes on from another one: its agent and noisy neighbours of it play the
    episodes that are added (the agent was evolved in the game; the new C begins from nothing, and
    all rewards that it meets are M's). A third of the first round's episodes ends by leaving the
    field at -100, which is 92% of the variance of all rewards; limited to -10, it is 10%.
    """
    base = base or car_racing_quick()
    return dataclasses.replace(
        base,
        recipe="car-racing-dream",
        # The last of these episodes' shards is the 40th, which is held out from training.
        round=RoundConfig(base=f"runs/{base.recipe}", episodes=400, sigma=0.06, spread=10.0),
        rnn=dataclasses.replace(
            base.rnn, predicts_reward=True, reward_limit=10.0, epochs=10, learning_rate=1e-3
        ),
        controller=dataclasses.replace(base.controller, features=("z", "h"), search="features"),
        evolve=EvolveConfig(
            generations=100,
            sigma0=0.03,
            temperature=1.0,
            max_steps=1000,
            eval_every=10,
            eval_rollouts=256,
            precision="auto",
        ),
        fidelity=FidelityConfig(policies=("uniform", "held-random", "random-linear", "still")),
        gap=GapConfig(every=10),
    )


def _begins_wider(base: RunConfig) -> EvolveConfig:
    """Let a C that sees z alone begin with actions as large as those of one that sees h, too.

    In units of the features, each of them adds the same to an action: 32 add a third of what 288
    do, and far less behind a second layer, whose weights are not in these units.
    """
    if base.controller.search == "plain":
        return base.evolve
    return dataclasses.replace(base.evolve, sigma0=0.1)


def car_racing_z_only(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees z alone and remembers nothing (paper: 632)."""
    base = base or car_racing_quick()
    ablation = _another_c(base, "car-racing-z-only", features=("z",))
    return dataclasses.replace(ablation, evolve=_begins_wider(base))


def car_racing_z_hidden(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees z alone, through a tanh layer of 40 units (paper: 788)."""
    base = base or car_racing_quick()
    ablation = _another_c(base, "car-racing-z-hidden", features=("z",), hidden_units=40)
    return dataclasses.replace(ablation, evolve=_begins_wider(base))


def car_racing_untrained_m(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees the memory of an untrained M."""
    return _another_c(base or car_racing_quick(), "car-racing-untrained-m", memory="untrained")


def _by_name(*functions: Callable[..., RunConfig]) -> dict[str, Callable[..., RunConfig]]:
    return {function.__name__.replace("_", "-"): function for function in functions}


ABLATIONS: dict[str, Callable[[RunConfig | None], RunConfig]] = _by_name(
    take_cover_z_only,
    take_cover_untrained_m,
    take_cover_mu,
    take_cover_fp32,
    car_racing_z_only,
    car_racing_z_hidden,
    car_racing_untrained_m,
)
"""Recipes that change one thing of another run, by default of the game's quick one."""

ROUNDS: dict[str, Callable[[RunConfig | None], RunConfig]] = _by_name(
    take_cover_second_round, car_racing_dream
)
"""Recipes that go on from another run's world, by default from that of the game's quick one."""

OF_ANOTHER_RUN = {**ABLATIONS, **ROUNDS}

RECIPES: dict[str, Callable[..., RunConfig]] = {
    **_by_name(take_cover_smoke, take_cover_quick, take_cover_paper),
    **_by_name(car_racing_smoke, car_racing_quick, car_racing_paper),
    **OF_ANOTHER_RUN,
}


def make_recipe(name: str, base: RunConfig | None = None) -> RunConfig:
    """Return the recipe of that name.

    Args:
        name: see `RECIPES`.
        base: the run that an ablation changes or a further round goes on from; other recipes are
            not of it.

    Raises:
        ValueError: no such recipe; the message lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return OF_ANOTHER_RUN[name](base) if name in OF_ANOTHER_RUN else RECIPES[name]()


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
        return tuple(_build(typing.get_args(kind)[0], item) for item in value)
    if isinstance(kind, types.UnionType) and isinstance(value, list):
        return tuple(value)
    return value

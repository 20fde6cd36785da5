"""Recipes of Take Cover: functions that return the whole configuration of a run."""

from __future__ import annotations

import dataclasses

from worldmodels_fast.data.collect import CollectConfig
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.evaluation.config import EvaluateConfig
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.experiments.config import (
    PAPER_TEMPERATURES,
    ControllerConfig,
    GapConfig,
    RoundConfig,
    RunConfig,
    SweepConfig,
)
from worldmodels_fast.experiments.recipes.changes import another_controller
from worldmodels_fast.training.config import RNNConfig, VAEConfig


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
        evolve=EvolveConfig(generations=1800),
        dream=DreamConfig(precision="auto"),
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
        evolve=EvolveConfig(generations=100, eval_every=10, sigma0=0.03),
        dream=DreamConfig(temperature=1.3, calibrated=True, precision="fastest"),
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
            population=16, generations=6, rollouts=4, eval_every=3, eval_rollouts=64
        ),
        dream=DreamConfig(max_steps=300, precision="auto"),
        fidelity=FidelityConfig(
            policies=("uniform", "still", "left", "right"), real_episodes=4, dream_episodes=100
        ),
        quality=QualityConfig(
            episodes=10, windows=20, warm_up=20, horizon=20, samples=4, frames=60, dreams=12
        ),
        evaluate=EvaluateConfig(episodes=4, random_episodes=4),
        gap=GapConfig(every=3, episodes=2),
        sweep=SweepConfig(
            temperatures=(0.5, DreamConfig.temperature),
            dream_rollouts=64,
            episodes=2,
            generations=3,
        ),
    )


def take_cover_z_only(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees z alone and remembers nothing."""
    return another_controller(base or take_cover_quick(), "take-cover-z-only", features=("z",))


def take_cover_untrained_m(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees the memory of an untrained M, in the dream of the trained one."""
    return another_controller(
        base or take_cover_quick(), "take-cover-untrained-m", memory="untrained"
    )


def take_cover_mu(base: RunConfig | None = None) -> RunConfig:
    """Ablation: M and C get V's mean as z, not a sample."""
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
        dream=dataclasses.replace(base.dream, precision="fp32"),
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
        evolve=dataclasses.replace(base.evolve, generations=200),
        dream=dataclasses.replace(base.dream, temperature=DreamConfig.temperature),
        gap=GapConfig(every=20),
        sweep=dataclasses.replace(base.sweep, generations=100),
    )

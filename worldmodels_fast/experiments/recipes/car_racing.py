"""Recipes of CarRacing: functions that return the whole configuration of a run."""

from __future__ import annotations

import dataclasses

from worldmodels_fast.data.collect import CollectConfig
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.evaluation.config import EvaluateConfig
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.experiments.config import (
    ControllerConfig,
    GapConfig,
    RoundConfig,
    RunConfig,
)
from worldmodels_fast.experiments.recipes.changes import another_controller, wider_first_step
from worldmodels_fast.rollout.config import GameConfig
from worldmodels_fast.training.config import RNNConfig, VAEConfig


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
        evolve_in="game",
        evolve=EvolveConfig(generations=1800),
        dream=DreamConfig(temperature=1.0, max_steps=1000),
        game=GameConfig(max_steps=1000),
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
            generations=150,
            sigma0=0.03,
            rollouts=2,
            rollout_schedule=((90, 4), (140, 8)),
            eval_every=10,
            eval_rollouts=64,
            cma_options={"CMA_diagonal": True},
        ),
        game=GameConfig(max_steps=1000, patience=100, vae_precision="auto"),
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
            eval_every=2,
            eval_rollouts=4,
        ),
        dream=dataclasses.replace(quick.dream, max_steps=150),
        game=dataclasses.replace(quick.game, max_steps=150, patience=60),
        quality=QualityConfig(
            episodes=6, windows=20, warm_up=20, horizon=20, samples=4, frames=60, dreams=12
        ),
        evaluate=EvaluateConfig(
            episodes=4, random_episodes=4, unmodified_episodes=2, vae_precision="auto"
        ),
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
        evolve_in="dream",
        evolve=EvolveConfig(generations=100, sigma0=0.03, eval_every=10, eval_rollouts=256),
        dream=DreamConfig(temperature=1.0, max_steps=1000, precision="auto"),
        fidelity=FidelityConfig(policies=("uniform", "held-random", "random-linear", "still")),
        gap=GapConfig(every=10),
    )


def car_racing_z_only(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees z alone and remembers nothing (paper: 632)."""
    base = base or car_racing_quick()
    ablation = another_controller(base, "car-racing-z-only", features=("z",))
    return dataclasses.replace(ablation, evolve=wider_first_step(base))


def car_racing_z_hidden(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees z alone, through a tanh layer of 40 units (paper: 788)."""
    base = base or car_racing_quick()
    ablation = another_controller(base, "car-racing-z-hidden", features=("z",), hidden_units=40)
    return dataclasses.replace(ablation, evolve=wider_first_step(base))


def car_racing_untrained_m(base: RunConfig | None = None) -> RunConfig:
    """Ablation: C sees the memory of an untrained M."""
    return another_controller(
        base or car_racing_quick(), "car-racing-untrained-m", memory="untrained"
    )

"""All measurements of a world's V and M against held-out episodes, before any C is evolved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.contents import Material, contents_module
from worldmodels_fast.evaluation.quality.deaths import deaths
from worldmodels_fast.evaluation.quality.dreaming import decode, follow
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.prediction import prediction
from worldmodels_fast.evaluation.quality.rewards import rewards
from worldmodels_fast.evaluation.quality.seeing import seeing
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World

PARTS = 5
"""Calls of `on_part`."""


def measure(
    world: World,
    held_out: HeldOut,
    config: QualityConfig,
    *,
    done_weight: float,
    policies: tuple[str, ...],
    seed: int,
    latent: Latent = "sample",
    reward_limit: float | None = None,
    on_part: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Measure a world's V and M; its controller plays no part.

    Args:
        world: V, M, where dreams begin and when they end.
        held_out: episodes that neither was trained on.
        config: sizes of the measurements.
        done_weight: factor of the loss of a death in M's training.
        policies: the open-loop policies of the held-out episodes; whole dreams are under them, too.
        seed: of all random numbers.
        latent: M's inputs in training: "sample" of V's distribution, or its mean, "mu".
        reward_limit: limit of the rewards in M's training, see `RNNConfig`.
        on_part: called with the name of each part that is done, `PARTS` times at most.

    Returns:
        JSON; see `seeing`, `prediction`, `deaths`, `rewards` and `contents`, each under its own
        name. A part that does not fit the data or the environment is left out.

    Raises:
        ValueError: the episodes are not those that were encoded.
    """
    config.check()
    dream = world.dream(temperature=1.0)

    def own_seed(name: str) -> int:
        return derive_seed(seed, f"quality/{name}")

    z = held_out.mu if latent == "mu" else held_out.sampled(own_seed("z"))
    windows = held_out.windows(config.windows, config.warm_up, config.horizon, own_seed("windows"))
    module = contents_module(world.config.get("environment"))
    plan = None if module is None else module.plan(held_out, own_seed)
    planned = [] if plan is None else plan.tics
    tics = np.unique(np.concatenate([windows, planned]).astype(np.int64))
    followed = follow(dream, held_out, z, tics)

    def memory(at: Any) -> tuple[Any, Any]:
        rows = np.searchsorted(tics, at)
        return followed.h[rows], followed.c[rows]

    on_part("M on real episodes")
    tics_seen = held_out.windows(config.frames, 0, 0, own_seed("frames"))
    real, seen = held_out.frames(tics_seen), decode(world.vae, held_out.mu[tics_seen])
    result: dict[str, Any] = {
        "environment": world.config.get("environment"),
        "episodes": len(held_out.lengths),
        "tics": len(held_out),
        "policies": list(policies),
        "latent": latent,
        "seeing": seeing(world, held_out, z[tics_seen], real, seen),
        "z_loss": float(np.nanmean(followed.nll)),
    }
    if dream.weights.predicts_done:
        result["deaths"] = deaths(followed.logit, held_out, done_weight, dream)
    if dream.weights.predicts_reward and held_out.rewards is not None:
        result["rewards"] = rewards(followed.reward, held_out, reward_limit)
    on_part("V")
    if windows.size:
        result["prediction"] = prediction(
            world,
            dream,
            held_out,
            z,
            windows,
            memory(windows),
            horizon=config.horizon,
            samples=config.samples,
            seed=own_seed("prediction"),
        )
    on_part("dreams under real actions")
    if plan is not None:
        result["contents"] = plan.measure(
            Material(
                world=world,
                dream=dream,
                held_out=held_out,
                z=z,
                memory=memory,
                real=real,
                seen=seen,
                policies=policies,
                config=config,
                seed_of=own_seed,
                on_part=on_part,
            )
        )
    return result

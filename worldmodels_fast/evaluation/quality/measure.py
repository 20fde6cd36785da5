"""All measurements of a world's V and M against held-out episodes, before any C is evolved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worldmodels_fast.evaluation.quality import take_cover
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.deaths import deaths
from worldmodels_fast.evaluation.quality.dreaming import decode, dream_episodes, follow
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
        config: how much is looked at.
        done_weight: what M's training multiplied the loss of a death by.
        policies: those of the held-out episodes, under which whole dreams are dreamt.
        seed: of all that is drawn.
        latent: what M was trained on: "sample" of what V says, or its mean, "mu".
        reward_limit: of the rewards that M was trained on, see `RNNConfig`.
        on_part: called with what has been measured, `PARTS` times at most.

    Returns:
        JSON; see `seeing`, `prediction`, `deaths`, `rewards` and `take_cover`, each under its own
        name. What does not fit the data or the environment is left out.

    Raises:
        ValueError: the episodes are not those that were encoded.
    """
    config.check()
    dream = world.dream(temperature=1.0)

    def own_seed(name: str) -> int:
        return derive_seed(seed, f"quality/{name}")

    z = held_out.mu if latent == "mu" else held_out.sampled(own_seed("z"))
    windows = held_out.windows(config.windows, config.warm_up, config.horizon, own_seed("windows"))
    of_take_cover = world.config.get("environment") == "take-cover"
    watched = take_cover.pushes(held_out) if of_take_cover else []
    rng = np.random.default_rng(own_seed("pushes"))
    chosen = rng.permutation(len(watched))[: take_cover.PUSHES]
    watched = [watched[k] for k in sorted(chosen)]
    tics = np.unique(np.concatenate([windows, [push[0] for push in watched]]).astype(np.int64))
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
    if of_take_cover:
        dreamt = dream_episodes(dream, policies, config.dreams, own_seed("dreams"))
        contents: dict[str, Any] = {
            "kept": take_cover.fireballs_kept(real, seen),
            "invented": take_cover.fireballs_invented(real, seen),
            "hits": take_cover.hits(world, held_out, dreamt),
            "fire": take_cover.fire_over_time(world, held_out, dreamt, 2 * config.frames),
        }
        on_part("whole dreams")
        if watched:
            contents["walls"] = take_cover.walls(
                world,
                dream,
                held_out,
                z,
                watched,
                memory([push[0] for push in watched]),
                own_seed("walls"),
            )
        on_part("walls")
        result["take_cover"] = contents
    return result

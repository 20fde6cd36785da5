"""Pictures of the game, of V and of dreams, as arrays; no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from worldmodels_fast import envs
from worldmodels_fast.dream.stepping import DreamState, play, state_at
from worldmodels_fast.envs.policies import make_policy
from worldmodels_fast.models.vae import as_frames
from worldmodels_fast.types import Bools, Floats, Frames, Indices
from worldmodels_fast.world.world import World

BATCH = 250
"""Frames that V encodes together; a whole episode's activations would be gigabytes."""


def play_one(
    world: World,
    *,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    policy: str | None = None,
) -> tuple[Frames, Floats]:
    """Return one real episode, played by the world's agent or by an open-loop policy.

    Args:
        world: the world.
        seed: of the environment and the player.
        env_kwargs: settings of the environment; None for the world's own.
        policy: a name of `policies.POLICY_NAMES`; None for the agent.

    Returns:
        frames uint8 (T, 64, 64, 3), frame t from before action t, and actions float32 (T, A).
    """
    spec = envs.spec_of(world.config)
    env = envs.make_environment(spec.env_id, **(env_kwargs or world.config.get("env_kwargs", {})))
    if policy is None:
        act = world.agent(seed=seed, latent=world.config.get("latent", "sample")).act
    else:
        player = make_policy(policy, spec.squash)
        player.reset(np.random.default_rng(seed))

        def act(frame: Frames) -> Floats:
            return player.act()

    frames, actions = [], []
    try:
        frame, _ = env.reset(seed=seed)
        over = False
        while not over:
            frames.append(frame)
            actions.append(act(frame))
            frame, _, terminated, truncated, _ = env.step(actions[-1])
            over = terminated or truncated
    finally:
        env.close()
    return np.stack(frames), np.stack(actions)


@torch.no_grad()
def reconstruct(world: World, frames: Frames) -> Frames:
    """Return V's picture of each frame, decoded from the latent's mean."""
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(frames)), BATCH)
    pictures = [as_frames(world.vae.decode(world.vae.encode(part)[0])) for part in parts]
    return np.asarray(torch.cat(pictures))


@torch.no_grad()
def dream_along(
    world: World,
    first_frame: Frames,
    actions: Floats,
    *,
    temperature: float,
    seed: int,
    shown: slice = slice(None),
) -> tuple[Frames, Bools]:
    """Dream from a real first frame under given actions, and decode the latents.

    Args:
        world: the world.
        first_frame: uint8 (64, 64, 3).
        actions: float32 (T, A), for instance those of the real episode that began there.
        temperature: tau of the dream.
        seed: of the dream's noise.
        shown: the steps whose frames are wanted.

    Returns:
        frames uint8 (N, 64, 64, 3) of the steps in `shown`, step 0 being V's picture of
        `first_frame`; and bool (T,), whether the dream has ended in that step or before.
    """
    dream = world.dream(temperature=temperature)
    mu, _ = world.vae.encode(torch.from_numpy(np.ascontiguousarray(first_frame))[None])
    z: Floats = np.ascontiguousarray(mu.float().numpy())
    h, c = np.zeros((2, 1, dream.weights.hidden_dim), np.float32)
    given = iter(actions)

    def act(state: DreamState, rows: Indices) -> Floats:
        return np.ascontiguousarray(next(given)[None])

    begin = state_at(z, h, c, seed, step=0)
    steps = list(play(dream, begin, act, len(actions), to_the_end=False))
    latents = np.concatenate([now.before.z for now in steps])
    ended = np.logical_or.accumulate([now.after.done[0] for now in steps])
    return np.asarray(as_frames(world.vae.decode(torch.from_numpy(latents[shown])))), ended


def strip(
    rows: list[Frames], *, scale: int = 2, gap: int = 2, captions: Sequence[str] = ()
) -> Frames:
    """Lay frames out, one row for each list of frames: uint8 (height, width, 3) on white.

    Args:
        rows: each uint8 (N, 64, 64, 3), all with the same N.
        scale: each pixel becomes scale x scale.
        gap: white pixels between frames.
        captions: written into the rows' first frames.
    """
    n, height, width, _ = rows[0].shape
    canvas = np.full(
        (len(rows) * (height * scale + gap) - gap, n * (width * scale + gap) - gap, 3),
        255,
        np.uint8,
    )
    for r, frames in enumerate(rows):
        large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
        for k, frame in enumerate(large):
            top, left = r * (height * scale + gap), k * (width * scale + gap)
            canvas[top : top + height * scale, left : left + width * scale] = frame
    image = Image.fromarray(canvas)
    for r, caption in enumerate(captions):
        at = (4, r * (height * scale + gap) + 2)
        ImageDraw.Draw(image).text(at, caption, fill="white")
    return np.array(image)

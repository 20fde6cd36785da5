"""V's mu and logvar of every collected frame: the stage `encode`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from worldmodels_fast import data
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.training.config import Device, Precision
from worldmodels_fast.training.devices import choose_device, move, products_in_bf16

ENCODE_BATCH = 500
"""Frames in one batch of V."""


@torch.no_grad()
def encode_episodes(
    episodes: Path,
    latents: Path,
    model: VAE,
    *,
    precision: Precision = "auto",
    device: Device = "auto",
    on_shard: Callable[[int], None] = lambda frames: None,
) -> None:
    """Write V's mu and logvar of every frame, for each shard that `latents` does not hold yet.

    Actions and rewards are copied, so M's training reads the latents' folder alone.

    Args:
        episodes: folder of episode shards.
        latents: folder of latent shards, made if absent.
        model: V.
        precision: of the convolutions.
        device: see `VAEConfig`.
        on_shard: called with the number of frames of each finished shard.

    Raises:
        ValueError: no episodes, a damaged shard, or a V that returns NaN or infinity.
    """
    shards = data.finished_shards(episodes)
    if not shards:
        raise ValueError(f"{episodes}: no episodes; run the stage `collect` first")
    done = set(data.finished_shards(latents, ".safetensors"))
    where = choose_device(device)
    bf16 = products_in_bf16(precision, where)
    if where.type != "cpu":
        model = copy.deepcopy(model).to(where)  # the caller's model stays on its device
    for shard in shards:
        if shard in done:
            continue
        mus, logvars, actions, rewards, lengths, terminated = [], [], [], [], [], []
        for episode in data.read_episodes(episodes, shard):
            # A whole episode's activations would be gigabytes.
            for frames in torch.split(torch.from_numpy(episode.frames), ENCODE_BATCH):
                with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
                    mu, logvar = model.encode(move(frames, where))
                mus.append(mu.half().cpu().numpy())
                logvars.append(logvar.half().cpu().numpy())
            actions.append(episode.actions)
            rewards.append(episode.rewards)
            lengths.append(len(episode))
            terminated.append(episode.terminated)
        data.write_latents(
            latents,
            shard,
            data.Latents(
                mu=np.concatenate(mus),
                logvar=np.concatenate(logvars),
                actions=np.concatenate(actions),
                lengths=np.asarray(lengths),
                terminated=np.asarray(terminated),
                rewards=np.concatenate(rewards),
            ),
        )
        on_shard(sum(lengths))

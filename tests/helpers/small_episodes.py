"""Made-up episodes for the tests of what reads them."""

from pathlib import Path

import numpy as np

from worldmodels_fast import data

ENV_ID = "worldmodels_fast/TakeCover-v0"


def made_up_episode(steps: int, seed: int = 0, terminated: bool = True) -> data.Episode:
    """Noise frames whose first pixel holds (seed, t // 256, t % 256): each is recognisable."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (steps, 64, 64, 3), dtype=np.uint8)
    t = np.arange(steps)
    frames[:, 0, 0] = np.stack([np.full(steps, seed), t // 256, t % 256], axis=1)
    return data.Episode(
        frames=frames,
        actions=rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        rewards=np.ones(steps, np.float32),
        terminated=terminated,
        seed=seed,
    )


def write_made_up_episodes(folder: Path, lengths: list[list[int]]) -> None:
    """Shard s has an episode of each of the lengths in lengths[s]; episodes are numbered on."""
    number = 0
    for shard, steps in enumerate(lengths):
        episodes = [made_up_episode(n, number + i) for i, n in enumerate(steps)]
        number += len(steps)
        data.write_episodes(folder, shard, episodes, ENV_ID)


def made_up_latents(
    lengths: list[int], latent_dim: int = 3, seed: int = 0, std: float = 0.0
) -> data.Latents:
    """Latents whose mu[:, 0] is the episode's number and mu[:, 1] the step in it."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    mu = rng.normal(size=(n, latent_dim)).astype(np.float16)
    mu[:, 0] = np.repeat(np.arange(len(lengths)), lengths)
    mu[:, 1] = np.concatenate([np.arange(length) for length in lengths])
    return data.Latents(
        mu=mu,
        logvar=np.full((n, latent_dim), 2 * np.log(std) if std else -30.0, np.float16),
        actions=rng.uniform(-1, 1, (n, 1)).astype(np.float32),
        lengths=np.asarray(lengths),
        terminated=np.arange(len(lengths)) % 3 != 2,  # every third one was cut by a time limit
    )

"""Errors of M's predictions: dreams of many tics under real actions, beside the real episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evaluation.quality.dreaming import decode, dream_on
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.types import Doubles, Floats, Frames, Indices
from worldmodels_fast.world.world import World

USED_NATS = 0.1
"""Nats from which a latent dimension counts as used; the others are noise to M."""

PIXEL_TICS = (1, 2, 5, 10, 20, 40, 60)
"""Tics after which dreamt frames are compared with real ones, as far as the horizon goes."""


def kl_by_dimension(mu: Floats, logvar: Floats) -> Doubles:
    """Return the KL of each dimension in nats, averaged over frames, (Z,)."""
    mu64, logvar64 = mu.astype(np.float64), logvar.astype(np.float64)
    kl: Doubles = (-0.5 * (1 + logvar64 - mu64**2 - np.exp(logvar64))).mean(0)
    return kl


def prediction(
    world: World,
    dream: Dream,
    held_out: HeldOut,
    z: Floats,
    tics: Indices,
    memory: tuple[Floats, Floats],
    *,
    horizon: int,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Return errors of dreams 1 to `horizon` tics long, in latents and in pixels.

    In latents: the squared distance to V's mean for the real frame, in each dimension that V uses,
    over that dimension's variance on held-out frames; 1 is what the unconditional mean gets. In
    pixels: the squared error summed over a frame in [0, 1], the unit of V's reconstruction.

    Args:
        world: V.
        dream: M at the temperature to be measured.
        held_out: the episodes.
        z: (N, Z), the latents that M has seen.
        tics: (W,), the last real tics; `horizon` more follow each in its episode.
        memory: h, c (W, H), M's from before those.
        horizon: K, tics dreamt.
        samples: S, dreams from each place.
        seed: of their noise.

    Returns:
        JSON: "tics" 1..K and under "latent" a list of K errors for each of "sample", "mean of
        samples", "mean path", "copy", "unconditional"; "pixel_tics" and the same under "pixel",
        with V's own error as "reconstruction".
    """
    h, c = memory
    ahead = np.arange(1, horizon + 1)[:, None] + tics  # (K, W)
    actions = held_out.actions[ahead - 1]
    path = dream_on(dream, z[tics], h, c, actions, seed=None).z
    many_z, many_h, many_c = (np.repeat(part, samples, axis=0) for part in (z[tics], h, c))
    many = dream_on(dream, many_z, many_h, many_c, np.repeat(actions, samples, axis=1), seed=seed)
    dreamt = many.z.reshape(horizon, len(tics), samples, -1)

    used = kl_by_dimension(held_out.mu, held_out.logvar) >= USED_NATS
    if not used.any():
        used[:] = True
    real, variance = held_out.mu[ahead][..., used], held_out.mu[:, used].var(0)

    def error(guess: Floats) -> list[float]:
        return [float(e) for e in ((guess - real) ** 2 / variance).mean((1, 2))]

    latents = {
        "sample": error(dreamt[:, :, 0][..., used]),
        "mean of samples": error(dreamt.mean(2)[..., used]),
        "mean path": error(path[..., used]),
        "copy": error(np.broadcast_to(held_out.mu[tics][..., used], real.shape)),
        "unconditional": error(np.broadcast_to(held_out.mu[:, used].mean(0), real.shape)),
    }
    shown = np.array([k for k in PIXEL_TICS if k <= horizon]) - 1
    frames = held_out.frames(np.concatenate([tics, ahead[shown].ravel()]))
    start, real_frames = (
        frames[: len(tics)],
        frames[len(tics) :].reshape(len(shown), len(tics), *frames.shape[1:]),
    )
    mean = real_frames.reshape(-1, *frames.shape[1:]).mean(0)
    pixels: dict[str, list[float]] = {
        name: [] for name in ("sample", "mean path", "copy", "unconditional", "reconstruction")
    }
    for row, k in enumerate(shown):
        guesses = {
            "sample": decode(world.vae, dreamt[k, :, 0]),
            "mean path": decode(world.vae, path[k]),
            "copy": start,
            "unconditional": mean[None],
            "reconstruction": decode(world.vae, held_out.mu[ahead[k]]),
        }
        for name, guess in guesses.items():
            pixels[name].append(frame_error(guess, real_frames[row]))
    return {
        "windows": len(tics),
        "samples": samples,
        "temperature": dream.temperature,
        "dimensions_used": int(used.sum()),
        "tics": list(range(1, horizon + 1)),
        "latent": latents,
        "pixel_tics": [int(k) + 1 for k in shown],
        "pixel": pixels,
    }


def frame_error(guess: Frames | Doubles, real: Frames) -> float:
    """Return the squared error of frames in [0, 1], summed over pixels, averaged over frames."""
    difference = (guess.astype(np.float32) - real.astype(np.float32)) / 255
    return float((difference**2).sum((-3, -2, -1)).mean())


def horizons(latent: dict[str, list[float]]) -> tuple[int | None, int]:
    """Return the tic from which dreams beat copying for good, and the tic up to which they predict.

    Returns:
        the first tic from which the mean of M's samples is closer than the last frame at every
        tic to the end, or None; and the last tic of the unbroken run from the first in which it
        is closer than the unconditional mean by a tenth, 0 if there is none.
    """
    mean = np.array(latent["mean of samples"])
    worse = np.flatnonzero(mean >= np.array(latent["copy"]))
    first = 1 if not worse.size else int(worse[-1]) + 2
    blind = np.flatnonzero(mean >= 0.9 * np.array(latent["unconditional"]))
    foreseen = len(mean) if not blind.size else int(blind[0])
    return (first if first <= len(mean) else None), foreseen

"""M beside reality: fed with what really happened, or left to dream under real actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from worldmodels_fast import ops
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.envs.policies import PolicyBatch
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.models.mdn_rnn import LOG_SQRT_2PI
from worldmodels_fast.models.vae import VAE, as_frames
from worldmodels_fast.types import Floats, Frames, Indices
from worldmodels_fast.utils.processes import n_workers

DECODE_BATCH = 250

Act = Callable[[Floats, Floats, Floats], Floats]
"""Chooses actions (N, A) by z (N, Z), h and c (N, H) from before M is fed that z."""


@dataclass(frozen=True)
class Followed:
    """What M says of every real tic, having seen its episode so far.

    Attributes:
        logit: float32 (N,), that this tic ends the episode; -inf where M predicts no end.
        nll: float32 (N,), -log p(next z) in nats per dimension; NaN on an episode's last tic.
        h: float32 (W, H), M's memory before each of the tics asked for.
        c: float32 (W, H).
        reward: float32 (N,), predicted for this tic's action; NaN where M predicts none.
    """

    logit: Floats
    nll: Floats
    h: Floats
    c: Floats
    reward: Floats


def step(
    dream: Dream, z: Floats, action: Floats, h: Floats, c: Floats, first: bool
) -> ops.MDNRNNStep[Any]:
    """One step of M for N rows; `first` says that their episodes begin with it."""
    flag = np.full(len(z), first, np.float32) if dream.weights.predicts_done else None
    return ops.mdn_rnn_step(dream.model, z, action, h, c, flag, threads=n_workers(dream.threads))


def follow(dream: Dream, held_out: HeldOut, z: Floats, tics: Indices) -> Followed:
    """Feed M with real episodes, all side by side.

    Args:
        dream: M.
        held_out: the episodes.
        z: (N, Z), their latents.
        tics: (W,), those before which M's memory is wanted.
    """
    order = np.argsort(-held_out.lengths, kind="stable")  # those that end first are the last rows
    starts, lengths = held_out.starts[order], held_out.lengths[order]
    hidden = dream.weights.hidden_dim
    h, c = np.zeros((2, len(order), hidden), np.float32)
    logit = np.full(len(z), -np.inf, np.float32)
    nll, reward = np.full((2, len(z)), np.nan, np.float32)
    kept_h, kept_c = np.zeros((2, len(tics), hidden), np.float32)
    place = np.full(len(z), -1)
    place[tics] = np.arange(len(tics))
    for t in range(int(lengths[0])):
        alive = int((lengths > t).sum())
        now = starts[:alive] + t
        h, c = h[:alive], c[:alive]
        wanted = place[now] >= 0
        kept_h[place[now[wanted]]] = h[wanted]
        kept_c[place[now[wanted]]] = c[wanted]
        out = step(dream, z[now], held_out.actions[now], h, c, t == 0)
        h, c = out.h, out.c
        if out.done_logit is not None:
            logit[now] = out.done_logit
        if out.reward is not None:
            reward[now] = out.reward
        goes_on = lengths[:alive] > t + 1
        nll[now[goes_on]] = _nll(out, z[now[goes_on] + 1], goes_on)
    return Followed(logit, nll, kept_h, kept_c, reward)


def _nll(out: ops.MDNRNNStep[Any], target: Floats, rows: npt.NDArray[np.bool_]) -> Floats:
    logmix, mu, logstd = out.logmix[rows], out.mu[rows], out.logstd[rows]
    density = -0.5 * ((target[..., None] - mu) * np.exp(-logstd)) ** 2 - logstd - LOG_SQRT_2PI
    each = np.logaddexp.reduce(logmix, -1) - np.logaddexp.reduce(logmix + density, -1)
    mean: Floats = each.mean(-1)
    return mean


def dream_on(
    dream: Dream,
    z: Floats,
    h: Floats,
    c: Floats,
    actions: Floats,
    seed: int | None,
    first: bool = False,
    act: Act | None = None,
) -> tuple[Floats, Floats]:
    """Let M dream for T tics under given actions, whatever it says of the end.

    Args:
        dream: M and the temperature.
        z: (N, Z), what V has seen last.
        h: (N, H), M's memory from before that.
        c: (N, H).
        actions: (T, N, A).
        seed: of the noise; None takes each mixture's mean.
        first: whether the episodes begin here.
        act: chooses the actions as the dream goes on; those of `actions` then only are as many.

    Returns:
        z after each tic (T, N, Z), and the logit that it ends the episode (T, N); -inf where M
        predicts no end.
    """
    dreamt = np.empty((len(actions), *z.shape), np.float32)
    logits = np.full(dreamt.shape[:2], -np.inf, np.float32)
    for t, action in enumerate(actions):
        if act is not None:
            action = act(z, h, c)
        out = step(dream, z, np.ascontiguousarray(action), h, c, first and t == 0)
        h, c = out.h, out.c
        if seed is None:
            weight = np.exp(out.logmix - out.logmix.max(-1, keepdims=True))
            z = (weight * out.mu).sum(-1) / weight.sum(-1)
        else:
            z = ops.mixture_sample(
                out.logmix, out.mu, out.logstd, dream.temperature, seed=seed, step=t
            )
        dreamt[t] = z
        if out.done_logit is not None:
            logits[t] = out.done_logit
    return dreamt, logits


@dataclass(frozen=True)
class Dreamt:
    """Whole dreams from first frames to their ends.

    Attributes:
        z: float32 (N, Z), the latents of all of them end to end; the first of each is V's own.
        lengths: int64 (E,).
        died: bool (E,), whether M ended it, not the limit.
    """

    z: Floats
    lengths: Indices
    died: npt.NDArray[np.bool_]

    @property
    def starts(self) -> Indices:
        """int64 (E,): index of each dream's first tic."""
        return np.cumsum(self.lengths) - self.lengths


def dream_episodes(dream: Dream, policies: tuple[str, ...], n: int, seed: int) -> Dreamt:
    """Dream n whole episodes, each under the next of `policies`, and keep their latents."""
    rngs = [np.random.default_rng((seed, 1, row)) for row in range(n)]
    players = [
        (
            np.arange(k, n, len(policies)),
            PolicyBatch(name, rngs[k :: len(policies)], dream.squash),
        )
        for k, name in enumerate(policies)
    ]
    z = dream.first_latents(np.random.default_rng((seed, 0)), n)
    h, c = np.zeros((2, n, dream.weights.hidden_dim), np.float32)
    actions = np.zeros((n, dream.weights.action_dim), np.float32)
    alive = np.arange(n)
    lived: list[tuple[Indices, Floats]] = []
    died = np.zeros(n, np.bool_)
    lengths = np.zeros(n, np.int64)
    for t in range(dream.max_steps):
        for rows, batch in players:
            if rows.size:
                actions[rows] = batch.act()
        lived.append((alive, z))
        lengths[alive] += 1
        restart = np.full(alive.size, t == 0, np.float32)
        z, h, c, done = dream.step(
            z, actions[alive], h, c, restart, seed, t, threads=n_workers(dream.threads)
        )
        died[alive[done]] = True
        alive, z, h, c = alive[~done], z[~done], h[~done], c[~done]
        if alive.size == 0:
            break
    out = np.empty((lengths.sum(), dream.weights.latent_dim), np.float32)
    starts = np.cumsum(lengths) - lengths
    for t, (rows, latents) in enumerate(lived):
        out[starts[rows] + t] = latents
    return Dreamt(out, lengths, died)


@torch.no_grad()
def decode(vae: VAE, z: Floats) -> Frames:
    """Return V's pictures of latents (N, Z), uint8 (N, 64, 64, 3)."""
    parts = [
        as_frames(vae.decode(part)).numpy()
        for part in torch.split(torch.from_numpy(np.ascontiguousarray(z)), DECODE_BATCH)
    ]
    return np.concatenate(parts)

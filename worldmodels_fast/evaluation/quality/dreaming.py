"""M beside reality: run on real episodes, and dreaming on under their actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from worldmodels_fast import ops
from worldmodels_fast.dream import stepping
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.dream.stepping import Act, DreamState
from worldmodels_fast.envs.policies import PolicyBatch
from worldmodels_fast.models.mdn_rnn import LOG_SQRT_2PI
from worldmodels_fast.models.vae import VAE, as_frames
from worldmodels_fast.types import Bools, Floats, Frames, Indices
from worldmodels_fast.utils.processes import n_workers

DECODE_BATCH = 250


@dataclass(frozen=True)
class Followed:
    """M's predictions for every real tic, after the tics before it in its episode.

    Attributes:
        logit: float32 (N,), that this tic ends the episode; -inf where M predicts no end.
        nll: float32 (N,), -log p(next z) in nats per dimension; NaN on an episode's last tic.
        h: float32 (W, H), M's hidden state before each of the tics chosen.
        c: float32 (W, H), M's cell state, likewise.
        reward: float32 (N,), predicted for this tic's action; NaN where M predicts none.
    """

    logit: Floats
    nll: Floats
    h: Floats
    c: Floats
    reward: Floats


@dataclass(frozen=True)
class Continued:
    """T tics of N dreams.

    Attributes:
        z: float32 (T, N, Z), the latents after each tic.
        logit: float32 (T, N), that the tic ends the dream; -inf where M predicts no end.
        done: bool (T, N), whether the tic ends the dream, by the dream's rule.
    """

    z: Floats
    logit: Floats
    done: Bools


class Episodes(Protocol):
    """Real episodes end to end, N tics in all: `HeldOut`, for instance."""

    @property
    def actions(self) -> Floats:
        """float32 (N, A)."""

    @property
    def starts(self) -> Indices:
        """int64 (E,), index of each episode's first tic."""

    @property
    def lengths(self) -> Indices:
        """int64 (E,)."""


def follow(dream: Dream, episodes: Episodes, z: Floats, tics: Indices) -> Followed:
    """Run M on the latents and actions of real episodes, all side by side.

    Args:
        dream: M.
        episodes: the episodes.
        z: (N, Z), their latents.
        tics: (W,), those for which M's state before them is returned.
    """
    order = np.argsort(-episodes.lengths, kind="stable")  # those that end first are the last rows
    starts, lengths = episodes.starts[order], episodes.lengths[order]
    hidden = dream.weights.hidden_dim
    h, c = np.zeros((2, len(order), hidden), np.float32)
    logit = np.full(len(z), -np.inf, np.float32)
    nll, reward = np.full((2, len(z)), np.nan, np.float32)
    kept_h, kept_c = np.zeros((2, len(tics), hidden), np.float32)
    place = np.full(len(z), -1)
    place[tics] = np.arange(len(tics))
    predicts_done, threads = dream.weights.predicts_done, n_workers(dream.threads)
    for t in range(int(lengths[0])):
        alive = int((lengths > t).sum())
        now = starts[:alive] + t
        h, c = h[:alive], c[:alive]
        wanted = place[now] >= 0
        kept_h[place[now[wanted]]] = h[wanted]
        kept_c[place[now[wanted]]] = c[wanted]
        restart = np.full(alive, t == 0, np.float32) if predicts_done else None
        out = ops.mdn_rnn_step(
            dream.model, z[now], episodes.actions[now], h, c, restart, threads=threads
        )
        h, c = out.h, out.c
        if out.done_logit is not None:
            logit[now] = out.done_logit
        if out.reward is not None:
            reward[now] = out.reward
        goes_on = lengths[:alive] > t + 1
        nll[now[goes_on]] = _nll(out, z[now[goes_on] + 1], goes_on)
    return Followed(logit, nll, kept_h, kept_c, reward)


def _nll(out: ops.MDNRNNStep[Any], target: Floats, rows: Bools) -> Floats:
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
    act: Act | None = None,
) -> Continued:
    """Dream T tics of N rollouts that are under way; M's ends do not stop them.

    Args:
        dream: M, the temperature and the rule for ends.
        z: (N, Z), the latents of the last frames seen.
        h: (N, H), M's hidden state from before it was given z.
        c: (N, H), M's cell state, likewise.
        actions: (T, N, A).
        seed: of the noise; None takes each mixture's mean.
        act: chooses the actions by the dream's state; `actions` then only gives T.
    """
    given = iter(actions)

    def next_action(state: DreamState, rows: Indices) -> Floats:
        action = next(given)
        return np.ascontiguousarray(action) if act is None else act(state, rows)

    dreamt = np.empty((len(actions), *z.shape), np.float32)
    logits = np.full(dreamt.shape[:2], -np.inf, np.float32)
    ends = np.zeros(dreamt.shape[:2], np.bool_)
    state = stepping.state_at(z, h, c, 0 if seed is None else seed)
    sample = seed is not None
    for t, now in enumerate(
        stepping.play(dream, state, next_action, len(actions), sample=sample, to_the_end=False)
    ):
        dreamt[t] = now.after.state.z
        ends[t] = now.after.done
        if now.after.done_logit is not None:
            logits[t] = now.after.done_logit
    return Continued(dreamt, logits, ends)


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
    died: Bools

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
    actions = np.zeros((n, dream.weights.action_dim), np.float32)

    def act(state: DreamState, rows: Indices) -> Floats:
        for played, batch in players:
            if played.size:
                actions[played] = batch.act()
        return actions[rows]

    steps: list[tuple[Indices, Floats]] = []
    died = np.zeros(n, np.bool_)
    lengths = np.zeros(n, np.int64)
    for now in stepping.play(dream, dream.begin(n, seed), act):
        steps.append((now.rows, now.before.z))
        lengths[now.rows] += 1
        died[now.rows] = now.after.done
    out = np.empty((lengths.sum(), dream.weights.latent_dim), np.float32)
    starts = np.cumsum(lengths) - lengths
    for t, (rows, latents) in enumerate(steps):
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

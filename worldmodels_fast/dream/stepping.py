"""Dreams stepped by Python: the state of N rollouts, one step, and the loop over steps.

The native `ops.dream_rollout` is the same loop for a controller. A rollout's noise depends on its
own (seed, rollout, step) and on nothing else, so a rollout stepped here with a controller's actions
has the length and the return of `Dream.evaluate`, whatever rollouts are stepped beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops
from worldmodels_fast.types import Bools, Floats, Indices
from worldmodels_fast.utils.arguments import checked_integer
from worldmodels_fast.utils.processes import n_workers

if TYPE_CHECKING:
    from worldmodels_fast.dream.dream import Dream

__all__ = ["Act", "DreamState", "DreamStep", "RowsStep", "begin", "play", "state_at", "step"]

Words = npt.NDArray[np.integer[Any]]

Act = Callable[["DreamState", Indices], Floats]
"""Chooses the actions (N, A) of N rollouts by their state and their rows (N,) in `play`."""


@dataclass(frozen=True, eq=False)
class DreamState:
    """N rollouts before a step.

    Attributes:
        z: float32 (N, Z), latent.
        h: float32 (N, H), M's hidden state from before it was given z.
        c: float32 (N, H), M's cell state, likewise.
        seed: uint64 (N,), of the noise.
        rollout: uint32 (N,), of the noise: the rollout's number under its seed.
        step: uint32 (N,), of the noise: the number of this step, 0 for a rollout's first.
    """

    z: Floats
    h: Floats
    c: Floats
    seed: Words
    rollout: Words
    step: Words

    def __len__(self) -> int:
        return len(self.z)

    def __repr__(self) -> str:
        return f"DreamState(N={len(self)}, Z={self.z.shape[1]}, H={self.h.shape[1]})"

    def rows(self, index: Indices | Bools) -> DreamState:
        """Return some of the rollouts, by their rows or a mask of them."""
        return DreamState(
            self.z[index],
            self.h[index],
            self.c[index],
            self.seed[index],
            self.rollout[index],
            self.step[index],
        )

    def put(self, index: Indices | Bools, other: DreamState) -> None:
        """Replace some of the rollouts, in place.

        Args:
            index: their rows, or a mask of them.
            other: as many rollouts.
        """
        for name in ("z", "h", "c", "seed", "rollout", "step"):
            getattr(self, name)[index] = getattr(other, name)


class DreamStep(NamedTuple):
    """The result of one step of N rollouts.

    Attributes:
        state: the rollouts after it.
        done: bool (N,), whether the step ended them.
        reward: float32 (N,), expected by M, in the environment's units; 1 where M predicts none.
        done_logit: float32 (N,), or None where M does not predict the end.
    """

    state: DreamState
    done: Bools
    reward: Floats
    done_logit: Floats | None


class RowsStep(NamedTuple):
    """One step of `play`.

    Attributes:
        rows: int64 (N,), the rollouts that were stepped, of those with which the loop began.
        before: their state before the step.
        after: the result of the step.
    """

    rows: Indices
    before: DreamState
    after: DreamStep


def begin(
    dream: Dream, n: int, seed: int | Words = 0, rollout: int | Words | None = None
) -> DreamState:
    """Return N rollouts at their beginning, their first latents drawn as `Dream.evaluate` does.

    Args:
        dream: the stored first latents.
        n: N.
        seed: 0 <= seed < 2**64; one for all rollouts, or (N,).
        rollout: each rollout's number under its seed, (N,), below 2**32; None for 0 to N - 1. The
            rollouts of a member in `Dream.evaluate` are those.

    Raises:
        TypeError, ValueError: numbers of another kind or out of range.
    """
    n = checked_integer("n", n, low=1)
    numbers = np.arange(n) if rollout is None else rollout
    z = ops.initial_latents(
        dream.initial_mu, dream.initial_logvar, n, seed=seed, rollout=_each(numbers, n)
    )
    h, c = np.zeros((2, n, dream.weights.hidden_dim), np.float32)
    return _state(z, h, c, seed, numbers, 0)


def state_at(
    z: Floats,
    h: Floats,
    c: Floats,
    seed: int | Words = 0,
    rollout: int | Words | None = None,
    step: int | Words = 1,
) -> DreamState:
    """Return N rollouts that are under way, for instance where a real episode has come to.

    Args:
        z: (N, Z).
        h: (N, H).
        c: (N, H).
        seed: of the noise; one for all rollouts, or (N,).
        rollout: each rollout's number under its seed, (N,); None for 0 to N - 1.
        step: the number of the step to come; one for all rollouts, or (N,). At 0 M is given the
            restart flag.
    """
    numbers = np.arange(len(z)) if rollout is None else rollout
    z, h, c = (np.array(x, np.float32, order="C") for x in (z, h, c))  # `put` writes into them
    return _state(z, h, c, seed, numbers, step)


def step(dream: Dream, state: DreamState, action: Floats, *, sample: bool = True) -> DreamStep:
    """Run one step of N rollouts of a dream.

    A rollout's end is drawn by the dream's own rule (`ops.done_sample`). It does not keep the
    rollout from being stepped on.

    Args:
        dream: M, the temperature and the rule for ends.
        state: the rollouts; it is not changed.
        action: float32 (N, A), C-contiguous.
        sample: whether z' is drawn at the dream's temperature; else it is the mixture's mean.

    Raises:
        TypeError, ValueError: arrays of another dtype, shape or layout.
    """
    flag = (state.step == 0).astype(np.float32) if dream.weights.predicts_done else None
    out = ops.mdn_rnn_step(
        dream.model, state.z, action, state.h, state.c, flag, threads=n_workers(dream.threads)
    )
    noise: dict[str, Any] = {"seed": state.seed, "rollout": state.rollout, "step": state.step}
    if sample:
        z = ops.mixture_sample(out.logmix, out.mu, out.logstd, dream.temperature, **noise)
    else:
        z = _mean(out.logmix, out.mu)
    if out.done_logit is None:
        done = np.zeros(len(z), np.bool_)
    else:
        rule = dream.done_threshold, dream.done_temperature
        done = ops.done_sample(out.done_logit, *rule, **noise)
    reward = np.ones(len(z), np.float32) if out.reward is None else out.reward
    after = DreamState(z, out.h, out.c, state.seed, state.rollout, state.step + np.uint32(1))
    return DreamStep(after, done, reward, out.done_logit)


def play(
    dream: Dream,
    state: DreamState,
    act: Act,
    steps: int | None = None,
    *,
    sample: bool = True,
    to_the_end: bool = True,
) -> Iterator[RowsStep]:
    """Step N rollouts side by side, and yield each step.

    Args:
        dream: M, the temperature and the rule for ends.
        state: the rollouts with which the loop begins.
        act: chooses their actions.
        steps: of each rollout, unless M ends it; None for the dream's `max_steps`.
        sample: see `step`.
        to_the_end: whether a rollout that M ends is stepped no further; else all are stepped for
            all `steps`.
    """
    rows = np.arange(len(state))
    for _ in range(dream.max_steps if steps is None else steps):
        after = step(dream, state, act(state, rows), sample=sample)
        yield RowsStep(rows, state, after)
        state = after.state
        if to_the_end and after.done.any():
            stays = ~after.done
            rows, state = rows[stays], state.rows(stays)
            if rows.size == 0:
                return


def _mean(logmix: Floats, mu: Floats) -> Floats:
    """Return the means (N, Z) of the mixtures, before any temperature."""
    weight = np.exp(logmix - logmix.max(-1, keepdims=True))
    mean: Floats = (weight * mu).sum(-1) / weight.sum(-1)
    return mean


def _each(number: int | Words, n: int) -> Words:
    return np.full(n, number) if np.ndim(number) == 0 else np.asarray(number)


def _state(
    z: Floats,
    h: Floats,
    c: Floats,
    seed: int | Words,
    rollout: int | Words,
    step: int | Words,
) -> DreamState:
    n = len(z)
    numbers = (
        np.array(np.broadcast_to(np.asarray(number, dtype), n))
        for number, dtype in ((seed, np.uint64), (rollout, np.uint32), (step, np.uint32))
    )
    return DreamState(z, h, c, *numbers)

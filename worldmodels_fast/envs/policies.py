"""Open-loop policies: for collecting episodes and for comparing dream with game.

They look at nothing. Every one is piecewise constant: it draws an action and holds it for a number
of tics. So a policy is one method, ``draw``, and both forms, one episode (`Policy`) and many at
once (`PolicyBatch`), are made from it. Every action lies in its own range, the environment's: in
Take Cover one action in [-1, 1], of which less than -1/3 moves left, more than 1/3 moves right,
and the rest stands still; in CarRacing steering in [-1, 1], gas and brake in [0, 1].

| name | action | held for |
| --- | --- | --- |
| ``uniform`` | uniform in its range | 1 tic |
| ``held-random`` | uniform in its range (the paper's collection for Doom) | 1 to 10 tics, uniform |
| ``still``, ``left``, ``right`` | 0, -1, 1, or the nearest value of its range | for ever |
| ``swing-N`` | -1 and 1 in turn, -1 first | N tics each |
| ``lingering`` | uniform in its range | as ``held-random``, sometimes 10 to 100 tics |
| ``roaming`` | to one side and the other in turn | 10 to 160 tics |
| ``random-linear`` | a random C on noise (the paper's collection for CarRacing) | 1 tic |
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from worldmodels_fast.envs.squash import Squash

__all__ = [
    "FIDELITY_POLICIES",
    "POLICY_NAMES",
    "HeldRandom",
    "Lingering",
    "Policy",
    "PolicyBatch",
    "RandomLinear",
    "Roaming",
    "Steady",
    "Swing",
    "Uniform",
    "check_policies",
    "make_policy",
]

FOREVER = 2**62
"""A hold longer than any episode, in tics."""

RANDOM_LINEAR_INPUTS = 32
"""Dimensions of a random C's noise: CarRacing's z."""

RANDOM_LINEAR_SIZE = 0.01
"""The largest size of its weights (the paper's code)."""


class Policy(ABC):
    """One episode's actions: ``reset(rng)``, then ``act()`` once per tic.

    Args:
        squash: the environment's A actions and their ranges; None for one in [-1, 1].
    """

    name: ClassVar[str] = ""

    def __init__(self, squash: Squash | None = None) -> None:
        self.squash = squash or Squash.plain(1)
        self.action_dim = self.squash.action_dim
        self._rng: np.random.Generator | None = None
        self._action = np.zeros(self.action_dim, np.float32)
        self._left = 0  # tics for which the present action is still held

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode whose randomness comes from ``rng`` alone."""
        self._rng = rng
        self._left = 0

    def act(self) -> npt.NDArray[np.float32]:
        """Return the action of the next tic, (A,) float32."""
        if self._rng is None:
            raise RuntimeError("policy: act() before reset(rng); reset it at each episode's start")
        if self._left == 0:
            self._action, self._left = self.draw(self._rng)
        self._left -= 1
        return self._action.copy()

    def actions(self, rng: np.random.Generator, steps: int) -> npt.NDArray[np.float32]:
        """Return an episode's actions, (T, A) float32, those of ``reset`` and T times ``act``."""
        self.reset(rng)
        out = np.empty((steps, self.action_dim), np.float32)
        t = 0
        while t < steps:
            action, tics = self.draw(rng)
            out[t : t + tics] = action
            t += tics
        self._left = 0
        return out

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """Return the next action, (A,) float32, and for how many tics (at least 1) it is held."""

    def _uniform_action(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        return rng.uniform(self.squash.low, self.squash.high).astype(np.float32)


class Uniform(Policy):
    """A fresh uniform action at every tic: the paper's random baseline (210)."""

    name = "uniform"

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`."""
        return self._uniform_action(rng), 1


class HeldRandom(Policy):
    """A uniform action held for 1 to 10 tics: the paper's collection policy for Doom."""

    name = "held-random"

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`."""
        return self._uniform_action(rng), int(rng.integers(1, 11))


class Lingering(Policy):
    """Held random actions, some of them held for so long that walls are reached and stayed at.

    Beyond the paper: its policy hardly ever rests at a wall, and a world model learnt from it does
    not know that one dies there. A share p of the holds, drawn anew for every episode from
    [0, 0.4], lasts 10 to 100 tics; the others 1 to 10. So one third of the long holds push left,
    one third right, and one third stand still, and some episodes are nearly the paper's.
    """

    name = "lingering"

    def reset(self, rng: np.random.Generator) -> None:
        """See `Policy.reset`; draws this episode's share of long holds."""
        super().reset(rng)
        self._share = rng.uniform(0.0, 0.4)

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`."""
        low, high = (10, 100) if rng.random() < self._share else (1, 10)
        return self._uniform_action(rng), int(rng.integers(low, high + 1))


class Roaming(Policy):
    """To one side and the other in turn, with holds of random lengths.

    Beyond the paper: random actions keep the player near the middle, where he dies early, so a
    world model learnt from them never sees the late game and its crowd of monsters. Swinging from
    wall to wall lives three times as long. Each episode draws its longest hold from 20 to 160
    tics; a hold lasts between half of that and all of it, and in one of ten he stands still
    instead.
    """

    name = "roaming"

    def reset(self, rng: np.random.Generator) -> None:
        """See `Policy.reset`; draws this episode's longest hold and its first side."""
        super().reset(rng)
        self._longest = int(rng.integers(20, 161))
        self._side = float(rng.choice((-1.0, 1.0)))

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`; the action's size is uniform in (1/3, 1]: all of it moves."""
        tics = int(rng.integers(self._longest // 2, self._longest + 1))
        if rng.random() < 0.1:
            return self.squash.clip(rng.uniform(-1 / 3, 1 / 3, self.action_dim)), tics
        self._side = -self._side
        size = 1.0 - rng.uniform(0.0, 2 / 3, self.action_dim)
        return self.squash.clip(self._side * size), tics


class RandomLinear(Policy):
    """The paper's collection for CarRacing: a linear C with random weights, anew in each episode.

    There V and M are random, too, so C's input is noise: action = squash(b + W eps), eps standard
    normal at every step. Weights and biases are Cauchy, times a size uniform in [0, 0.01]: mostly
    about straight on at half throttle, and now and then one that turns or brakes for good.
    """

    name = "random-linear"

    def reset(self, rng: np.random.Generator) -> None:
        """See `Policy.reset`; draws this episode's map."""
        super().reset(rng)
        size = rng.uniform(0.0, RANDOM_LINEAR_SIZE)
        self._bias = size * rng.standard_cauchy(self.action_dim)
        self._weight = size * rng.standard_cauchy((RANDOM_LINEAR_INPUTS, self.action_dim))

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`."""
        noise = rng.standard_normal(RANDOM_LINEAR_INPUTS)
        return self.squash(self._bias + noise @ self._weight), 1


class Steady(Policy):
    """One action for ever: ``still`` (0), ``left`` (-1), ``right`` (1)."""

    def __init__(self, value: float, squash: Squash | None = None) -> None:
        super().__init__(squash)
        self._value = self.squash.clip(np.full(self.action_dim, value))

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`."""
        return self._value, FOREVER


class Swing(Policy):
    """``period`` tics to the left, ``period`` tics to the right, and again."""

    def __init__(self, period: int, squash: Squash | None = None) -> None:
        super().__init__(squash)
        if period < 1:
            raise ValueError(f"period: expected at least 1 tic, got {period}")
        self._period = period
        self._side = 1.0

    def reset(self, rng: np.random.Generator) -> None:
        """See `Policy.reset`; the first swing is to the left."""
        super().reset(rng)
        self._side = 1.0

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
        """See `Policy.draw`."""
        self._side = -self._side
        return self.squash.clip(np.full(self.action_dim, self._side)), self._period


_MAKERS: dict[str, Callable[[Squash | None], Policy]] = {
    "uniform": Uniform,
    "held-random": HeldRandom,
    "lingering": Lingering,
    "roaming": Roaming,
    "random-linear": RandomLinear,
    "still": lambda squash: Steady(0.0, squash),
    "left": lambda squash: Steady(-1.0, squash),
    "right": lambda squash: Steady(1.0, squash),
}

POLICY_NAMES: tuple[str, ...] = (*_MAKERS, "swing-N")

FIDELITY_POLICIES: tuple[str, ...] = (
    "uniform",
    "held-random",
    "still",
    "left",
    "right",
    "swing-10",
    "swing-20",
    "swing-40",
    "swing-80",
)
"""The rows of the table that compares survival in the dream with survival in the game."""


def make_policy(name: str, squash: Squash | None = None) -> Policy:
    """Return the policy of that name (`POLICY_NAMES`; underscores may stand for hyphens).

    Args:
        name: its name.
        squash: the environment's actions, see `Policy`.

    Raises:
        ValueError: no such policy.
    """
    name = name.replace("_", "-")
    if name in _MAKERS:
        return _MAKERS[name](squash)
    if match := re.fullmatch(r"swing-([1-9][0-9]{0,5})", name):
        return Swing(int(match[1]), squash)
    raise ValueError(f"policy: expected one of {', '.join(POLICY_NAMES)}, got {name!r}")


def check_policies(argument: str, names: Sequence[str]) -> None:
    """Raise ValueError, naming the argument, unless these are names of policies, one at least."""
    if not names:
        raise ValueError(f"{argument}: expected the name of at least one policy, got none")
    for name in names:
        try:
            make_policy(name)
        except ValueError as error:
            raise ValueError(f"{argument}: {str(error).partition(': ')[2]}") from None


class PolicyBatch:
    """N episodes of one policy side by side, each with its own generator, for the dream.

    Row n plays exactly what ``make_policy(name)`` plays after ``reset(rngs[n])``.
    """

    def __init__(
        self, name: str, rngs: list[np.random.Generator], squash: Squash | None = None
    ) -> None:
        squash = squash or Squash.plain(1)
        self._members = [make_policy(name, squash) for _ in rngs]
        self._rngs = rngs
        for member, rng in zip(self._members, rngs, strict=True):
            member.reset(rng)
        self._actions = np.zeros((len(rngs), squash.action_dim), np.float32)
        self._left = np.zeros(len(rngs), np.int64)

    def act(self) -> npt.NDArray[np.float32]:
        """Return the actions of the next tic, (N, A) float32."""
        for n in np.flatnonzero(self._left == 0):
            self._actions[n], self._left[n] = self._members[n].draw(self._rngs[n])
        self._left -= 1
        return self._actions.copy()

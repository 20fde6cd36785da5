"""Dreams as a Gymnasium vector environment, for anything that learns from steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from worldmodels_fast.dream.stepping import DreamState, begin, step
from worldmodels_fast.types import Bools, Floats
from worldmodels_fast.utils.arguments import checked_integer

if TYPE_CHECKING:
    from worldmodels_fast.world.world import World


class DreamVectorEnv(gymnasium.vector.VectorEnv[Floats, Floats, Any]):
    """N dreams as one Gymnasium vector environment.

    Registered (in `worldmodels_fast.envs`) by::

        gymnasium.register(
            id="worldmodels_fast/TakeCoverDream-v0",
            vector_entry_point="worldmodels_fast.world.dream_env:DreamVectorEnv",
        )

    and made by ``gymnasium.make_vec("worldmodels_fast/TakeCoverDream-v0", num_envs=1024)``.

    Observation (Z + H,) float32: [z, h], the latent and M's hidden state from before it was given
    z: the inputs of the paper's C, without the cell state. Action (A,) float32, each in the range
    of the world's controller (Take Cover: [-1, 1]). Reward: M's prediction, or 1 for each step if
    it predicts none, the last included.
    Terminated when M ends the dream, truncated after `max_steps`.
    Autoreset is Gymnasium's NEXT_STEP: the step after an end ignores its action, and gives reward 0
    and the first observation of a new dream.

    A row's dreams depend on its own seed and on nothing else: they are the rollouts 0, 1, 2, ... of
    `Dream.evaluate` under that seed.

    Args:
        num_envs: N.
        world: a bundled world's name, a folder, or a `World`.
        temperature: tau of the dream; None for the world's own.
        max_steps: steps after which a dream is truncated; None for the world's own.
        done_threshold: see `Dream`; None for the world's own.
        done_temperature: see `Dream`; None for the world's own.
        precision: see `Dream`.
        threads: see `Dream`.
        backend: see `Dream`.
        max_episode_steps: Gymnasium's name for `max_steps`, for `gymnasium.make_vec`.

    Raises:
        TypeError, ValueError: an argument of another kind or out of range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium's own declaration)
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        num_envs: int = 1,
        world: World | str = "take-cover",
        temperature: float | None = None,
        max_steps: int | None = None,
        done_threshold: float | None = None,
        done_temperature: float | None = None,
        precision: str = "fp32",
        threads: int | None = None,
        backend: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        num_envs = checked_integer("num_envs", num_envs, low=1)
        if max_steps is None:
            max_steps = max_episode_steps
        elif max_episode_steps not in (None, max_steps):
            raise ValueError(
                f"max_episode_steps: expected the same as max_steps, which is {max_steps}, "
                f"got {max_episode_steps}; give one of them"
            )
        if isinstance(world, str):
            from worldmodels_fast.world.pretrained import load_pretrained

            world = load_pretrained(world)
        chosen = {
            "temperature": temperature,
            "max_steps": max_steps,
            "done_threshold": done_threshold,
            "done_temperature": done_temperature,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        self.dream = world.dream(precision=precision, threads=threads, backend=backend, **given)
        weights = self.dream.weights
        self.num_envs = num_envs
        size = weights.latent_dim + weights.hidden_dim
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.single_action_space = spaces.Box(*self.dream.squash.ranges, dtype=np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._state: DreamState | None = None
        self._ended = np.zeros(num_envs, np.bool_)

    def __repr__(self) -> str:
        return f"DreamVectorEnv(num_envs={self.num_envs}, {self.dream!r})"

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin new dreams, as `gymnasium.vector.SyncVectorEnv` does.

        Args:
            seed: an integer, row i is then seeded with seed + i; or N integers or None, one for
                each row; all from 0 to 2**64 - 1. None begins the next dream under the row's last
                seed, or, where there is none yet, under a random one.
            options: None, or {"reset_mask": bool array (N,)}: the rows that begin a new dream; the
                others go on with theirs.

        Returns:
            observations (N, Z + H) of all rows, and an empty info.

        Raises:
            TypeError, ValueError: seeds or options of another kind, number or range.
            gymnasium.error.ResetNeeded: a mask before the first reset.
        """
        mask = self._reset_mask(options)
        seeds = self._row_seeds(seed)
        super().reset(seed=seeds[0] if isinstance(seed, int | np.integer) else None)
        n = self.num_envs
        unseeded = np.array([own is None for own in seeds])
        if self._state is None:
            if mask is not None:
                raise gymnasium.error.ResetNeeded("reset_mask before a reset of all rows")
            keys = self.np_random.integers(2**63, size=n, dtype=np.uint64)
            rollouts = np.zeros(n, np.uint32)
        else:
            keys = self._state.seed.astype(np.uint64)
            rollouts = np.where(unseeded, self._state.rollout + np.uint32(1), np.uint32(0))
        keys[~unseeded] = np.array([own for own in seeds if own is not None], np.uint64)
        begun = begin(self.dream, n, keys, rollouts)
        if self._state is None or mask is None:
            self._state = begun
            self._ended = np.zeros(n, np.bool_)
        else:
            self._state.put(mask, begun.rows(mask))
            self._ended = self._ended & ~mask
        return self._observations(self._state), {}

    def step(self, actions: Floats) -> tuple[Floats, Any, Any, Any, dict[str, Any]]:
        """Step all N dreams.

        Args:
            actions: (N, A), finite; clipped to the action space.

        Returns:
            observations (N, Z + H) float32, rewards (N,) float64, terminated and truncated (N,)
            bool, an empty info.

        Raises:
            TypeError, ValueError: actions of another kind or shape, or not finite.
            gymnasium.error.ResetNeeded: `reset` has not been called.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded("step() before reset()")
        chosen = self._checked_actions(actions)
        fresh = self._ended  # these begin a new dream in this step, whatever their action
        before = self._state
        state, done, reward, _ = step(self.dream, before, self.dream.squash.clip(chosen))
        if fresh.any():
            rollouts = before.rollout[fresh] + np.uint32(1)
            n = int(fresh.sum())
            state.put(fresh, begin(self.dream, n, before.seed[fresh], rollouts))
        self._state = state
        terminated = done & ~fresh
        truncated = (state.step >= self.dream.max_steps) & ~done & ~fresh
        self._ended = terminated | truncated
        # Gymnasium's own vector environments give rewards in float64.
        rewards = np.where(fresh, 0.0, reward.astype(np.float64))
        return self._observations(state), rewards, terminated, truncated, {}

    def _observations(self, state: DreamState) -> Floats:
        return np.concatenate([state.z, state.h], axis=1)

    def _reset_mask(self, options: dict[str, Any] | None) -> Bools | None:
        """Return the mask of rows to reset, None for all of them."""
        given = dict(options or {})
        mask = given.pop("reset_mask", None)
        if given:
            raise ValueError(
                f"options: expected None or {{'reset_mask': ...}}, got "
                f"{', '.join(repr(name) for name in given)} too"
            )
        if mask is None:
            return None
        expected = f"options['reset_mask']: expected a bool array of shape ({self.num_envs},)"
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"{expected}, got {got}")
        if mask.shape != (self.num_envs,) or not mask.any():
            got = "none that is True" if mask.shape == (self.num_envs,) else mask.shape
            raise ValueError(f"{expected} with at least one True, got {got}")
        return mask.copy()

    def _row_seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        """Return each row's new seed, None for a row that keeps its own."""
        n = self.num_envs
        if seed is None:
            return [None] * n
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str | bytes):
            if len(seed) != n:
                raise ValueError(f"seed: expected {n} seeds, one for each row, got {len(seed)}")
            return [
                None if own is None else checked_integer("seed", own, low=0, high=2**64)
                for own in seed
            ]
        first = checked_integer("seed", seed, low=0, high=2**64 - n + 1)
        return list(range(first, first + n))

    def _checked_actions(self, actions: Any) -> Floats:
        """Return actions (N, A) as float32, finite and C-contiguous."""
        expected = self.num_envs, self.dream.weights.action_dim
        given = np.asarray(actions)
        if given.dtype.kind not in "fiub":
            raise TypeError(f"actions: expected numbers {expected}, got dtype {given.dtype}")
        if given.shape != expected:
            raise ValueError(f"actions: expected shape {expected}, got {given.shape}")
        with np.errstate(over="ignore"):
            chosen = np.ascontiguousarray(given, dtype=np.float32)
        finite = np.isfinite(chosen)
        if not finite.all():
            row, k = (int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"actions: expected finite numbers {expected}, got {given[row, k]} in row {row}, "
                f"action {k}"
            )
        return chosen

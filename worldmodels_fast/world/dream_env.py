"""Dreams as a Gymnasium vector environment, for anything that learns from steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from worldmodels_fast.types import Floats
from worldmodels_fast.utils.processes import n_workers

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

    Observation (Z + H,) float32: [z, h], what V would see now and M's memory from before it, the
    state that the paper's C acts on (without the cell). Action (A,) float32, each in the range that
    the world's controller has (Take Cover: [-1, 1]). Reward: what M predicts, or 1 for each step if
    it predicts none, the last included.
    Terminated when M says done, truncated after `max_steps`.
    Autoreset is Gymnasium's NEXT_STEP: the step after an end ignores its action, gives reward 0
    and the first observation of a new dream.

    The noise of a step depends on the seed, the row and the number of steps since ``reset``.

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
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
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
        self._threads = n_workers(threads)
        weights = self.dream.weights
        self.num_envs = num_envs
        size = weights.latent_dim + weights.hidden_dim
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.single_action_space = spaces.Box(*self.dream.squash.ranges, dtype=np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._seed: int | None = None

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin N new dreams; observations (N, Z + H) and an empty info."""
        if isinstance(seed, list):
            seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**63))
        n, hidden_dim = self.num_envs, self.dream.weights.hidden_dim
        self._t = 0
        self._z = self.dream.first_latents(self.np_random, n)
        self._h = np.zeros((n, hidden_dim), np.float32)
        self._c = np.zeros((n, hidden_dim), np.float32)
        self._lengths = np.zeros(n, np.int64)
        self._ended = np.zeros(n, np.bool_)
        return self._observations(), {}

    def step(self, actions: Floats) -> tuple[Floats, Any, Any, Any, dict[str, Any]]:
        """Step all N dreams: observations, rewards, terminated, truncated, an empty info."""
        if self._seed is None:
            raise gymnasium.error.ResetNeeded("step() before reset()")
        actions = np.ascontiguousarray(actions, dtype=np.float32)
        expected = (self.num_envs, self.dream.weights.action_dim)
        if actions.shape != expected or not np.isfinite(actions).all():
            raise ValueError(f"actions: expected finite {expected}, got {actions.shape}")
        fresh = self._ended  # these begin a new dream in this step, whatever their action
        z, h, c, done, reward = self.dream.step_with_reward(
            self._z,
            self.dream.squash.clip(actions),
            self._h,
            self._c,
            (self._lengths == 0).astype(np.float32),
            self._seed,
            self._t,
            threads=self._threads,
        )
        self._t += 1
        if fresh.any():
            z[fresh] = self.dream.first_latents(self.np_random, int(fresh.sum()))
            h[fresh] = 0.0
            c[fresh] = 0.0
        self._z, self._h, self._c = z, h, c
        self._lengths = np.where(fresh, 0, self._lengths + 1)
        terminated = done & ~fresh
        truncated = (self._lengths >= self.dream.max_steps) & ~terminated
        self._ended = terminated | truncated
        # Gymnasium's own vector environments give rewards in float64.
        rewards = np.where(fresh, 0.0, reward.astype(np.float64))
        return self._observations(), rewards, terminated, truncated, {}

    def _observations(self) -> Floats:
        return np.concatenate([self._z, self._h], axis=1)

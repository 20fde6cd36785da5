"""The dream: M, first latents and a controller -> returns, a generation in one native call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.envs.policies import PolicyBatch
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.models.sizes import check_sizes
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.processes import n_workers

if TYPE_CHECKING:
    from worldmodels_fast.models.controller import LinearController
    from worldmodels_fast.models.mdn_rnn import MDNRNN


@dataclass(frozen=True)
class DreamResult:
    """What P members lived through in R rollouts each; of the population's kind and device.

    Attributes:
        returns: (P, R) float32, the sum of the rewards that M predicts, in the environment's units;
            of 1 for each step if it predicts none. The last step is included.
        lengths: (P, R) int32, steps.
    """

    returns: Any
    lengths: Any


class Dream:
    """M dreaming by itself; packs M's weights once and plays populations of controllers in it.

    Args:
        mdn_rnn: `MDNRNN` or `ops.MDNRNNWeights`; it is copied, later changes are not seen.
        controller: `LinearController` or `ops.ControllerSpec`: what a parameter vector means.
            None if only fixed policies are to be played (`play_policy`).
        initial_latents: (mu, logvar), (I, Z) float32 each: stored first frames of the real game.
        temperature: tau > 0. More is noisier, and harder to exploit.
        max_steps: steps after which a rollout ends.
        precision: of the matrix products' operands, "fp32", "fp16" (CUDA), "bf16", "int8" (CPU) or
            "auto" and "fastest"; see `ops.pack_mdn_rnn`.
        device: "cpu"; "cuda", the first CUDA device that can be used, "cuda:0", "cuda:1", ...
        threads: worker threads; None for all processors. Results do not depend on it.
        done_threshold: a rollout ends when M's done logit is above this.
        done_temperature: 0 for the paper's rule; above it an end is drawn with probability
            sigmoid((logit - done_threshold) / done_temperature).
        backend: instruction set, see `ops.available_backends`; None for the best one.

    Raises:
        ValueError, TypeError: an argument of the wrong kind, size or range.
    """

    def __init__(
        self,
        mdn_rnn: MDNRNN | ops.MDNRNNWeights,
        controller: LinearController | ops.ControllerSpec | None,
        initial_latents: tuple[Any, Any],
        temperature: float = DreamConfig.temperature,
        max_steps: int = DreamConfig.max_steps,
        precision: str = "fp32",
        device: str = "cpu",
        threads: int | None = None,
        done_threshold: float = 0.0,
        done_temperature: float = 0.0,
        backend: str | None = None,
    ) -> None:
        weights = mdn_rnn if isinstance(mdn_rnn, ops.MDNRNNWeights) else mdn_rnn.weights()
        if not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        if max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1, got {max_steps}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads: expected at least 1, or None for all, got {threads}")
        if not np.isfinite(done_threshold):
            raise ValueError(f"done_threshold: expected a finite logit, got {done_threshold}")
        if controller is None or isinstance(controller, ops.ControllerSpec):
            self.spec = controller
        else:
            self.spec = controller.spec
        if not (np.isfinite(done_temperature) and done_temperature >= 0):
            raise ValueError(
                f"done_temperature: expected a finite number from 0, got {done_temperature}"
            )
        check_sizes(mdn_rnn=weights, controller=self.spec)
        self.weights = weights
        self.squash = Squash.plain(weights.action_dim)
        if self.spec is not None:
            self.squash = Squash(self.spec.scale, self.spec.shift, self.spec.low, self.spec.high)
        self.initial_mu, self.initial_logvar = _latents(initial_latents, weights.latent_dim)
        self.temperature = float(temperature)
        self.max_steps = int(max_steps)
        self.threads = threads
        self.done_threshold = float(done_threshold)
        self.done_temperature = float(done_temperature)
        # "cpu" leaves it to the backend, which may be "cuda" by WMF_BACKEND.
        self.model = ops.pack_mdn_rnn(
            weights,
            backend=backend,
            precision=precision,
            device=None if str(device) == "cpu" else str(device),
        )
        self._latents_on_device: tuple[ops.DeviceArray, ops.DeviceArray] | None = None

    @property
    def n_params(self) -> int:
        """Length of a controller's parameter vector."""
        return self._need_spec().n_params

    def evaluate(self, population: Any, rollouts: int = 16, seed: int = 0) -> DreamResult:
        """Play R rollouts of each of P controllers, in one native call.

        Rollout r of every member sees the same noise and the same first latent (common random
        numbers). The result is bitwise the same for any number of threads and any split of the
        population.

        On a CUDA device a population of the host is copied there, the results are copied back, and
        the call waits for them. With a population that is on the device nothing is copied, results
        stay there, and the call does not wait: the work is enqueued in the current stream of the
        population's library.

        Args:
            population: (P, n_params) float32, C-contiguous, of NumPy, torch, or any library with
                DLPack; see `ops`.
            rollouts: R.
            seed: 0 <= seed < 2**64; all that the noise depends on.

        Raises:
            ValueError, TypeError: a wrong shape, dtype or layout, parameters that are not finite.
        """
        spec = self._need_spec()
        mu, logvar = self._latents_beside(population)
        returns, lengths = ops.dream_rollout(
            self.model,
            spec,
            population,
            mu,
            logvar,
            rollouts=rollouts,
            seed=seed,
            temperature=self.temperature,
            max_steps=self.max_steps,
            done_threshold=self.done_threshold,
            done_temperature=self.done_temperature,
            threads=self.threads,
        )
        return DreamResult(returns, lengths)

    def survival_of(self, policy: str, episodes: int = 256, seed: int = 0) -> npt.NDArray[np.int32]:
        """Steps that a fixed policy survives in the dream, (episodes,) int32; see `play_policy`."""
        return self.play_policy(policy, episodes, seed)[1]

    def play_policy(
        self, policy: str, episodes: int = 256, seed: int = 0, steps: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Let a fixed policy play in the dream: returns (episodes,) float64, lengths int32.

        Args:
            policy: a name of `policies.POLICY_NAMES`.
            episodes: how many; they are stepped side by side.
            seed: 0 <= seed < 2**64.
            steps: of each, unless M ends it; None for the dream's own most.
        """
        if episodes < 1:
            raise ValueError(f"episodes: expected at least 1, got {episodes}")
        threads = n_workers(self.threads)
        rngs = [np.random.default_rng((seed, 1, episode)) for episode in range(episodes)]
        players = PolicyBatch(policy, rngs, self.squash)
        z = self.first_latents(np.random.default_rng((seed, 0)), episodes)
        h, c = np.zeros((2, episodes, self.weights.hidden_dim), np.float32)
        returns = np.zeros(episodes, np.float64)
        lengths = np.zeros(episodes, np.int32)
        alive = np.arange(episodes)  # rows are dropped as their episodes end
        for t in range(self.max_steps if steps is None else steps):
            restart = np.full(alive.size, t == 0, np.float32)
            action = players.act()[alive]
            z, h, c, done, reward = self.step_with_reward(
                z, action, h, c, restart, seed, t, threads=threads
            )
            returns[alive] += reward
            lengths[alive] = t + 1
            keep = ~done
            if not keep.all():
                alive, z, h, c = alive[keep], z[keep], h[keep], c[keep]
            if alive.size == 0:
                break
        return returns, lengths

    def step(
        self,
        z: Floats,
        action: Floats,
        h: Floats,
        c: Floats,
        restart: Floats,
        seed: int,
        t: int,
        threads: int = 1,
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        """One step of N rollouts at this dream's temperature: (z', h', c', done).

        See `step_with_reward`.
        """
        z, h, c, done, _ = self.step_with_reward(z, action, h, c, restart, seed, t, threads=threads)
        return z, h, c, done

    def step_with_reward(
        self,
        z: Floats,
        action: Floats,
        h: Floats,
        c: Floats,
        restart: Floats,
        seed: int,
        t: int,
        threads: int = 1,
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_], Floats]:
        """One step of N rollouts at this dream's temperature: (z', h', c', done, reward).

        The reward (N,) is what M expects the environment to give for the action, or 1 if M predicts
        no reward.

        Args:
            z: (N, Z).
            action: (N, A).
            h: (N, H).
            c: (N, H).
            restart: (N,), 1 on a rollout's first step, else 0.
            seed: with the row and `t` all that the noise depends on.
            t: number of the step.
            threads: worker threads.
        """
        flag = restart if self.weights.predicts_done else None
        out = ops.mdn_rnn_step(self.model, z, action, h, c, flag, threads=threads)
        z = ops.mixture_sample(out.logmix, out.mu, out.logstd, self.temperature, seed=seed, step=t)
        if out.done_logit is None:
            done = np.zeros(len(z), np.bool_)
        else:
            done = self._ends(out.done_logit, seed, t)
        reward = np.ones(len(z), np.float32) if out.reward is None else out.reward
        return z, out.h, out.c, done, reward

    def _ends(self, logit: Floats, seed: int, t: int) -> npt.NDArray[np.bool_]:
        """Which of N rollouts end in step t."""
        above = logit - np.float32(self.done_threshold)
        if self.done_temperature == 0.0:
            ends: npt.NDArray[np.bool_] = above > 0.0
            return ends
        # The stream of this step's ends; the kernels' own is for whole rollouts (`ops`).
        rng = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), t]))
        logistic = rng.logistic(size=len(logit))
        drawn: npt.NDArray[np.bool_] = above > self.done_temperature * logistic
        return drawn

    def first_latents(self, rng: np.random.Generator, n: int) -> Floats:
        """N first latents (N, Z), each drawn from a stored first frame's mu and logvar."""
        index = rng.integers(len(self.initial_mu), size=n)
        noise = rng.standard_normal((n, self.weights.latent_dim), dtype=np.float32)
        z: Floats = self.initial_mu[index] + np.exp(0.5 * self.initial_logvar[index]) * noise
        return z

    def _latents_beside(self, population: Any) -> tuple[Any, Any]:
        """First latents where the population is; they are copied to a device once."""
        device = self.model.device
        if device == "cpu" or ops.device_of(population) != device:
            return self.initial_mu, self.initial_logvar
        if self._latents_on_device is None:
            self._latents_on_device = (
                ops.to_device(self.initial_mu, device),
                ops.to_device(self.initial_logvar, device),
            )
        return self._latents_on_device

    def _need_spec(self) -> ops.ControllerSpec:
        if self.spec is None:
            raise ValueError("controller: this dream was made without one; give it when making it")
        return self.spec


def _latents(initial_latents: tuple[Any, Any], latent_dim: int) -> tuple[Floats, Floats]:
    """(mu, logvar) as checked C-contiguous float32 arrays (I, Z)."""
    arrays = tuple(
        np.ascontiguousarray(np.asarray(part), dtype=np.float32) for part in initial_latents
    )
    if len(arrays) != 2:
        raise ValueError(f"initial_latents: expected (mu, logvar), got {len(arrays)} arrays")
    mu, logvar = arrays
    for name, array in (("mu", mu), ("logvar", logvar)):
        if array.ndim != 2 or array.shape[1] != latent_dim or not len(array):
            raise ValueError(
                f"initial_latents: {name}: expected shape (I, {latent_dim}) with at least one "
                f"row, got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"initial_latents: {name}: expected finite numbers")
    if mu.shape != logvar.shape:
        raise ValueError(
            f"initial_latents: mu and logvar differ in shape: {mu.shape} and {logvar.shape}"
        )
    return mu, logvar

"""The dream: M, first latents and a controller; returns of a generation in one native call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops
from worldmodels_fast.dream import stepping
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.envs.policies import PolicyBatch
from worldmodels_fast.envs.squash import Squash
from worldmodels_fast.models.sizes import check_sizes
from worldmodels_fast.ops.arguments import checked_temperature
from worldmodels_fast.types import Floats, Indices
from worldmodels_fast.utils.arguments import checked_integer, checked_number

if TYPE_CHECKING:
    from worldmodels_fast.models.controller import LinearController
    from worldmodels_fast.models.mdn_rnn import MDNRNN


@dataclass(frozen=True)
class DreamResult:
    """Returns and lengths of P members in R rollouts each, of the population's kind and device.

    Attributes:
        returns: (P, R) float32, the sum of the rewards that M predicts, in the environment's units;
            of 1 for each step if it predicts none. The last step is included.
        lengths: (P, R) int32, steps.
    """

    returns: Any
    lengths: Any

    def __repr__(self) -> str:
        members, rollouts = self.returns.shape
        return f"DreamResult(P={members}, R={rollouts})"


class Dream:
    """M with a temperature and a rule for ends: an environment for controllers and policies.

    M's weights are packed once; `evaluate` then plays a whole population in one native call, and
    `begin` and `step` (see `dream.stepping`) step rollouts one by one.

    Args:
        mdn_rnn: `MDNRNN` or `ops.MDNRNNWeights`; it is copied, later changes are not seen.
        controller: `LinearController` or `ops.ControllerSpec`, by which a parameter vector is read.
            None for a dream without controllers (`play_policy`, `step`).
        initial_latents: (mu, logvar), (I, Z) float32 each: stored first frames of the real game.
        temperature: tau > 0. A higher one is noisier, and harder to exploit.
        max_steps: steps after which a rollout ends, at least 1.
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
        done_threshold: float = DreamConfig.done_threshold,
        done_temperature: float = DreamConfig.done_temperature,
        backend: str | None = None,
    ) -> None:
        weights = mdn_rnn if isinstance(mdn_rnn, ops.MDNRNNWeights) else mdn_rnn.weights()
        self.temperature = checked_temperature(temperature)
        self.max_steps = checked_integer("max_steps", max_steps, low=1)
        self.threads = None if threads is None else checked_integer("threads", threads, low=1)
        self.done_threshold = checked_number("done_threshold", done_threshold)
        self.done_temperature = checked_number(
            "done_temperature", done_temperature, low=0, high=3.4e38
        )
        if controller is None or isinstance(controller, ops.ControllerSpec):
            self.spec = controller
        else:
            self.spec = controller.spec
        check_sizes(mdn_rnn=weights, controller=self.spec)
        self.weights = weights
        self.squash = Squash.plain(weights.action_dim)
        if self.spec is not None:
            self.squash = Squash(self.spec.scale, self.spec.shift, self.spec.low, self.spec.high)
        self.initial_mu, self.initial_logvar = _latents(initial_latents, weights.latent_dim)
        # "cpu" leaves it to the backend, which may be "cuda" by WMF_BACKEND.
        self.model = ops.pack_mdn_rnn(
            weights,
            backend=backend,
            precision=precision,
            device=None if str(device) == "cpu" else str(device),
        )
        self._latents_on_device: tuple[ops.DeviceArray, ops.DeviceArray] | None = None

    def __repr__(self) -> str:
        w = self.weights
        params = "" if self.spec is None else f", n_params={self.spec.n_params}"
        return (
            f"Dream(latent_dim={w.latent_dim}, action_dim={w.action_dim}, "
            f"hidden_dim={w.hidden_dim}, n_mixtures={w.n_mixtures}{params}, "
            f"first_latents={len(self.initial_mu)}, temperature={self.temperature:g}, "
            f"max_steps={self.max_steps}, done_threshold={self.done_threshold:g}, "
            f"done_temperature={self.done_temperature:g}, backend={self.model.backend!r}, "
            f"device={self.model.device!r}, precision={self.model.precision!r})"
        )

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
        """Return the steps that an open-loop policy survives, (episodes,) int32: `play_policy`."""
        return self.play_policy(policy, episodes, seed)[1]

    def play_policy(
        self, policy: str, episodes: int = 256, seed: int = 0, steps: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Play rollouts of the dream with an open-loop policy.

        Episode i has the noise and the first latent of rollout i in `evaluate`.

        Args:
            policy: a name of `policies.POLICY_NAMES`.
            episodes: number of rollouts; they are stepped side by side.
            seed: 0 <= seed < 2**64, of the dream's noise and of the policy.
            steps: limit of each rollout; None for the dream's `max_steps`.

        Returns:
            returns (episodes,) float64, lengths (episodes,) int32; see `DreamResult`.

        Raises:
            TypeError, ValueError: an unknown policy, numbers of another kind or out of range.
        """
        episodes = checked_integer("episodes", episodes, low=1)
        seed = checked_integer("seed", seed, low=0, high=2**64)
        if steps is not None:
            steps = checked_integer("steps", steps, low=1)
        rngs = [np.random.default_rng((seed, 1, episode)) for episode in range(episodes)]
        players = PolicyBatch(policy, rngs, self.squash)

        def act(state: stepping.DreamState, rows: Indices) -> Floats:
            return players.act()[rows]

        returns = np.zeros(episodes, np.float64)
        lengths = np.zeros(episodes, np.int32)
        for now in stepping.play(self, self.begin(episodes, seed), act, steps):
            returns[now.rows] += now.after.reward
            lengths[now.rows] += 1
        return returns, lengths

    def begin(
        self, n: int, seed: int | stepping.Words = 0, rollout: int | stepping.Words | None = None
    ) -> stepping.DreamState:
        """Return N rollouts at their beginning; see `stepping.begin`."""
        return stepping.begin(self, n, seed, rollout)

    def step(self, state: stepping.DreamState, action: Floats) -> stepping.DreamStep:
        """Run one step of N rollouts; see `stepping.step`."""
        return stepping.step(self, state, action)

    def _latents_beside(self, population: Any) -> tuple[Any, Any]:
        """Return mu, logvar on the population's device, to which they are copied once."""
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
    """Return (mu, logvar) as C-contiguous float32 arrays (I, Z), checked."""
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
            raise ValueError(
                f"initial_latents: {name}: expected finite numbers, got NaN or infinity"
            )
    if mu.shape != logvar.shape:
        raise ValueError(
            f"initial_latents: mu and logvar differ in shape: {mu.shape} and {logvar.shape}"
        )
    return mu, logvar

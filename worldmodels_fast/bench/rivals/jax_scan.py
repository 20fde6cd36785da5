"""JAX: a scan over dream steps, compiled as a whole, its state donated."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from worldmodels_fast.bench.protocol.cases import NEVER_DONE, TEMPERATURE, Case, split
from worldmodels_fast.bench.protocol.check import check_advance
from worldmodels_fast.bench.protocol.processes import Unavailable
from worldmodels_fast.bench.protocol.timing import Loop
from worldmodels_fast.bench.rivals.packing import RivalWeights, rival_weights
from worldmodels_fast.types import Floats

Array = Any
"""A jax.Array; JAX is optional, and known only while this runs."""


def import_jax() -> Any:
    """Import jax for the CPU.

    Raises:
        Unavailable: it is not installed, or will not load.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
    except ImportError as error:
        raise Unavailable(f"jax is not installed ({error})") from error
    return jax


class ScanDream:
    """N = P * R rollouts side by side; products in `precision`, everything else in float32.

    The weights are arguments of the compiled function; as constants they were no faster.
    """

    depth = 4

    def __init__(
        self, case: Case, params: Floats, rollouts: int, precision: str, at_once: float = 2e9
    ) -> None:
        self.jax = import_jax()
        self.case, self.n = case, params.shape[0] * rollouts
        packed = rival_weights(case, params)
        dtypes = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
        self.dtype = getattr(self.jax.numpy, dtypes[precision])
        self.weights = {
            name: self.jax.numpy.asarray(
                getattr(packed, name), self.dtype if name in ("lstm", "head") else None
            )
            for name in RivalWeights.__dataclass_fields__
        }
        # So many operations that the time of a call, some 20 us, does not count.
        flops = case.flops_per_step * max(self.n, 16)
        self.steps_at_once = min(512, max(4, int(at_once / flops)))
        self._steps = self.jax.jit(self._chunk, donate_argnums=1)
        self._advance = self.jax.jit(self._given_noise)

    def _step(self, weights: dict[str, Array], state: Any, uniform: Array, normal: Array) -> Any:
        jnp, lax, nn = self.jax.numpy, self.jax.lax, self.jax.nn
        w = self.case.weights
        z, h, c, restart, length, alive, done = state
        given = {"z": z, "h": h, "c": c}
        x = jnp.concatenate([given[name] for name in self.case.spec.features], axis=1)
        members = weights["control"].shape[0]
        x = x.reshape(members, -1, x.shape[1])
        if members == 1:
            y = x @ weights["control"]
        else:  # XLA's batched product is slower than its loop
            y = (x[..., None] * weights["control"][:, None]).sum(axis=2)
        action = jnp.tanh(y + weights["control_bias"]).reshape(self.n, -1)
        parts = [z, action, h]
        if w.predicts_done:
            parts.insert(2, restart)
        gates = self._product(jnp.concatenate(parts, axis=1), weights["lstm"])
        i, f, g, o = jnp.split(gates + weights["lstm_bias"], 4, axis=1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(c)
        out = self._product(h, weights["head"]) + weights["head_bias"]

        size = 3 * w.n_mixtures * w.latent_dim
        mixture = out[:, :size].reshape(self.n, 3, w.n_mixtures, w.latent_dim)
        logmix, mu, logstd = mixture[:, 0], mixture[:, 1], mixture[:, 2]
        weight = jnp.exp((logmix - logmix.max(axis=1, keepdims=True)) / TEMPERATURE)
        cumulative = [weight[:, 0]]
        for k in range(1, w.n_mixtures):
            cumulative.append(cumulative[-1] + weight[:, k])
        target = uniform * cumulative[-1]
        mu_k, logstd_k = mu[:, 0], logstd[:, 0]
        for k in range(1, w.n_mixtures):
            beyond = cumulative[k - 1] <= target
            mu_k = jnp.where(beyond, mu[:, k], mu_k)
            logstd_k = jnp.where(beyond, logstd[:, k], logstd_k)
        std = jnp.exp(lax.min(logstd_k, 10.0)) * math.sqrt(TEMPERATURE)
        length = length + alive
        if w.predicts_done:
            done = out[:, -1]
            alive = alive * (done <= NEVER_DONE)
        return mu_k + std * normal, h, c, jnp.zeros_like(restart), length, alive, done

    def _product(self, x: Array, weight: Array) -> Array:
        jnp = self.jax.numpy
        return self.jax.lax.dot(x.astype(self.dtype), weight, preferred_element_type=jnp.float32)

    def _begin(self, z: Array, h: Array, c: Array) -> Any:
        jnp = self.jax.numpy
        restart = jnp.ones((self.n, 1))
        length, alive, done = (f(self.n) for f in (jnp.zeros, jnp.ones, jnp.zeros))
        return z, h, c, restart, length, alive, done

    def _chunk(self, weights: dict[str, Array], state: Any, key: Array) -> Any:
        """Take `steps_at_once` steps; returns the state and the next key."""
        random, shape = self.jax.random, (self.n, self.case.weights.latent_dim)
        key, *keys = random.split(key, self.steps_at_once + 1)

        def body(state: Any, key: Array) -> tuple[Any, None]:
            k1, k2 = random.split(key)
            noise = random.uniform(k1, shape), random.normal(k2, shape)
            return self._step(weights, state, *noise), None

        state, _ = self.jax.lax.scan(body, state, self.jax.numpy.stack(keys))
        return state, key

    def _given_noise(
        self, weights: dict[str, Array], z: Array, h: Array, c: Array, uniform: Array, normal: Array
    ) -> Any:
        def body(state: Any, noise: Any) -> tuple[Any, None]:
            return self._step(weights, state, *noise), None

        state, _ = self.jax.lax.scan(body, self._begin(z, h, c), (uniform, normal))
        return state

    def run(self, steps: int) -> Floats:
        """So many steps, a multiple of `steps_at_once`, of all rollouts; their lengths (N,)."""
        jnp, random, w = self.jax.numpy, self.jax.random, self.case.weights
        first, key = random.split(random.key(0))
        h, c = (jnp.zeros((self.n, w.hidden_dim)) for _ in "hc")
        state = self._begin(random.normal(first, (self.n, w.latent_dim)), h, c)
        for _ in range(steps // self.steps_at_once):
            state, key = self._steps(self.weights, state, key)
        # Until all of it is there: z, too, which the lengths do not depend on.
        return np.asarray(self.jax.block_until_ready(state)[4])

    def advance(
        self, z: Floats, h: Floats, c: Floats, uniform: Floats, normal: Floats
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """See `check.Advances`."""
        got = self._advance(self.weights, z, h, c, uniform, normal)
        z, h, c, done = (np.asarray(got[k]) for k in (0, 1, 2, 6))
        return z, h, c, done if self.case.weights.predicts_done else None


def make_dream(case: Case, n: int, precision: str, at_once: float = 2e9) -> Loop:
    """A dream of N rollouts to be timed, checked; its unit is a dream step.

    Args:
        case: the model.
        n: N.
        precision: of the products.
        at_once: additions and multiplications in one call, about.

    Raises:
        Unavailable: jax is not installed.
    """
    members, rollouts = split(n)
    params = case.params(members)
    dream = ScanDream(case, params, rollouts, precision, at_once)
    check_advance(f"jax {precision}", dream, case, params, precision)
    return Loop(dream.run, per_count=n, multiple=dream.steps_at_once)

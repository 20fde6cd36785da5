"""Every answer is compared with `worldmodels_fast.reference` before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from worldmodels_fast import reference
from worldmodels_fast.bench.protocol.cases import TEMPERATURE, Case
from worldmodels_fast.types import Doubles, Floats

CHECKED_ROWS = 16
"""The reference computes so many rows of a batch, spread over it; a float64 step takes a while."""


@dataclass(frozen=True)
class Tolerance:
    """Largest error allowed of an answer: |got - expected| / (1 + |expected|)."""

    largest: float
    mean: float


TOLERANCES = {
    # float32 sums of some hundred products
    "fp32": Tolerance(largest=2e-4, mean=2e-5),
    # half precision has 11 bits, 8 times as fine as bfloat16
    "fp16": Tolerance(largest=1e-2, mean=1.5e-3),
    # bfloat16 has 8 bits, so that each rounding is off by up to 2**-9: weights and inputs are
    # rounded, and torch rounds the sums, too; a few such steps follow one another.
    "bf16": Tolerance(largest=6e-2, mean=1e-2),
    # h in steps of 1/127 and weights in steps of the largest in their row / 127
    "int8": Tolerance(largest=1.5e-1, mean=2.5e-2),
}


class Advances(Protocol):
    """A rival's dream of N rollouts; it takes `depth` steps at once."""

    depth: int
    n: int

    def advance(
        self, z: Floats, h: Floats, c: Floats, uniform: Floats, normal: Floats
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Take the first `depth` steps of a dream.

        Args:
            z: (N, Z).
            h: (N, H).
            c: (N, H).
            uniform: (depth, N, Z) in [0, 1), for the choice of the mixture's component.
            normal: (depth, N, Z), standard.

        Returns:
            z, h, c after them, and the last step's done logits (N,), None if M has none.
        """


def check_advance(who: str, dream: Advances, case: Case, params: Floats, precision: str) -> None:
    """Compare a rival's first steps with the reference's under the same noise.

    The uniform numbers point to the middle of a component's share, so that a rounding cannot make
    the two pick different ones.

    Args:
        who: for the message.
        dream: the rival.
        case: what it dreams.
        params: (P, n_params), its controllers; P divides N.
        precision: which of `TOLERANCES` holds.

    Raises:
        RuntimeError: the answer is wrong.
    """
    members, w = params.shape[0], case.weights
    n = dream.n
    rng = np.random.default_rng(n)
    rows = checked_rows(n)
    z = rng.standard_normal((n, w.latent_dim)).astype(np.float32)
    h = (0.5 * rng.uniform(-1, 1, (n, w.hidden_dim))).astype(np.float32)
    c = (0.5 * rng.standard_normal((n, w.hidden_dim))).astype(np.float32)
    uniform = rng.random((dream.depth, n, w.latent_dim), dtype=np.float32)
    normal = rng.standard_normal((dream.depth, n, w.latent_dim), dtype=np.float32)
    own = params[rows // (n // members)]
    state: tuple[Any, Any, Any] = (z[rows], h[rows], c[rows])
    logit: Doubles | None = None
    for t in range(dream.depth):
        z_t, h_t, c_t = state
        action = reference.controller_forward(case.spec, own, z_t, h_t, c_t)
        restart = np.full(rows.size, float(t == 0)) if w.predicts_done else None
        step = reference.mdn_rnn_step(w, z_t, action, h_t, c_t, restart)
        k, uniform[t, rows] = choose(step.logmix, rng)
        z_t = sample_given(step, k, normal[t, rows].astype(np.float64))
        state, logit = (z_t, step.h, step.c), step.done_logit
    got = dream.advance(z, h, c, uniform, normal)
    expected = dict(zip("zhc", state, strict=True))
    answers = {name: x[rows] for name, x in zip("zhc", got[:3], strict=True)}
    if logit is not None:
        if got[3] is None:
            raise RuntimeError(f"{who}: gives no done logit, but M has one")
        expected["done logit"], answers["done logit"] = logit, got[3][rows]
    compare(who, answers, expected, precision)


def compare(
    who: str, got: Mapping[str, Any], expected: Mapping[str, Any], precision: str
) -> dict[str, float]:
    """Return the largest relative error of every array, if all are within the tolerance.

    Raises:
        RuntimeError: one is not, or is not finite, or has another shape.
    """
    allowed, errors = TOLERANCES[precision], {}
    for name, wanted in expected.items():
        x = np.asarray(got[name], np.float64)
        if x.shape != wanted.shape:
            raise RuntimeError(
                f"{who} answers wrongly: {name}: shape {x.shape}, not {wanted.shape}"
            )
        off = np.abs(x - wanted) / (1.0 + np.abs(wanted))
        errors[name] = float(off.max())
        if not (off.max() <= allowed.largest and off.mean() <= allowed.mean):
            raise RuntimeError(
                f"{who} answers wrongly: {name} is off by {off.max():.2g} (mean {off.mean():.2g}); "
                f"allowed in {precision}: {allowed.largest:g} (mean {allowed.mean:g})"
            )
    return errors


def checked_rows(n: int) -> npt.NDArray[np.intp]:
    """Which rows of N are checked: first, last, and some in between."""
    return np.unique(np.linspace(0, n - 1, min(n, CHECKED_ROWS)).astype(np.intp))


def choose(logmix: Doubles, rng: np.random.Generator) -> tuple[npt.NDArray[np.intp], Doubles]:
    """Choose a component of each mixture and the uniform number in the middle of its share.

    Args:
        logmix: (N, Z, K).
        rng: it is chosen at random among those with a share of at least 0.8 of the largest.

    Returns:
        k (N, Z), uniform (N, Z).
    """
    weight = np.exp((logmix - logmix.max(axis=-1, keepdims=True)) / TEMPERATURE)
    share = weight / weight.sum(axis=-1, keepdims=True)
    among = share >= 0.8 * share.max(axis=-1, keepdims=True)
    k = (among * rng.random(share.shape)).argmax(axis=-1)[..., None]
    middle = np.cumsum(share, axis=-1) - share / 2
    return k[..., 0], np.take_along_axis(middle, k, axis=-1)[..., 0]


def sample_given(step: reference.MDNRNNStep, k: npt.NDArray[np.intp], normal: Doubles) -> Doubles:
    """Next latents (N, Z) if component k (N, Z) is drawn with these normals (N, Z)."""
    k = k[..., None]
    mu = np.take_along_axis(step.mu, k, axis=-1)[..., 0]
    logstd = np.take_along_axis(step.logstd, k, axis=-1)[..., 0]
    std = np.exp(np.minimum(logstd, reference.MAX_LOGSTD))
    z: Doubles = mu + std * np.sqrt(TEMPERATURE) * normal
    return z

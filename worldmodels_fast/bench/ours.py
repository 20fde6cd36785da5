"""Ours: the kernels of `worldmodels_fast.ops`, as a user calls them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops, reference
from worldmodels_fast.bench.protocol.cases import (
    NEVER_DONE,
    TEMPERATURE,
    Case,
    random_case,
    split,
)
from worldmodels_fast.bench.protocol.check import checked_rows, compare
from worldmodels_fast.bench.protocol.op_inputs import OPS, Op, OpInputs, checked_loop
from worldmodels_fast.bench.protocol.processes import Unavailable
from worldmodels_fast.bench.protocol.timing import RUN_SECONDS, Loop
from worldmodels_fast.types import Floats
from worldmodels_fast.world.pretrained import load_pretrained

CHECKED_STEPS = 8

LENGTHS_ALIKE = {"fp32": 0.1, "fp16": 0.4, "bf16": 1.0, "int8": 1.5}
"""Tolerance of the mean length of checked dreams of `CHECKED_STEPS` steps at most.

In float32 a rollout in a hundred may take another turn by a rounding; in fewer bits more do."""


def pack(case: Case, precision: str) -> ops.PackedMDNRNN:
    """The case's weights, packed.

    Raises:
        Unavailable: this build has no such precision.
    """
    try:
        return ops.pack_mdn_rnn(case.weights, precision=precision)
    except ValueError as error:
        if "precision" not in str(error):
            raise
        raise Unavailable(f"ours {precision}: {error}") from error


class OurDream:
    """Dreams of N = P * R rollouts; `run` has the settings that are timed."""

    def __init__(self, case: Case, n: int, precision: str, threads: int) -> None:
        self.case, self.threads = case, threads
        self.model = pack(case, precision)
        members, self.rollouts = split(n)
        self.params = case.params(members)

    def lengths(
        self, steps: int, done_threshold: float = NEVER_DONE, threads: int | None = None
    ) -> npt.NDArray[np.int32]:
        """The rollouts' lengths (P, R), at most so many steps."""
        case = self.case
        _, lengths = ops.dream_rollout(
            self.model,
            case.spec,
            self.params,
            case.initial_mu,
            case.initial_logvar,
            rollouts=self.rollouts,
            seed=0,
            temperature=TEMPERATURE,
            max_steps=steps,
            done_threshold=done_threshold,
            threads=threads or self.threads,
        )
        found: npt.NDArray[np.int32] = lengths
        return found

    def run(self, steps: int) -> None:
        """So many steps of every rollout, and not one less."""
        if not (self.lengths(steps) == steps).all():
            raise RuntimeError(f"ours: dreams without an end ended before their {steps} steps")


def make_dream(
    case: Case, n: int, precision: str, threads: int, seconds: float = RUN_SECONDS
) -> Loop:
    """A dream of N rollouts to be timed, checked; its unit is a dream step.

    Args:
        case: the model.
        n: N.
        precision: of the products.
        threads: see `ops.dream_rollout`.
        seconds: about how long one run takes.

    Raises:
        Unavailable: this build has no such precision.
    """
    check_dream(case, precision)
    return Loop(OurDream(case, n, precision, threads).run, per_count=n, seconds=seconds)


def check_dream(case: Case, precision: str) -> dict[str, float]:
    """Compare the three operations, and the lengths of whole dreams, with the reference.

    Returns:
        The largest relative error of each part of a step.

    Raises:
        RuntimeError: an answer is wrong.
        Unavailable: this build has no such precision.
    """
    inputs = OpInputs.make(case, 64)
    errors: dict[str, float] = {}
    for op in OPS:
        answer = make_contestant(op, inputs, precision, threads=1).answer()
        rows = checked_rows(inputs.n)
        got = {name: np.asarray(x)[rows] for name, x in answer.items()}
        exact = "fp32" if op != "mdn_rnn_step" else precision
        errors |= compare(f"ours {precision} {op}", got, inputs.expected(op), exact)
    if case.weights.predicts_done:
        _check_lengths(case, precision)
    return errors


def _check_lengths(case: Case, precision: str) -> None:
    """Compare dreams that end somewhere on their way with the reference's."""
    dream = OurDream(case, 64, precision, threads=1)
    low, high = -100.0, 100.0
    # A threshold that about half of them live to see; sought more finely, it would end up at some
    # rollout's very logit, where float32 and float64 may disagree.
    for _ in range(12):
        middle = (low + high) / 2
        long_lived = dream.lengths(CHECKED_STEPS, middle).mean() > CHECKED_STEPS / 2
        low, high = (low, middle) if long_lived else (middle, high)
    expected, _ = reference.dream_rollout(
        case.weights,
        case.spec,
        dream.params,
        case.initial_mu,
        case.initial_logvar,
        rollouts=dream.rollouts,
        seed=0,
        temperature=TEMPERATURE,
        max_steps=CHECKED_STEPS,
        done_threshold=high,
    )
    off = np.abs(dream.lengths(CHECKED_STEPS, high) - expected).mean()
    if not off <= LENGTHS_ALIKE[precision]:
        raise RuntimeError(
            f"ours {precision} answers wrongly: dreams of at most {CHECKED_STEPS} steps are off by "
            f"{off:.2f} steps on average"
        )


def make_op(op: str, case: Case, n: int, precision: str, threads: int) -> Loop:
    """One of the single operations to be timed, checked; its unit is a call.

    Raises:
        Unavailable: this build has no such precision.
    """
    inputs = OpInputs.make(case, n)
    contestant = make_contestant(op, inputs, precision, threads)
    return checked_loop(f"ours {precision}", op, contestant, inputs, precision)


def make_contestant(op: str, inputs: OpInputs, precision: str, threads: int) -> Op:
    """One of the single operations, writing where it wrote before."""
    case, i = inputs.case, inputs
    if op == "mdn_rnn_step":
        model = pack(case, precision)
        step = ops.mdn_rnn_step(model, i.z, i.action, i.h, i.c, threads=threads)

        def call_step() -> ops.MDNRNNStep[Floats]:
            return ops.mdn_rnn_step(model, i.z, i.action, i.h, i.c, threads=threads, out=step)

        def answer_step() -> dict[str, Any]:
            return {name: x for name, x in call_step()._asdict().items() if x is not None}

        return Op(call_step, answer_step)
    if op == "mixture_sample":
        z = np.empty_like(i.z)

        def call_sample() -> Floats:
            return ops.mixture_sample(i.logmix, i.mu, i.logstd, TEMPERATURE, out=z)

        return Op(call_sample, lambda: {"z": call_sample()})
    action = np.empty_like(i.action)
    spec, params = case.spec, i.params

    def call_control() -> Floats:
        return ops.controller_forward(spec, params, i.z, i.h, i.c, out=action)

    return Op(call_control, lambda: {"action": call_control()})


def make_tiny_op(op: str) -> Loop:
    """The operation on a model of one of everything: what is left is the cost of the call."""
    return make_op(op, random_case("tiny", 1, 1, 1, 1, True), 1, "fp32", threads=1)


def make_packing(case: Case, precision: str) -> Loop:
    """Packing a model's weights, to be timed; its unit is a model."""

    def run(count: int) -> None:
        for _ in range(count):
            pack(case, precision)

    return Loop(run, least=1)


def make_calls(case: Case, n: int, precision: str, threads: int, steps: int) -> Loop:
    """Calls of `dream_rollout`, N rollouts of `steps` steps each, to be timed; its unit is a call.

    Nothing is checked here; `make_dream` does that.
    """
    dream = OurDream(case, n, precision, threads)

    def run(count: int) -> None:
        for _ in range(count):
            dream.run(steps)

    return Loop(run, least=1, seconds=RUN_SECONDS / 3)


class Peak:
    """Return the processor's peak rate of multiplications, operations per second."""

    def __init__(self, precision: str, threads: int) -> None:
        self._precision, self._threads = precision, threads

    def measure(self) -> float:
        """Operations per second, all threads together."""
        return ops.peak_rate(self._precision, threads=self._threads)


class Read:
    """Return the rate at which the processor reads a model's packed weights over and over.

    Args:
        case: whose weights.
        precision: in which they are packed.
        threads: each reads its share of them.
    """

    def __init__(self, case: Case, precision: str, threads: int) -> None:
        self.nbytes = pack(case, precision).nbytes
        self._share, self._threads = -(-self.nbytes // threads), threads

    def measure(self) -> float:
        """Return how often per second all weights are read once."""
        return ops.read_rate(self._share, threads=self._threads) / self.nbytes


class Generation:
    """A real generation: a population near the bundled controller, dreams that end when they end.

    Args:
        precision: of the dream.
        threads: see `ops.dream_rollout`.
        max_steps: of each rollout.

    Attributes:
        mean_length: steps that a rollout lasted, once it has been measured.
    """

    MEMBERS, ROLLOUTS, SIGMA = 64, 16, 0.1

    def __init__(self, precision: str, threads: int, max_steps: int) -> None:
        world = load_pretrained("take-cover")
        self._dream = world.dream(
            temperature=TEMPERATURE, max_steps=max_steps, precision=precision, threads=threads
        )
        best = world.controller.flat.detach().numpy()
        noise = np.random.default_rng(0).standard_normal((self.MEMBERS, best.size))
        self._population = (best + self.SIGMA * noise).astype(np.float32)
        self.mean_length = float("nan")

    def measure(self) -> float:
        """Useful dream steps per second: the sum of the lengths by the time."""
        begin = time.perf_counter()
        lengths = self._dream.evaluate(self._population, self.ROLLOUTS, seed=0).lengths
        taken = time.perf_counter() - begin
        self.mean_length = float(lengths.mean())
        return float(lengths.sum()) / taken

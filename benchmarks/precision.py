"""Evidence for a faster precision: does M dream the same in it?

    python benchmarks/precision.py [--precision bf16] [--rollouts 10000] [--out precision-evidence]
    python benchmarks/precision.py --evolve          # and: a controller evolved in it, in the game

Four questions, each beside its control, which is fp32 against fp32 on other seeds:

- one step: how far are h', c', the logits and z' from the float64 reference?
- following: along fp32's own dream, how many nats per step tell the two transition laws apart?
- returns: do dreams of the bundled controller last as long? Two-sample tests, and quantiles.
- ranking: does a population come out in the same order, as evolution needs it?
- evolve: how does a controller evolved in it score in the real game?

A positive control, weights rounded to few bits, shows that the tests would notice a difference.
Results are printed, and written to `precision.json` in the folder of `--out`; whatever took time
lies beside it, so a command that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from worldmodels_fast import World, envs, load_pretrained, ops, reference
from worldmodels_fast.bench.protocol.cases import make_case
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.dream.stepping import DreamState, begin, play
from worldmodels_fast.evaluation.evaluate import evaluate_agent
from worldmodels_fast.evaluation.statistics import summary
from worldmodels_fast.evolution.cma import evolve
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.migration import migrate_identity
from worldmodels_fast.types import Floats, Indices
from worldmodels_fast.utils.seeding import derive_seed

F64 = npt.NDArray[np.float64]
Result = dict[str, Any]

WORLD = "take-cover"
RECIPE = "take-cover-quick"
RESAMPLES = 4000
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
COARSE_BITS = 6
"""The positive control's weights: so many bits, one scale per row."""


# ------------------------------------------------------------------------------------------------
# Statistics
# ------------------------------------------------------------------------------------------------


def resampled_counts(x: F64, seed: int) -> tuple[F64, F64]:
    """Bootstrap samples of x as (values (V,), how often each was drawn (RESAMPLES, V))."""
    values, counts = np.unique(x, return_counts=True)
    rng = np.random.default_rng(seed)
    return values, rng.multinomial(x.size, counts / x.size, size=RESAMPLES).astype(np.float64)


def interval(x: F64, level: float = 0.95) -> list[float]:
    """Percentile interval of bootstrap results (RESAMPLES,)."""
    tail = 50.0 * (1.0 - level)
    return [float(v) for v in np.percentile(x, (tail, 100.0 - tail))]


def two_samples(a: F64, b: F64, ceiling: float | None = None) -> Result:
    """Compare two independent samples (n,) and (m,): b against a.

    Args:
        a: the sample that b is compared with.
        b: the other.
        ceiling: the longest return; with it, the shares that reach it are compared, too.

    Returns:
        Tests with their p-values (Kolmogorov-Smirnov's is conservative, since returns are whole
        numbers), differences b - a of means and quantiles with bootstrap 95% intervals, and
        `same_mean_within`: the smallest margin, as a share of a's mean, for which two one-sided
        tests at 5% find the means equivalent.
    """
    ks = stats.ks_2samp(a, b, method="asymp")
    mw = stats.mannwhitneyu(b, a, method="asymptotic")
    drawn = [resampled_counts(x, seed) for seed, x in enumerate((a, b))]
    means = [counts @ values / x.size for (values, counts), x in zip(drawn, (a, b), strict=True)]
    result: Result = {
        "n": [a.size, b.size],
        "mean": [float(a.mean()), float(b.mean())],
        "std": [float(a.std()), float(b.std())],
        "mean_difference": float(b.mean() - a.mean()),
        "mean_difference_interval": interval(means[1] - means[0]),
        "same_mean_within": float(np.abs(interval(means[1] - means[0], 0.9)).max() / abs(a.mean())),
        "ks_statistic": float(ks.statistic),
        "ks_p": float(ks.pvalue),
        "mann_whitney_p": float(mw.pvalue),
        "probability_greater": float(mw.statistic / (a.size * b.size)),
        "quantiles": [],
    }
    for q in QUANTILES:
        ends = [
            values[(np.cumsum(counts, axis=1) >= q * x.size).argmax(axis=1)]
            for (values, counts), x in zip(drawn, (a, b), strict=True)
        ]
        point = [float(np.quantile(x, q, method="inverted_cdf")) for x in (a, b)]
        result["quantiles"].append(
            {"q": q, "of": point, "difference_interval": interval(ends[1] - ends[0])}
        )
    if ceiling is not None:
        reached = np.array([(x >= ceiling).sum() for x in (a, b)])
        sizes = np.array([a.size, b.size])
        result["share_at_ceiling"] = [float(v) for v in reached / sizes]
        if 0 < reached.sum() < sizes.sum():
            table = np.stack([reached, sizes - reached])
            result["share_at_ceiling_p"] = float(
                stats.chi2_contingency(table, correction=False).pvalue
            )
    return result


def two_samples_line(name: str, r: Result) -> str:
    """`two_samples` in one line of a markdown table."""
    low, high = r["mean_difference_interval"]
    share = "{:.1%} / {:.1%}".format(*r["share_at_ceiling"]) if "share_at_ceiling" in r else ""
    return (
        f"| {name} | {r['mean'][0]:.1f} +- {r['std'][0]:.0f} | {r['mean'][1]:.1f} +- "
        f"{r['std'][1]:.0f} | {r['mean_difference']:+.1f} [{low:+.1f}, {high:+.1f}] "
        f"| {r['same_mean_within']:.1%} | {r['ks_statistic']:.4f} | {r['ks_p']:.3g} "
        f"| {r['mann_whitney_p']:.3g} | {share} |"
    )


TWO_SAMPLES_HEAD = (
    "| b against a | a: mean +- std | b: mean +- std | difference of means [95%] "
    "| equal within | KS | KS p | Mann-Whitney p | at the ceiling, a / b |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


# ------------------------------------------------------------------------------------------------
# What is compared
# ------------------------------------------------------------------------------------------------


def coarse(weights: ops.MDNRNNWeights, bits: int = COARSE_BITS) -> ops.MDNRNNWeights:
    """Round the weights, but not the done logit's and the reward's rows, to `bits`: symmetric, one
    scale per row.
    """
    largest = 2 ** (bits - 1) - 1

    def rounded(w: Floats) -> Floats:
        scale = np.maximum(np.abs(w).max(axis=1, keepdims=True), 1e-30) / largest
        near: Floats = (np.round(w / scale) * scale).astype(np.float32)
        return near

    first = int(weights.predicts_done) + int(weights.predicts_reward)
    head = weights.head_weight
    return dataclasses.replace(
        weights,
        weight_ih=rounded(weights.weight_ih),
        weight_hh=rounded(weights.weight_hh),
        head_weight=np.concatenate([head[:first], rounded(head[first:])]),
    )


class Store:
    """Arrays that took time, one file each, named after all that they depend on."""

    def __init__(self, folder: Path, inputs: Iterable[str]) -> None:
        """Hold the folder; `inputs` say which world and which kernels everything is made with."""
        self.folder = folder
        self.inputs = "/".join(inputs)
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, settings: Result, make: Callable[[], Floats]) -> Floats:
        """The array kept under this name and these settings, made now if there is none."""
        text = json.dumps([self.inputs, settings], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = self.folder / f"{name}-{key}.npy"
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            with unfinished.open("wb") as file:
                np.save(file, make())
            os.replace(unfinished, path)
        array: Floats = np.load(path)
        return array


def kernels_digest() -> str:
    """SHA-256 of the compiled extension, 16 hex digits."""
    spec = importlib.util.find_spec("worldmodels_fast._core")
    if spec is None or spec.origin is None:
        raise RuntimeError("the compiled extension has no file")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every part of the evidence needs."""

    world: World
    precision: str
    backend: str
    threads: int | None
    rollouts: int
    store: Store

    def dream(self, precision: str) -> Dream:
        """The bundled dream in "fp32", the precision in question, or the positive control."""
        if precision == coarse_name():
            dream = self.world.dream(threads=self.threads, backend=self.backend)
            dream.model = ops.pack_mdn_rnn(coarse(dream.weights), backend=self.backend)
            return dream
        return self.world.dream(threads=self.threads, backend=self.backend, precision=precision)

    def returns(self, precision: str, members: Floats, rollouts: int, stream: str) -> Floats:
        """Returns (P, rollouts), 1,000 rollouts at a time: a killed command loses few."""
        made: list[Dream] = []
        parts = []
        for first in range(0, rollouts, 1000):
            n = min(1000, rollouts - first)
            seed = derive_seed(0, f"precision/{stream}", first)

            def play(n: int = n, seed: int = seed) -> Floats:
                if not made:
                    made.append(self.dream(precision))
                returns: Floats = made[0].evaluate(members, rollouts=n, seed=seed).returns
                return returns

            settings = {
                "precision": precision,
                "backend": self.backend,
                "members": hashlib.sha256(members.tobytes()).hexdigest(),
                "rollouts": n,
                "seed": seed,
            }
            parts.append(self.store.get("returns", settings, play))
        return np.concatenate(parts, axis=1)


def coarse_name() -> str:
    """What the positive control is called."""
    return f"{COARSE_BITS}-bit weights"


def bundled_params(world: World) -> Floats:
    """The world's controller, (n_params,)."""
    params: Floats = world.controller.flat.detach().numpy().copy()
    return params


# ------------------------------------------------------------------------------------------------
# One step, against float64
# ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class States:
    """N rows that M is stepped from, float32."""

    z: Floats
    action: Floats
    h: Floats
    c: Floats
    restart: Floats | None


def dreamed_states(dream: Dream, spec: ops.ControllerSpec, params: Floats, rows: int) -> States:
    """States that a dream passes through: steps 1, 8, 64 and 256 of rollouts that go on."""
    kept: list[tuple[Floats, ...]] = []

    def act(state: DreamState, _: Indices) -> Floats:
        action = ops.controller_forward(spec, params[None], state.z, state.h, state.c)
        if state.step[0] in (1, 8, 64, 256):
            kept.append((state.z, action, state.h, state.c, np.zeros(len(state), np.float32)))
        return action

    for _ in play(dream, begin(dream, rows, 1), act, 257):
        pass
    arrays = [np.ascontiguousarray(np.concatenate(x)) for x in zip(*kept, strict=True)]
    flag = arrays[4] if dream.weights.predicts_done else None
    return States(arrays[0], arrays[1], arrays[2], arrays[3], flag)


def error(got: npt.ArrayLike, wanted: npt.ArrayLike) -> Result:
    """Largest and root mean square difference, and the latter beside the wanted spread."""
    expected = np.asarray(wanted, dtype=np.float64)
    difference = np.asarray(got, dtype=np.float64) - expected
    rms = float(np.sqrt(np.mean(difference**2)))
    return {
        "max": float(np.abs(difference).max()),
        "rms": rms,
        "rms_relative": rms / float(expected.std()),
    }


def chosen(logmix: npt.ArrayLike, uniform: F64, temperature: float) -> npt.NDArray[np.int64]:
    """Which component each latent is drawn from, (N, Z)."""
    x = np.asarray(logmix, dtype=np.float64)
    weight = np.exp((x - x.max(axis=2, keepdims=True)) / temperature)
    cumulative = np.cumsum(weight, axis=2)
    k: npt.NDArray[np.int64] = (
        cumulative[..., :-1] <= (uniform * cumulative[..., -1])[..., None]
    ).sum(axis=2)
    return k


def one_step(
    weights: ops.MDNRNNWeights, s: States, precision: str, backend: str, temperature: float
) -> Result:
    """One step in a precision against the float64 reference, from the same rows.

    z' is compared under the same noise where both draw from the same component;
    `other_component` is the share of latents where they do not.
    """
    model = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    got = ops.mdn_rnn_step(model, s.z, s.action, s.h, s.c, s.restart)
    wanted = reference.mdn_rnn_step(weights, s.z, s.action, s.h, s.c, s.restart)
    n, z_dim = s.z.shape
    seed = 3
    uniform, _ = reference.noise(seed, np.arange(n), 0, z_dim, reference.MIXTURE)
    z_got = ops.mixture_sample(
        got.logmix, got.mu, got.logstd, temperature, seed=seed, backend=backend
    )
    z_wanted = reference.mixture_sample(
        wanted.logmix, wanted.mu, wanted.logstd, temperature, seed=seed
    )
    same = chosen(got.logmix, uniform, temperature) == chosen(wanted.logmix, uniform, temperature)
    result: Result = {
        "rows": n,
        "h": error(got.h, wanted.h),
        "c": error(got.c, wanted.c),
        "logmix": error(got.logmix, wanted.logmix),
        "mu": error(got.mu, wanted.mu),
        "logstd": error(got.logstd, wanted.logstd),
        "z": error(z_got[same], z_wanted[same]),
        "other_component": float(1.0 - same.mean()),
    }
    if got.done_logit is not None and wanted.done_logit is not None:
        result["done_logit"] = error(got.done_logit, wanted.done_logit)
    return result


def one_step_part(setup: Setup) -> Result:
    """One-step errors of the bundled world and of both models with random weights."""
    world, temperature = setup.world, setup.world.dream().temperature
    dream = setup.world.dream(threads=1, backend=setup.backend)
    models = [("take-cover, bundled", dream, world.controller.spec, bundled_params(world))]
    for name in ("doom", "car_racing"):
        case = make_case(name)
        latents = (case.initial_mu, case.initial_logvar)
        random_dream = Dream(case.weights, case.spec, latents, threads=1, backend=setup.backend)
        models.append((f"{name}, random", random_dream, case.spec, case.params(1)[0]))
    result: Result = {}
    print("\n## One step against float64: rms error (largest)\n")
    print("| model | precision | h' | c' | logmix | mu | logstd | done | z' | other component |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, in_dream, spec, params in models:
        states = dreamed_states(in_dream, spec, params, rows=256)
        for precision in ("fp32", setup.precision):
            r = one_step(in_dream.weights, states, precision, setup.backend, temperature)
            result.setdefault(name, {})[precision] = r
            cells = " | ".join(
                f"{r[key]['rms']:.1e} ({r[key]['max']:.1e})" if key in r else ""
                for key in ("h", "c", "logmix", "mu", "logstd", "done_logit", "z")
            )
            print(f"| {name} | {precision} | {cells} | {r['other_component']:.1e} |", flush=True)
    return result


# ------------------------------------------------------------------------------------------------
# Following fp32's dream
# ------------------------------------------------------------------------------------------------


def log_density(step: ops.MDNRNNStep[Floats], z: Floats, temperature: float) -> F64:
    """Log density (N,) of the next latents z (N, Z), over all their dimensions."""
    logmix = step.logmix.astype(np.float64) / temperature
    logmix -= logmix.max(axis=2, keepdims=True)
    log_pi = logmix - np.log(np.exp(logmix).sum(axis=2, keepdims=True))
    log_std = np.minimum(step.logstd.astype(np.float64), reference.MAX_LOGSTD)
    log_std += 0.5 * np.log(temperature)
    distance = (z[:, :, None] - step.mu) / np.exp(log_std)
    terms = log_pi - log_std - 0.5 * distance**2
    top = terms.max(axis=2, keepdims=True)
    total: F64 = (top[..., 0] + np.log(np.exp(terms - top).sum(axis=2))).sum(axis=1)
    return total


def following(setup: Setup, precision: str, rows: int = 256, steps: int = 400) -> Result:
    """Let M in a precision follow fp32's dream: same z and actions, its own h and c.

    Returns:
        nats_per_step: mean log ratio of fp32's and this precision's density of fp32's next latent,
        an estimate of the divergence between their transition laws, with its standard error over
        rollouts; rms errors of h, c and the done logit; other_end: share of steps in which the two
        disagree about the rollout's end.
    """
    leader = setup.dream("fp32")
    follower = leader if precision == "fp32" else setup.dream(precision)
    spec, params = setup.world.controller.spec, bundled_params(setup.world)[None]
    tau = leader.temperature
    z = begin(leader, rows, 2).z
    h, c = np.zeros((2, rows, leader.weights.hidden_dim), np.float32)
    h2, c2 = h, c
    nats, counted, ids = np.zeros(rows), np.zeros(rows), np.arange(rows)
    squares = {"h": 0.0, "c": 0.0, "done_logit": 0.0}
    other_end = 0
    for t in range(steps):
        action = ops.controller_forward(spec, params, z, h, c)
        restart = np.full(len(z), t == 0, np.float32)
        ours = ops.mdn_rnn_step(leader.model, z, action, h, c, restart)
        theirs = ops.mdn_rnn_step(follower.model, z, action, h2, c2, restart)
        if ours.done_logit is None or theirs.done_logit is None:
            raise ValueError("the bundled M was expected to predict the end of a rollout")
        z = ops.mixture_sample(ours.logmix, ours.mu, ours.logstd, tau, seed=2, step=t)
        nats[ids] += log_density(ours, z, tau) - log_density(theirs, z, tau)
        counted[ids] += 1
        squares["h"] += float(((ours.h - theirs.h) ** 2).mean(axis=1).sum())
        squares["c"] += float(((ours.c - theirs.c) ** 2).mean(axis=1).sum())
        squares["done_logit"] += float(((ours.done_logit - theirs.done_logit) ** 2).sum())
        done = ours.done_logit > leader.done_threshold
        other_end += int((done != (theirs.done_logit > leader.done_threshold)).sum())
        keep = ~done
        ids, z = ids[keep], z[keep]
        h, c, h2, c2 = ours.h[keep], ours.c[keep], theirs.h[keep], theirs.c[keep]
        if not len(z):
            break
    total = counted.sum()
    rate = nats.sum() / total
    spread = np.sqrt(((nats - rate * counted) ** 2).sum()) / total  # of a ratio of sums
    return {
        "steps": int(total),
        "nats_per_step": float(rate),
        "nats_per_step_error": float(spread),
        **{f"rms_{name}": float(np.sqrt(value / total)) for name, value in squares.items()},
        "other_end": other_end / float(total),
    }


def following_part(setup: Setup) -> Result:
    """`following` in the precision and in the positive control."""
    print("\n## Following fp32's dream: the same z and actions, h and c of its own\n")
    print("| precision | nats per step | rms h | rms c | rms done logit | ends otherwise |")
    print("| --- | --- | --- | --- | --- | --- |")
    result: Result = {}
    for precision in (setup.precision, coarse_name()):
        r = following(setup, precision)
        result[precision] = r
        print(
            f"| {precision} | {r['nats_per_step']:.5f} +- {r['nats_per_step_error']:.5f} "
            f"| {r['rms_h']:.1e} | {r['rms_c']:.1e} | {r['rms_done_logit']:.1e} "
            f"| {r['other_end']:.1e} |",
            flush=True,
        )
    return result


# ------------------------------------------------------------------------------------------------
# Returns, and the order of a population
# ------------------------------------------------------------------------------------------------


def returns_part(setup: Setup) -> Result:
    """Dream returns of the bundled controller: independent seeds everywhere."""
    members = bundled_params(setup.world)[None]
    ceiling = float(setup.world.dream().max_steps)
    samples = {
        name: setup.returns(precision, members, setup.rollouts, f"returns/{name}")[0].astype(
            np.float64
        )
        for name, precision in (
            ("fp32", "fp32"),
            ("fp32, other seeds", "fp32"),
            (setup.precision, setup.precision),
            (f"{coarse_name()} (positive control)", coarse_name()),
        )
    }
    print(f"\n## Dream returns, {setup.rollouts:,} rollouts each\n\n{TWO_SAMPLES_HEAD}")
    names = list(samples)
    result: Result = {}
    for a, b in ((0, 1), (0, 2), (1, 2), (0, 3)):
        pair = f"{names[b]} against {names[a]}"
        result[pair] = two_samples(samples[names[a]], samples[names[b]], ceiling)
        print(two_samples_line(pair, result[pair]), flush=True)
    both = np.concatenate([samples[names[0]], samples[names[1]]])
    pair = f"{names[2]} against both fp32"
    result[pair] = two_samples(both, samples[names[2]], ceiling)
    print(two_samples_line(pair, result[pair]))
    print("\n| quantile | fp32 | " + names[2] + " | difference, 95% |")
    print("| --- | --- | --- | --- |")
    for row in result[pair]["quantiles"]:
        low, high = row["difference_interval"]
        a_value, b_value = row["of"]
        print(f"| {row['q']:.0%} | {a_value:.0f} | {b_value:.0f} | {low:+.0f} to {high:+.0f} |")
    return result


def population_of(world: World) -> Floats:
    """64 controllers from hopeless to the bundled one: a ranking of equals would be noise."""
    rng = np.random.default_rng(7)
    best = bundled_params(world)
    first = [0.1 * rng.standard_normal(best.shape) for _ in range(16)]  # evolution's generation 0
    scaled = [factor * best for factor in np.geomspace(0.02, 1.0, 8)]
    thinned = [best * (rng.random(best.shape) < share) for share in np.linspace(0.05, 0.8, 24)]
    noisy = [best + s * rng.standard_normal(best.shape) for s in np.linspace(0.1, 0.7, 16)]
    return np.ascontiguousarray([*first, *scaled, *thinned, *noisy], dtype=np.float32)


def ranking_part(setup: Setup) -> Result:
    """Spearman's correlation of members' mean returns between independent seeds.

    As in evolution, all members of a sample meet the same noise, which shifts them together: their
    order is what counts here, the mean is for `returns_part`. Each sample has about as many
    rollouts as one of its samples.
    """
    members = population_of(setup.world)
    rollouts = max(8, setup.rollouts // len(members))
    means = {
        name: setup.returns(precision, members, rollouts, f"ranking/{name}").mean(axis=1)
        for name, precision in (
            ("fp32", "fp32"),
            ("fp32, other seeds", "fp32"),
            (setup.precision, setup.precision),
        )
    }
    a, b, x = means.values()

    def correlations(rows: npt.NDArray[np.int64]) -> list[float]:
        pairs = ((a, b), (a, x), (b, x))
        return [float(stats.spearmanr(u[rows], v[rows]).statistic) for u, v in pairs]

    control, with_a, with_b = correlations(np.arange(len(members)))
    rng = np.random.default_rng(0)
    drawn = np.array(
        [correlations(rng.integers(len(members), size=len(members))) for _ in range(1000)]
    )
    low, high = interval(drawn[:, 1:].mean(axis=1) - drawn[:, 0])
    result = {
        "members": len(members),
        "rollouts": rollouts,
        "fp32_with_fp32": control,
        "with_fp32": [with_a, with_b],
        "difference": 0.5 * (with_a + with_b) - control,
        "difference_interval": [low, high],
        "rms_difference_of_means": {
            "fp32_with_fp32": float(np.sqrt(np.mean((a - b) ** 2))),
            "with_fp32": float(np.sqrt(0.5 * np.mean((a - x) ** 2 + (b - x) ** 2))),
        },
        "mean_over_members": {name: float(mean.mean()) for name, mean in means.items()},
    }
    print(f"\n## Order of {len(members)} controllers by the mean of {rollouts} dreams (Spearman)\n")
    print("| fp32 with fp32 | " + setup.precision + " with fp32 | difference [95%] |")
    print("| --- | --- | --- |")
    print(
        f"| {control:.4f} | {with_a:.4f}, {with_b:.4f} "
        f"| {result['difference']:+.4f} [{low:+.4f}, {high:+.4f}] |"
    )
    return result


# ------------------------------------------------------------------------------------------------
# Evolution, and the real game
# ------------------------------------------------------------------------------------------------


def evolve_part(setup: Setup, args: argparse.Namespace, out: Path) -> Result:
    """Evolve a controller in each precision, same recipe and seeds; let each play the real game.

    Two evolutions part after a few generations whatever parts them, and then differ as two seeds
    do: judge a difference by the spread over several `--evolve-seeds`.
    """
    world = setup.world
    scores: dict[str, list[F64]] = {"fp32": [], setup.precision: []}
    result: Result = {"recipe": RECIPE, "episodes": args.episodes, "runs": []}
    print(f"\n## Evolved in each precision ({RECIPE}), {args.episodes} real episodes each\n")
    print("| evolved in | seed | dream score | real score, mean +- std [95%] |")
    print("| --- | --- | --- | --- |", flush=True)
    for seed in args.evolve_seeds:
        for precision in scores:
            recipe = make_recipe(RECIPE)
            config = recipe.evolve
            if args.generations is not None:
                config = dataclasses.replace(config, generations=args.generations)
            kernels = kernels_digest()[:8]  # others would not go on, but do something else
            folder = out / f"evolved-{precision}-{setup.backend}-{seed}-{kernels}"
            dream = world.dream(
                precision=precision,
                backend=setup.backend,
                threads=setup.threads,
                temperature=recipe.dream.temperature,
                max_steps=recipe.dream.max_steps,
            )

            def on_generation(record: Result, name: str = precision) -> None:
                text = f"{name}: generation {record['generation']}, mean {record['mean']:.0f}"
                print(text, file=sys.stderr)

            evolved = evolve(
                dream.evaluate,
                dream.n_params,
                config,
                state_path=folder / "evolution_state.pickle",
                history_path=folder / "history.jsonl",
                seed=seed,
                on_generation=on_generation,
                depends_on={
                    "dream.precision": precision,
                    "dream.temperature": recipe.dream.temperature,
                    "dream.max_steps": recipe.dream.max_steps,
                },
                read_identity=migrate_identity,
            )
            controller = type(world.controller).from_config(world.controller.config())
            with torch.no_grad():
                controller.flat.copy_(torch.from_numpy(evolved.params))
            candidate = dataclasses.replace(world, controller=controller)
            evaluation = evaluate_agent(
                candidate,
                envs.ENVIRONMENTS[world.config["environment"]].env_id,
                episodes=args.episodes,
                seed=derive_seed(int(world.config["seed"]), "evaluate"),
                workers=setup.threads,
                env_kwargs=world.config["env_kwargs"],
                progress_path=folder / f"game-{candidate.digest()}.jsonl",
            )
            scores[precision].append(evaluation.scores)
            result["runs"].append(
                {
                    "precision": precision,
                    "seed": seed,
                    "dream_score": evolved.score,
                    "generation": evolved.generation,
                    "dream_steps": sum(record["steps"] for record in evolved.history),
                    "minutes": sum(record["seconds"] for record in evolved.history) / 60,
                    "real": dataclasses.asdict(evaluation.summary()),
                    "scores": evaluation.scores.tolist(),
                }
            )
            print(
                f"| {precision} | {seed} | {evolved.score:.0f} | {evaluation.summary()} |",
                flush=True,
            )
    a, b = (np.concatenate(scores[precision]) for precision in scores)
    result["two_samples"] = two_samples(a, b)
    result["summaries"] = {
        name: dataclasses.asdict(summary(np.concatenate(x))) for name, x in scores.items()
    }
    if not np.array_equal(a, b):
        # The same games: the difference of each is what the signed-rank test looks at.
        result["same_games_p"] = float(stats.wilcoxon(a, b).pvalue)
    pair = f"evolved in {setup.precision} against in fp32"
    print(f"\n{TWO_SAMPLES_HEAD}\n{two_samples_line(pair, result['two_samples'])}")
    return result


# ------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--rollouts", type=int, default=10_000, help="dreams of each sample")
    parser.add_argument("--out", type=Path, default=Path("precision-evidence"), help="folder")
    parser.add_argument("--threads", type=int, help="default: all processors")
    parser.add_argument(
        "--backend", choices=ops.available_backends(), default=ops.default_backend()
    )
    parser.add_argument("--evolve", action="store_true", help="evolve and play the real game, too")
    parser.add_argument("--evolve-seeds", type=int, nargs="+", help="default: the world's own")
    parser.add_argument("--generations", type=int, help="default: the recipe's")
    parser.add_argument("--episodes", type=int, default=100, help="of the real game")
    args = parser.parse_args()
    for name in ("rollouts", "episodes", "generations", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: expected at least 1, got {value}")
    if args.rollouts < 100:
        parser.error(f"--rollouts: expected at least 100 to test anything, got {args.rollouts}")
    if args.precision == "fp32":
        parser.error("--precision: expected one to compare with fp32, e.g. bf16")
    return args


def main() -> None:
    """Print all of it, and write it to a file."""
    args = parse()
    began = time.perf_counter()
    world = load_pretrained(WORLD)
    args.evolve_seeds = args.evolve_seeds or [int(world.config["seed"])]
    kernels = kernels_digest()
    setup = Setup(
        world=world,
        precision=args.precision,
        backend=args.backend,
        threads=args.threads,
        rollouts=args.rollouts,
        store=Store(args.out / "samples", [world.digest(), kernels]),
    )
    # An unknown precision, or one that this level lacks, is an error now, not in minutes.
    packed = ops.pack_mdn_rnn(
        world.mdn_rnn.weights(), backend=args.backend, precision=args.precision
    )
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    print(
        f"world {WORLD} ({world.digest()}), precision {packed.precision}, backend "
        f"{packed.backend}, weights {packed.nbytes / 2**20:.1f} MiB"
    )
    report: Result = {
        "world": {"name": WORLD, "digest": world.digest(), "dream": world.config["dream"]},
        "precision": packed.precision,
        "backend": packed.backend,
        "kernels": kernels,
        "versions": versions,
        "one_step": one_step_part(setup),
        "following": following_part(setup),
        "returns": returns_part(setup),
        "ranking": ranking_part(setup),
    }
    path = args.out / f"precision-{packed.precision}-{packed.backend}.json"
    write(report, path)
    if args.evolve:
        report["evolve"] = evolve_part(setup, args, args.out)
        write(report, path)
    print(f"\n{path}, {(time.perf_counter() - began) / 60:.1f} minutes")


def write(report: Result, path: Path) -> None:
    """Write JSON, whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()

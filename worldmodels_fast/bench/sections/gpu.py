"""`worldmodels-fast bench --device cuda`: dreams on a GPU, its limits, and its rivals on it.

Rates are of whole calls with their arrays on the device, long enough that a call's cost does not
count; the generation's wall time is of `Dream.evaluate` with a population of the host. Every
section's rows are written as they come, so that a run that is cut short leaves what it has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from worldmodels_fast import ops
from worldmodels_fast.bench import ours
from worldmodels_fast.bench.protocol import machine
from worldmodels_fast.bench.protocol.cases import NEVER_DONE, TEMPERATURE, Case, make_case, split
from worldmodels_fast.bench.protocol.contest import Contest
from worldmodels_fast.bench.protocol.processes import Libraries
from worldmodels_fast.bench.protocol.timing import Loop, Rate
from worldmodels_fast.bench.rivals.cuda import RIVALS
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.utils.files import write_json, write_text
from worldmodels_fast.utils.progress import console
from worldmodels_fast.world.pretrained import load_pretrained

Model = Literal["car_racing", "doom", "take-cover"]
Precision = Literal["fp16", "fp32"]
RivalName = Literal["torch-eager", "torch-graph", "torch-compile", "jax"]
Section = Literal["limits", "dream", "generation", "rivals", "plans"]
Results = dict[str, Any]

SECTIONS: tuple[Section, ...] = get_args(Section)

MEMBERS, ROLLOUTS, MAX_STEPS = 64, 16, 1000
"""The generation that is timed."""

PLANS = [(group, slots) for group in (1, 2, 4, 8, 16) for slots in (8, 16, 32, 64, 128)]


@dataclass(frozen=True)
class GpuConfig:
    """Time our kernels on a CUDA device, and their rivals on the same one.

    Attributes:
        out: the folder for gpu.json and gpu.md.
        models: the paper's two sizes with random weights, and the bundled world.
        sizes: numbers of rollouts N side by side: 1 to 16, or multiples of 16.
        precisions: of the matrix products.
        rivals: those that are not installed are left out.
        rival_sizes: N of the comparison.
        seconds: for each measurement.
        only: the sections to do.
    """

    out: Path = Path("runs/bench-gpu")
    models: tuple[Model, ...] = ("car_racing", "doom")
    sizes: tuple[int, ...] = (1, 4, 16, 1024, 8192, 65536)
    precisions: tuple[Precision, ...] = ("fp16", "fp32")
    rivals: tuple[RivalName, ...] = ("torch-eager", "torch-graph", "torch-compile", "jax")
    rival_sizes: tuple[int, ...] = (1024,)
    seconds: float = 0.5
    only: tuple[Section, ...] = SECTIONS


class DeviceDream:
    """Dreams of N = P * R rollouts whose arrays are on the device."""

    def __init__(self, case: Case, n: int, precision: str, plan: tuple[int, int] = (0, 0)) -> None:
        self.case, self.plan = case, plan
        self.model = ops.pack_mdn_rnn(case.weights, device="cuda", precision=precision)
        self.members, self.rollouts = split(n)
        arrays = (case.params(self.members), case.initial_mu, case.initial_logvar)
        self.params, self.mu, self.logvar = (ops.to_device(x) for x in arrays)

    def run(self, steps: int) -> None:
        """So many steps of every rollout, and not one less; waits for them."""
        _, lengths = ops.dream_rollout(
            self.model,
            self.case.spec,
            self.params,
            self.mu,
            self.logvar,
            rollouts=self.rollouts,
            seed=0,
            temperature=TEMPERATURE,
            max_steps=steps,
            done_threshold=NEVER_DONE,
            plan=self.plan,
        )
        if not (lengths.numpy() == steps).all():
            raise RuntimeError(f"ours: dreams without an end ended before their {steps} steps")

    def chosen(self) -> tuple[int, int]:
        """The plan that it follows: (group, slots)."""
        return ops.plan_dream(self.model, self.case.spec, self.members, self.rollouts, self.plan)


def make_dream(case: Case, n: int, precision: str) -> Loop:
    """Our dream of N rollouts to be timed, checked; its unit is a dream step."""
    ours.check_dream(case, precision)
    return Loop(DeviceDream(case, n, precision).run, per_count=n)


def bench(config: GpuConfig) -> Results:
    """Do what `GpuConfig` says; print the tables; return what gpu.json holds.

    Raises:
        ValueError: no CUDA device, or an unknown section.
        RuntimeError: an answer of ours is wrong.
    """
    if why := ops.why_no_cuda():
        raise ValueError(f"device: 'cuda' cannot be used, because {why}")
    if unknown := set(config.only) - set(SECTIONS):
        raise ValueError(f"only: expected some of {', '.join(SECTIONS)}; got {unknown.pop()!r}")
    config.out.mkdir(parents=True, exist_ok=True)
    results: Results = {
        "gpu": describe_gpu(),
        "machine": machine.describe_machine(),
        "config": dataclasses.asdict(config) | {"out": str(config.out)},
        "kernels": ops.cuda_kernels(),
        "left_out": {},
    }
    sections: dict[str, Callable[[GpuConfig, Results], Iterator[dict[str, Any]]]] = {
        "limits": _limits,
        "dream": _dreams,
        "generation": _generations,
        "rivals": _rivals,
        "plans": _plans,
    }
    # Operations that are checked take arrays of the host; they are to be computed on the device.
    settings = {
        "WMF_BACKEND": "cuda",
        "JAX_PLATFORMS": "cuda",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # fp32 is fp32: no rounding to 19 bits
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    with _environment(settings):
        for section in (name for name in SECTIONS if name in config.only):
            rows = results[section] = []
            for row in sections[section](config, results):
                rows.append(row)
                console.print(f"{section}: {_headline(row)}", markup=False)
                write_json(config.out / "gpu.json", results)
    write_text(config.out / "gpu.md", markdown(results))
    console.print(markdown(results), markup=False)
    return results


def describe_gpu() -> dict[str, Any]:
    """The device that is used, and the versions of driver and kernels."""
    status = ops.cuda_status()
    device = next(d for d in status["devices"] if not d["reason"])
    return {**device, "driver": status["driver"], "runtime": status["runtime"]}


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- sections: each yields rows of gpu.json ---------------------------------------------------


def _limits(config: GpuConfig, results: Results) -> Iterator[dict[str, Any]]:
    """Return the device's peak rates, and its speed of reading each model's weights."""
    for precision in config.precisions:
        yield {
            "kind": "multiply-adds in registers",
            "precision": precision,
            "operations": ops.peak_rate(precision, seconds=config.seconds),
        }
    yield {"kind": "reading shared memory", "bytes": ops.shared_rate(seconds=config.seconds)}
    for name in config.models:
        for precision in config.precisions:
            nbytes = ops.pack_mdn_rnn(make_case(name).weights, precision=precision).nbytes
            yield {
                "kind": "every multiprocessor reading the weights",
                "model": name,
                "precision": precision,
                "nbytes": nbytes,
                "bytes": ops.read_rate(nbytes, seconds=config.seconds),
            }


def _dreams(config: GpuConfig, results: Results) -> Iterator[dict[str, Any]]:
    """Steps per second for every model, precision and N, beside the limits of this very run."""
    for name in config.models:
        case = make_case(name)
        for precision in config.precisions:
            errors = ours.check_dream(case, precision)
            peak = ops.peak_rate(precision)
            nbytes = ops.pack_mdn_rnn(case.weights, precision=precision).nbytes
            read = ops.read_rate(nbytes)
            for n in config.sizes:
                dream = DeviceDream(case, n, precision)
                rate = _rate(Loop(dream.run, per_count=n), config.seconds)
                group, slots = dream.chosen()
                streamed = rate.median / slots * nbytes
                yield {
                    "model": name,
                    "precision": precision,
                    "n": n,
                    "rate": rate.json(),
                    "us_per_step": 1e6 * n / rate.median,
                    "tflops": rate.median * case.flops_per_step / 1e12,
                    "of_peak": rate.median * case.flops_per_step / peak,
                    "group": group,
                    "slots": slots,
                    # If each group of blocks read all weights once a step.
                    "weights_bytes": streamed,
                    "of_read": streamed / read,
                    "largest_error": max(errors.values()),
                }


def _generations(config: GpuConfig, results: Results) -> Iterator[dict[str, Any]]:
    """Wall time of `Dream.evaluate` of a whole generation, its population on the host or not."""
    for precision in config.precisions:
        for name in config.models:
            case = make_case(name)
            dream = Dream(
                case.weights,
                case.spec,
                (case.initial_mu, case.initial_logvar),
                TEMPERATURE,
                MAX_STEPS,
                precision=precision,
                device="cuda",
                done_threshold=NEVER_DONE,
            )
            population = case.params(MEMBERS)
            yield {
                "model": name,
                "precision": precision,
                "population": "host",
                "ms": _milliseconds(dream, population, config.seconds),
            }
            yield {
                "model": name,
                "precision": precision,
                "population": "device",
                "ms": _milliseconds(dream, ops.to_device(population), config.seconds),
            }
        world = load_pretrained("take-cover")
        dream = world.dream(precision=precision, device="cuda", temperature=TEMPERATURE)
        best = world.controller.flat.detach().numpy()
        noise = np.random.default_rng(0).standard_normal((MEMBERS, best.size))
        population = (best + 0.1 * noise).astype(np.float32)
        lengths = dream.evaluate(population, ROLLOUTS, seed=0).lengths
        milliseconds = _milliseconds(dream, population, config.seconds)
        yield {
            "model": "take-cover, trained, with its ends",
            "precision": precision,
            "population": "host",
            "ms": milliseconds,
            "useful_steps": int(lengths.sum()),
            "useful_steps_per_second": 1e3 * int(lengths.sum()) / milliseconds["median"],
        }


def _rivals(config: GpuConfig, results: Results) -> Iterator[dict[str, Any]]:
    """Ours and everybody else's in turn, each checked at the N that is timed."""
    left_out: dict[str, str] = results["left_out"]
    with Libraries() as libraries:
        for name in config.models:
            case = make_case(name)
            for n in config.rival_sizes:
                for precision in config.precisions:
                    with Contest(libraries, min(2, os.cpu_count() or 1), left_out) as contest:
                        contest.add(f"ours {precision}", "ours", make_dream, case, n, precision)
                        for rival in config.rivals:
                            library, make = RIVALS[rival]
                            key = f"{rival} {precision}"
                            try:
                                contest.add(key, library, make, case, n, precision)
                            except Exception as error:
                                # An error of one rival must not lose the results of the others.
                                left_out[f"{key} {name} N={n}"] = f"{type(error).__name__}: {error}"
                        try:
                            rates = contest.rates(config.seconds)
                        except RuntimeError as error:
                            left_out[f"{name} N={n} {precision}"] = str(error)
                            continue
                    mine = rates[f"ours {precision}"].median
                    yield {
                        "model": name,
                        "n": n,
                        "precision": precision,
                        "rates": {key: rate.json() for key, rate in rates.items()},
                        "ours_over": {
                            key: mine / rate.median
                            for key, rate in rates.items()
                            if not key.startswith("ours")
                        },
                    }


def _plans(config: GpuConfig, results: Results) -> Iterator[dict[str, Any]]:
    """Every way of spreading a dream over the device, to see whether the choice is the best."""
    for name in config.models:
        case = make_case(name)
        for precision in config.precisions:
            for n in (size for size in config.sizes if size in (16, 1024, 8192)):
                chosen = DeviceDream(case, n, precision).chosen()
                for plan in PLANS:
                    dream = DeviceDream(case, n, precision, plan)
                    try:
                        dream.chosen()
                    except ValueError:
                        continue  # not on this device, or not for this model
                    loop = Loop(dream.run, per_count=n, seconds=0.05)
                    yield {
                        "model": name,
                        "precision": precision,
                        "n": n,
                        "group": plan[0],
                        "slots": plan[1],
                        "chosen": plan == chosen,
                        "rate": _rate(loop, config.seconds / 5).json(),
                    }


# --- times ------------------------------------------------------------------------------------


def _rate(loop: Loop, seconds: float) -> Rate:
    """The rates of runs of so many seconds in all, at least three."""
    loop.measure()
    rates = [loop.measure() for _ in range(3)]
    end = time.perf_counter() + seconds - 3 * loop.seconds
    while time.perf_counter() < end:
        rates.append(loop.measure())
    return Rate.of(rates)


def _milliseconds(dream: Dream, population: Any, seconds: float) -> dict[str, float]:
    """Return the time of a call until its results are on the host, ms: median, quartiles, runs."""

    def call() -> float:
        begin = time.perf_counter()
        lengths = dream.evaluate(population, ROLLOUTS, seed=0).lengths
        if isinstance(lengths, ops.DeviceArray):
            lengths.numpy()
        return 1e3 * (time.perf_counter() - begin)

    for _ in range(2):
        call()
    times = [call() for _ in range(5)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(call())
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "runs": len(times)}


# --- what is written --------------------------------------------------------------------------


def _headline(row: dict[str, Any]) -> str:
    parts = [str(row[key]) for key in ("kind", "model", "precision", "population") if key in row]
    if "n" in row:
        parts.append(f"N={row['n']:,}")
    if "group" in row:
        parts.append(f"{row['group']} x {row['slots']}")
    if "rate" in row:
        parts.append(f"{row['rate']['median'] / 1e6:,.2f} M steps/s")
    if "ms" in row:
        parts.append(f"{row['ms']['median']:.2f} ms")
    if "ours_over" in row:
        parts += [f"{times:.1f} x {name}" for name, times in row["ours_over"].items()]
    for key, unit in (("operations", "TFLOP/s"), ("bytes", "TB/s")):
        if key in row:
            parts.append(f"{row[key] / 1e12:,.2f} {unit}")
    return ", ".join(parts)


def markdown(results: Results) -> str:
    """The tables of gpu.md."""
    gpu = results["gpu"]
    lines = [
        f"# {gpu['name']}",
        "",
        f"sm_{gpu['sm']}, {gpu['processors']} multiprocessors, {gpu['memory'] / 1e9:.0f} GB; "
        f"driver {gpu['driver']}, kernels {gpu['runtime']}; {results['machine']['date']}",
    ]
    if rows := results.get("dream"):
        lines += ["", "## Dreams", ""]
        head = (
            "| model | N | precision | M steps/s | us/step | TFLOP/s | of peak | of reads | plan |"
        )
        lines += [head, "|---|---:|---|---:|---:|---:|---:|---:|---|"]
        lines += [
            f"| {r['model']} | {r['n']:,} | {r['precision']} "
            f"| **{r['rate']['median'] / 1e6:,.2f}** | {r['us_per_step']:.2f} "
            f"| {r['tflops']:.1f} | {r['of_peak']:.0%} | {r['of_read']:.0%} "
            f"| {r['group']} x {r['slots']} |"
            for r in rows
        ]
    if rows := results.get("generation"):
        lines += ["", f"## A generation of {MEMBERS} x {ROLLOUTS}, {MAX_STEPS} steps", ""]
        lines += ["| model | precision | population | ms |", "|---|---|---|---:|"]
        lines += [
            f"| {r['model']} | {r['precision']} | {r['population']} | {r['ms']['median']:.2f} |"
            for r in rows
        ]
    if rows := results.get("rivals"):
        lines += ["", "## Against others on the same device", ""]
        lines += ["| model | N | precision | who | M steps/s | ours / theirs |"]
        lines += ["|---|---:|---|---|---:|---:|"]
        for r in rows:
            for name, rate in r["rates"].items():
                times = r["ours_over"].get(name)
                lines.append(
                    f"| {r['model']} | {r['n']:,} | {r['precision']} | {name} "
                    f"| {rate['median'] / 1e6:,.2f} | {f'{times:.1f}' if times else ''} |"
                )
    if rows := results.get("limits"):
        lines += ["", "## Limits, measured in the same run", ""]
        lines += [f"- {_headline(r)}" for r in rows]
    if rows := results.get("plans"):
        lines += ["", "## Plans", "", "| model | N | precision | plan | M steps/s |"]
        lines += ["|---|---:|---|---|---:|"]
        lines += [
            f"| {r['model']} | {r['n']:,} | {r['precision']} | {r['group']} x {r['slots']}"
            f"{' (chosen)' if r['chosen'] else ''} | {r['rate']['median'] / 1e6:,.2f} |"
            for r in rows
        ]
    lines += ["", "## Kernels", "", "| kernel | registers | spilled bytes |", "|---|---:|---:|"]
    lines += [
        f"| {k['name']} | {k['registers']} | {k['local_bytes']} |" for k in results["kernels"]
    ]
    if results["left_out"]:
        lines += ["", "## Left out", ""]
        lines += [f"- {name}: {why}" for name, why in results["left_out"].items()]
    return "\n".join(lines) + "\n"

"""Run the sections; write bench.json, bench.md and the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.output.figures import draw_growth, draw_throughput
from worldmodels_fast.bench.output.tables import Results, markdown
from worldmodels_fast.bench.protocol import machine
from worldmodels_fast.bench.protocol.processes import Libraries
from worldmodels_fast.bench.sections import dreams, growth, limits, single_ops
from worldmodels_fast.utils.files import write_json, write_text
from worldmodels_fast.utils.progress import StageProgress, console

Section = Callable[[BenchConfig, Libraries, dict[str, str]], Iterator[dict[str, Any]]]

SECTIONS: dict[str, tuple[Section, Callable[[BenchConfig], list[Any]]]] = {
    "dream": (dreams.run_dreams, dreams.cells),
    "limits": (limits.run_limits, limits.cells),
    "growth": (growth.run_growth, growth.cells),
    "ops": (single_ops.run_ops, single_ops.cells),
}
"""By section: the function that does it, and the one that lists its comparisons."""


def bench(config: BenchConfig) -> Results:
    """Run the sections of `BenchConfig`; print the tables; return the content of `bench.json`.

    Raises:
        ValueError: a setting out of range, or no CUDA device to measure.
        RuntimeError: a contestant's answer is wrong, or a process died.
    """
    if config.device == "cuda":
        from worldmodels_fast.bench.sections import gpu

        return gpu.bench(gpu.GpuConfig(config.out, config.models, seconds=config.seconds))
    config.check()
    config.out.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.asdict(config) | {"out": str(config.out)}
    left_out: dict[str, str] = {}
    results: Results = {
        "machine": machine.describe_machine(),
        "config": settings,
        "left_out": left_out,
    }
    with Libraries() as libraries:
        for section in (name for name in SECTIONS if name in config.only):
            run, cells = SECTIONS[section]
            done: list[dict[str, Any]] = []
            with StageProgress(f"bench {section}", len(cells(config)), "comparisons") as progress:
                for row in run(config, libraries, left_out):
                    done.append(row)
                    progress.update(len(done), _headline(section, row))
            results[section] = done
            results["machine"]["load_after"] = machine.load()
            _write(results, config)  # after each: a later one may be interrupted
    console.print(f"\n{markdown(results)}")
    console.print(f"written to {config.out}")
    return results


def _write(results: Results, config: BenchConfig) -> None:
    write_json(config.out / "bench.json", results)
    write_text(config.out / "bench.md", markdown(results))
    if "dream" in results:
        draw_throughput(results["dream"], config.threads, config.out / "bench.png")
    if "growth" in results:
        draw_growth(results["growth"], config.out / "growth.png")


def _headline(section: str, row: dict[str, Any]) -> str:
    """Return one line about a comparison that is done."""
    if section == "dream":
        ours = ", ".join(
            f"{precision} {row['rates'][f'ours {precision}']['median']:,.0f} steps/s"
            for precision in row["ours"]
        )
        return f"{row['model']} N={row['n']:,}: {ours}"
    if section == "ops":
        return f"{row['op']} {row['model']} N={row['n']:,}"
    return str(row["kind"])

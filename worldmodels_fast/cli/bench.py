"""`worldmodels-fast bench`: the kernels beside their rivals."""

from __future__ import annotations

import tyro

from worldmodels_fast.bench.command import bench
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.cli.usage import PROGRAM


def command(args: list[str]) -> None:
    """Time the kernels beside their rivals, each checked first (tables and figures)."""
    bench(tyro.cli(BenchConfig, args=args, prog=f"{PROGRAM} bench"))

"""`worldmodels-fast sweep-temperature`: the temperature table of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels_fast.cli.stage import folder_and_settings
from worldmodels_fast.cli.usage import (
    PROGRAM,
    STAGES,
    exit_with_usage,
    lacks_target,
    recipes_help,
)
from worldmodels_fast.experiments.config import RunConfig
from worldmodels_fast.experiments.pipeline import open_run, stage_sweep
from worldmodels_fast.experiments.recipes.registry import RECIPES


@dataclass(frozen=True)
class SweepOptions:
    """The rows of the temperature table that are done now.

    Attributes:
        settings: everything that decides the run.
        taus: temperatures; none for the run's own, or if it has none the paper's five.
    """

    settings: Annotated[RunConfig, tyro.conf.arg(name="")]
    taus: tuple[float, ...] = ()


def command(args: list[str]) -> None:
    """Evolve C at several temperatures; score each in dream and game."""
    name = f"{PROGRAM} sweep-temperature"
    if lacks_target(args):
        exit_with_usage(
            f"{name} FOLDER [RECIPE] [--taus 0.1 0.5 1.0 1.15 1.3] [settings]\n"
            f"       {name} RECIPE ...      in runs/RECIPE\n\n{STAGES['sweep-temperature']}\n\n"
            "FOLDER is a run's; stages before the evolution that are missing are done first. A "
            f"killed sweep goes on where it was.\n\n{recipes_help()}",
            args,
        )
    if args[0] in RECIPES and not Path(args[0]).is_dir():
        args = [str(Path("runs") / args[0]), *args]
    folder, settings, rest = folder_and_settings(args)
    options = tyro.cli(
        SweepOptions, default=SweepOptions(settings), args=rest, prog=f"{name} {folder}"
    )
    stage_sweep(open_run(folder, options.settings), options.taus)

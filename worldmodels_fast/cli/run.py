"""`worldmodels-fast run`: every stage of a recipe that is not finished."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels_fast.cli.usage import PROGRAM, exit_with_usage, lacks_target, recipes_help
from worldmodels_fast.experiments.config import RunConfig
from worldmodels_fast.experiments.pipeline import adopt, open_run, run_all
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.utils.progress import console


@dataclass(frozen=True)
class RunOptions:
    """A run's folder and settings.

    Attributes:
        folder: the run's folder.
        settings: everything that decides the run.
        base: another run's folder. Stages that it has finished and that would be the same here are
            taken from it; an ablation has its other settings, and a further round goes on from its
            world.
    """

    folder: Path
    settings: Annotated[RunConfig, tyro.conf.arg(name="")]
    base: Annotated[Path | None, tyro.conf.arg(name="from")] = None


def command(args: list[str]) -> None:
    """Do every stage of a recipe that is not finished: run RECIPE [--from RUN] [settings]."""
    if lacks_target(args):
        exit_with_usage(
            f"{PROGRAM} run RECIPE [--folder DIR] [--from RUN] [settings]\n\n{recipes_help()}",
            args,
        )
    base = _base(args[1:])
    recipe = make_recipe(args[0], base.config if base else None)
    if base is not None and recipe.round.base:
        further = dataclasses.replace(recipe.round, base=str(base.folder))
        recipe = dataclasses.replace(recipe, round=further)
    options = tyro.cli(
        RunOptions,
        default=RunOptions(Path("runs") / recipe.recipe, recipe),
        args=args[1:],
        prog=f"{PROGRAM} run {recipe.recipe}",
        description=RECIPES[args[0]].__doc__,
    )
    run = open_run(options.folder, options.settings)
    if base is not None and not options.settings.round.base:
        taken = adopt(run, base)
        console.print(
            f"from {base.folder}: {', '.join(taken) or 'nothing that would be the same here'}"
        )
    run_all(run)


def _base(args: list[str]) -> Run | None:
    """Return the run that `--from` names: the other settings' defaults depend on it."""
    for i, arg in enumerate(args):
        if arg == "--from" and i + 1 < len(args):
            return Run.load(Path(args[i + 1]))
        if arg.startswith("--from="):
            return Run.load(Path(arg.removeprefix("--from=")))
    return None

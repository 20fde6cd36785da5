"""`worldmodels-fast STAGE FOLDER [RECIPE] [settings]`: one stage of a run."""

from __future__ import annotations

from pathlib import Path

import tyro

from worldmodels_fast.cli.usage import (
    PROGRAM,
    STAGES,
    did_you_mean,
    exit_with_usage,
    lacks_target,
    recipes_help,
)
from worldmodels_fast.experiments.config import RunConfig, load_config
from worldmodels_fast.experiments.pipeline import open_run, run_stage
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.world.pretrained import pretrained_names

TAKE_WORLDS = ("evaluate", "fidelity", "quality")
"""Stages whose command also takes a finished world in FOLDER's place."""


def command(stage: str, args: list[str], options: str = "") -> None:
    """Run one stage of a run, unless it is finished.

    Args:
        stage: its name.
        args: FOLDER [RECIPE] [settings].
        options: the usage's lines on options that the command has taken out of `args`.
    """
    if lacks_target(args):
        world = f" Or a world: {_worlds()}, or its folder." if stage in TAKE_WORLDS else ""
        exit_with_usage(
            f"{PROGRAM} {stage} FOLDER [RECIPE] [settings]\n\n{STAGES[stage]}\n\n"
            f"FOLDER is a run's; a new one needs a recipe.{world}{options}\n\n{recipes_help()}",
            args,
        )
    run_stage(stage, open_stage_run(stage, args))


def open_stage_run(stage: str, args: list[str]) -> Run:
    """Return the run that FOLDER [RECIPE] [settings] describe, its settings written.

    Raises:
        ValueError: see `folder_and_settings` and `StageEngine.open_run`.
    """
    world = f"; or name a world ({_worlds()})" if stage in TAKE_WORLDS else ""
    folder, settings, rest = folder_and_settings(args, world)
    settings = tyro.cli(RunConfig, default=settings, args=rest, prog=f"{PROGRAM} {stage} {folder}")
    return open_run(folder, settings)


def folder_and_settings(args: list[str], hint: str = "") -> tuple[Path, RunConfig, list[str]]:
    """Take FOLDER [RECIPE] from the front: the folder, its run's settings, the other arguments.

    Args:
        args: of the command.
        hint: ends the message if there is neither a run nor a recipe.

    Raises:
        ValueError: a folder without a run and no recipe to begin one, or a run of another recipe.
    """
    folder, rest = Path(args[0]), args[1:]
    recipe = make_recipe(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    saved = folder / "config.json"
    if saved.is_file():
        settings = load_config(saved)
        if recipe is not None and recipe.recipe != settings.recipe:
            raise ValueError(
                f"{folder} is a run of {settings.recipe}, not of {recipe.recipe}; leave the "
                "recipe out or use another folder"
            )
        return folder, settings, rest
    if recipe is None:
        meant = did_you_mean(args[0], pretrained_names()) if hint else ""
        raise ValueError(
            f"{folder}: no run in here yet; {meant}name a recipe to begin one "
            f"({', '.join(RECIPES)}){hint}"
        )
    return folder, recipe, rest


def is_world(name_or_folder: str) -> bool:
    """Return whether this names a finished world, bundled or in a folder."""
    # A run's own folder has no weights by this name; a world's always has.
    weights = Path(name_or_folder) / "initial_latents.safetensors"
    return name_or_folder in pretrained_names() or weights.is_file()


def _worlds() -> str:
    return ", ".join(pretrained_names())

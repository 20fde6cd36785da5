"""The command line: `worldmodels-fast COMMAND ...`."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from worldmodels_fast import __version__
from worldmodels_fast.cli import doctor
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.finished_world import ScoreConfig, compare_world, score_world
from worldmodels_fast.experiments.config import RunConfig, load_config
from worldmodels_fast.experiments.demo import DemoConfig, demo
from worldmodels_fast.experiments.pipeline import (
    STAGES,
    adopt,
    compare_run,
    open_run,
    run_all,
    run_stage,
)
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.utils.progress import console
from worldmodels_fast.world.pretrained import pretrained_names

PROGRAM = "worldmodels-fast"


@dataclass(frozen=True)
class RunOptions:
    """Where a run lies and what it does.

    Attributes:
        folder: the run's folder.
        settings: everything that decides the run.
        base: a run's folder: stages that it has finished and that would be the same here are
            taken from there; an ablation's other settings are that run's, and a further round goes
            on from its world.
    """

    folder: Path
    settings: Annotated[RunConfig, tyro.conf.arg(name="")]
    base: Annotated[Path | None, tyro.conf.arg(name="from")] = None


@dataclass(frozen=True)
class SweepOptions:
    """Which rows of the temperature table are done now.

    Attributes:
        settings: everything that decides the run.
        taus: temperatures; none for the run's own, or if it has none the paper's five.
    """

    settings: Annotated[RunConfig, tyro.conf.arg(name="")]
    taus: tuple[float, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 failed, 2 misused, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return 0
    if args[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    name, rest = args[0], args[1:]
    command = COMMANDS.get(name) or (_stage_command(name) if name in STAGES else None)
    if command is None:
        near = difflib.get_close_matches(name, [*COMMANDS, *STAGES], n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        print(f"error: no command {name!r}; {meant}{PROGRAM} --help lists them", file=sys.stderr)
        return 2
    try:
        command(rest)
    except SystemExit as stop:  # tyro has printed help or what was wrong
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, FloatingPointError, OSError) as error:
        print(f"failed: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    return 0


def _demo(args: list[str]) -> None:
    """Evolve a controller in the bundled dream, then let it play the real game (3 minutes)."""
    demo(tyro.cli(DemoConfig, args=args, prog=f"{PROGRAM} demo"))


def _bench(args: list[str]) -> None:
    """Time the kernels beside their rivals, each checked first (tables and figures)."""
    # Only here: no other command has to load what it needs.
    from worldmodels_fast.bench.command import bench
    from worldmodels_fast.bench.config import BenchConfig

    bench(tyro.cli(BenchConfig, args=args, prog=f"{PROGRAM} bench"))


def _run(args: list[str]) -> None:
    """Do every stage of a recipe that is not finished: run RECIPE [--from RUN] [settings]."""
    if not args or args[0].startswith("-"):
        _usage(
            f"{PROGRAM} run RECIPE [--folder DIR] [--from RUN] [settings]\n\n{_recipes_help()}",
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
    """The run that `--from` names; it must be known before the other settings have defaults."""
    for i, arg in enumerate(args):
        if arg == "--from" and i + 1 < len(args):
            return Run.load(Path(args[i + 1]))
        if arg.startswith("--from="):
            return Run.load(Path(arg.removeprefix("--from=")))
    return None


def _sweep(args: list[str]) -> None:
    """Evolve C at several temperatures and score each in the dream and in the game: the table."""
    from worldmodels_fast.experiments.pipeline import stage_sweep

    command = f"{PROGRAM} sweep-temperature"
    if not args or args[0].startswith("-"):
        _usage(
            f"{command} FOLDER [RECIPE] [--taus 0.1 0.5 1.0 1.15 1.3] [settings]\n"
            f"       {command} RECIPE ...      in runs/RECIPE\n\n{_summary(stage_sweep)}\n\n"
            "FOLDER is a run's; what it lacks of V and M is made first. Each temperature goes on "
            f"where it was.\n\n{_recipes_help()}",
            args,
        )
    if args[0] in RECIPES and not Path(args[0]).is_dir():
        args = [str(Path("runs") / args[0]), *args]
    folder, settings, rest = _folder_and_settings(args)
    options = tyro.cli(
        SweepOptions, default=SweepOptions(settings), args=rest, prog=f"{command} {folder}"
    )
    stage_sweep(open_run(folder, options.settings), options.taus)


def _folder_and_settings(args: list[str], hint: str = "") -> tuple[Path, RunConfig, list[str]]:
    """Take FOLDER [RECIPE] from the front: the folder, its run's settings, the other arguments.

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
        raise ValueError(
            f"{folder}: no run in here yet; name a recipe to begin one ({', '.join(RECIPES)}){hint}"
        )
    return folder, recipe, rest


def _doctor(args: list[str]) -> None:
    """Print what this machine can run, and why not."""
    if args:
        _usage(f"{PROGRAM} doctor", args)
    if not doctor.main():
        raise SystemExit(1)


def _usage(text: str, args: list[str]) -> NoReturn:
    """Print how to use a command, because `args` asks for it or is not that, and leave."""
    asked = args in (["-h"], ["--help"])
    print(f"usage: {text}", file=sys.stdout if asked else sys.stderr)
    raise SystemExit(0 if asked else 2)


def _video(args: list[str]) -> None:
    """Film the game beside dreams from the same frames, under the same actions."""
    # Only here: no other command has to load what it needs.
    from worldmodels_fast.cli.video import make_video
    from worldmodels_fast.report.video import VideoOptions

    command = f"{PROGRAM} video"
    if not args or args[0].startswith("-"):
        bundled = ", ".join(pretrained_names())
        _usage(
            f"{command} RUN_OR_WORLD [--out FILE.mp4] [--taus 0.1 1.0 1.3] [settings]\n\n"
            f"{_summary(_video)}\n\nRUN_OR_WORLD is a run's folder with a trained V and M, or a "
            f"world: {bundled}, or its folder.\n`{command} RUN_OR_WORLD --help` lists every "
            "setting.",
            args,
        )
    options = tyro.cli(VideoOptions, args=args[1:], prog=f"{command} {args[0]}")
    make_video(args[0], options)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": _demo,
    "run": _run,
    "sweep-temperature": _sweep,
    "video": _video,
    "bench": _bench,
    "doctor": _doctor,
}


DREAM_FIDELITY = "--dream-fidelity"
"""Of `evaluate`: compare dream and game instead, the evolved controller included."""


def _evaluate_world(world: str, args: list[str]) -> None:
    if DREAM_FIDELITY in args:
        _compare_world(world, [arg for arg in args if arg != DREAM_FIDELITY])
        return
    score_world(world, tyro.cli(ScoreConfig, args=args, prog=f"{PROGRAM} evaluate {world}"))


def _compare_world(world: str, args: list[str]) -> None:
    compare_world(world, tyro.cli(FidelityConfig, args=args, prog=f"{PROGRAM} fidelity {world}"))


def _measure_world(world: str, args: list[str]) -> None:
    from worldmodels_fast.evaluation.quality.finished_world import QualityOptions, measure_world

    measure_world(world, tyro.cli(QualityOptions, args=args, prog=f"{PROGRAM} quality {world}"))


WORLD_COMMANDS: dict[str, Callable[[str, list[str]], None]] = {
    "evaluate": _evaluate_world,
    "fidelity": _compare_world,
    "quality": _measure_world,
}
"""Stages that also take a finished world, bundled or in a folder, in a run's place."""


def _is_world(name_or_folder: str) -> bool:
    # A run has no weights of its own by this name; a world always has.
    weights = Path(name_or_folder) / "initial_latents.safetensors"
    return name_or_folder in pretrained_names() or weights.is_file()


def _stage_command(stage: str) -> Callable[[list[str]], None]:
    bundled = ", ".join(pretrained_names())
    or_world = f"; or name a world ({bundled})" if stage in WORLD_COMMANDS else ""
    world = f" Or a world: {bundled}, or its folder." if stage in WORLD_COMMANDS else ""

    fidelity = (
        f"\nWith {DREAM_FIDELITY} it is compared how long fixed policies and the evolved "
        "controller survive\nin the dream and in the game."
        if stage == "evaluate"
        else ""
    )

    def command(args: list[str]) -> None:
        if not args or args[0].startswith("-"):
            _usage(
                f"{PROGRAM} {stage} FOLDER [RECIPE] [settings]\n\n"
                f"{_summary(STAGES[stage].function)}\n\n"
                f"FOLDER is a run's; a new one needs a recipe.{world}{fidelity}\n\n"
                f"{_recipes_help()}",
                args,
            )
        if stage in WORLD_COMMANDS and _is_world(args[0]):
            WORLD_COMMANDS[stage](args[0], args[1:])
            return
        compare = stage == "evaluate" and DREAM_FIDELITY in args
        if compare:
            args = [arg for arg in args if arg != DREAM_FIDELITY]
        folder, settings, rest = _folder_and_settings(args, or_world)
        settings = tyro.cli(
            RunConfig, default=settings, args=rest, prog=f"{PROGRAM} {stage} {folder}"
        )
        run = open_run(folder, settings)
        if compare:
            compare_run(run)
        else:
            run_stage(stage, run)

    return command


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _recipes_help() -> str:
    rows = (f"  {name:<22} {_summary(make)}" for name, make in RECIPES.items())
    return f"recipes (`{PROGRAM} run RECIPE --help` lists every setting):\n" + "\n".join(rows)


def _help() -> str:
    commands = (f"  {name:<18} {_summary(f)}" for name, f in COMMANDS.items())
    stages = (
        f"  {name:<18} {_summary(stage.function)}"
        for name, stage in STAGES.items()
        if name not in COMMANDS
    )
    return (
        f"usage: {PROGRAM} COMMAND ...\n\nWorld Models: train V and M, evolve C in the dream, "
        "play the real game.\n\ncommands (each has --help):\n"
        + "\n".join(commands)
        + "\n\nstages of a run, each alone: STAGE FOLDER [RECIPE] [settings]\n"
        + "\n".join(stages)
        + f"\n\n{_recipes_help()}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `worldmodels-fast COMMAND ...`."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from worldmodels_fast import __version__, doctor
from worldmodels_fast.demo import DemoConfig, demo
from worldmodels_fast.pretrained import pretrained_names
from worldmodels_fast.recipes import RECIPES, FidelityConfig, RunConfig, load_config, make_recipe
from worldmodels_fast.scoring import ScoreConfig, compare_world, score_world
from worldmodels_fast.stages import STAGES, Run, run_all, run_stage

PROGRAM = "worldmodels-fast"


@dataclass(frozen=True)
class RunOptions:
    """Where a run lies and what it does.

    Attributes:
        folder: the run's folder.
        settings: everything that decides the run.
    """

    folder: Path
    settings: Annotated[RunConfig, tyro.conf.arg(name="")]


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
    """Do every stage of a recipe that is not finished: run RECIPE [--folder DIR] [settings]."""
    if not args or args[0].startswith("-"):
        _usage(f"{PROGRAM} run RECIPE [--folder DIR] [settings]\n\n{_recipes_help()}", args)
    recipe = make_recipe(args[0])
    options = tyro.cli(
        RunOptions,
        default=RunOptions(Path("runs") / recipe.recipe, recipe),
        args=args[1:],
        prog=f"{PROGRAM} run {recipe.recipe}",
        description=RECIPES[args[0]].__doc__,
    )
    run_all(Run.open(options.folder, options.settings))


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


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": _demo,
    "run": _run,
    "bench": _bench,
    "doctor": _doctor,
}


def _evaluate_world(world: str, args: list[str]) -> None:
    score_world(world, tyro.cli(ScoreConfig, args=args, prog=f"{PROGRAM} evaluate {world}"))


def _compare_world(world: str, args: list[str]) -> None:
    compare_world(world, tyro.cli(FidelityConfig, args=args, prog=f"{PROGRAM} fidelity {world}"))


WORLD_COMMANDS: dict[str, Callable[[str, list[str]], None]] = {
    "evaluate": _evaluate_world,
    "fidelity": _compare_world,
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

    def command(args: list[str]) -> None:
        if not args or args[0].startswith("-"):
            _usage(
                f"{PROGRAM} {stage} FOLDER [RECIPE] [settings]\n\n"
                f"{_summary(STAGES[stage].function)}\n\n"
                f"FOLDER is a run's; a new one needs a recipe.{world}\n\n{_recipes_help()}",
                args,
            )
        if stage in WORLD_COMMANDS and _is_world(args[0]):
            WORLD_COMMANDS[stage](args[0], args[1:])
            return
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
        elif recipe is not None:
            settings = recipe
        else:
            raise ValueError(
                f"{folder}: no run in here yet; name a recipe to begin one "
                f"({', '.join(RECIPES)}){or_world}"
            )
        settings = tyro.cli(
            RunConfig, default=settings, args=rest, prog=f"{PROGRAM} {stage} {folder}"
        )
        run_stage(stage, Run.open(folder, settings))

    return command


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _recipes_help() -> str:
    rows = (f"  {name:<18} {_summary(make)}" for name, make in RECIPES.items())
    return f"recipes (`{PROGRAM} run RECIPE --help` lists every setting):\n" + "\n".join(rows)


def _help() -> str:
    commands = (f"  {name:<18} {_summary(f)}" for name, f in COMMANDS.items())
    stages = (f"  {name:<18} {_summary(stage.function)}" for name, stage in STAGES.items())
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

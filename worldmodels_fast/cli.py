"""The command line: `worldmodels-fast COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels_fast import doctor
from worldmodels_fast.demo import DemoConfig, demo
from worldmodels_fast.progress import console
from worldmodels_fast.recipes import RECIPES, RunConfig, load_config, make_recipe
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
    name, rest = args[0], args[1:]
    command = COMMANDS.get(name) or (_stage_command(name) if name in STAGES else None)
    if command is None:
        print(f"error: no command {name!r}\n\n{_help()}", file=sys.stderr)
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
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


def _demo(args: list[str]) -> None:
    """Evolve a controller in the bundled dream, then let it play the real game (3 minutes)."""
    demo(tyro.cli(DemoConfig, args=args, prog=f"{PROGRAM} demo"))


def _run(args: list[str]) -> None:
    """Do every stage of a recipe that is not finished: run RECIPE [--folder DIR] [settings]."""
    if not args or args[0].startswith("-"):
        print(f"usage: {PROGRAM} run RECIPE [--folder DIR] [settings]\n\n{_recipes_help()}")
        raise SystemExit(0 if args in (["-h"], ["--help"]) else 2)
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
        print(f"usage: {PROGRAM} doctor")
        raise SystemExit(0 if args[0] in ("-h", "--help") else 2)
    doctor.main()


COMMANDS: dict[str, Callable[[list[str]], None]] = {"demo": _demo, "run": _run, "doctor": _doctor}


def _stage_command(stage: str) -> Callable[[list[str]], None]:
    usage = f"usage: {PROGRAM} {stage} FOLDER [RECIPE] [settings]"

    def command(args: list[str]) -> None:
        if not args or args[0].startswith("-"):
            print(
                f"{usage}\n\n{_summary(STAGES[stage].function)}\n\nFOLDER is a run's; a new one "
                f"needs a recipe.\n\n{_recipes_help()}"
            )
            raise SystemExit(0 if args in (["-h"], ["--help"]) else 2)
        folder, rest = Path(args[0]), args[1:]
        recipe = rest.pop(0) if rest and not rest[0].startswith("-") else None
        saved = folder / "config.json"
        if recipe is not None:
            default = make_recipe(recipe)
            if saved.is_file() and load_config(saved).recipe != default.recipe:
                raise ValueError(
                    f"{folder} is a run of {load_config(saved).recipe}, not of {recipe}; leave "
                    "the recipe out or use another folder"
                )
        if saved.is_file():
            default = load_config(saved)
        elif recipe is None:
            raise ValueError(
                f"{folder}: no run in here yet; name a recipe to begin one ({', '.join(RECIPES)})"
            )
        settings = tyro.cli(
            RunConfig, default=default, args=rest, prog=f"{PROGRAM} {stage} {folder}"
        )
        run_stage(stage, Run.open(folder, settings))

    return command


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _recipes_help() -> str:
    rows = (f"  {name:<18} {_summary(make)}" for name, make in RECIPES.items())
    return "recipes:\n" + "\n".join(rows)


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
    console.print()
    sys.exit(main())

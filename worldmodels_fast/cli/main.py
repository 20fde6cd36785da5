"""The command line: `worldmodels-fast COMMAND ...`.

Every command is a module of this folder with a function `command(args)`; it is imported when the
command is called, so that `--help` loads neither torch nor what another command needs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from worldmodels_fast import __version__
from worldmodels_fast.cli.usage import COMMANDS, PROGRAM, STAGES, did_you_mean, recipes_help
from worldmodels_fast.migration import renamed_option

_OWN_MODULES = ("evaluate", "fidelity", "quality", "sweep-temperature")
"""Stages whose command does more than the stage of a run; `stage` has the others'."""


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
    if name not in COMMANDS and name not in STAGES:
        meant = did_you_mean(name, [*COMMANDS, *STAGES])
        print(f"error: no command {name!r}; {meant}{PROGRAM} --help lists them", file=sys.stderr)
        return 2
    try:
        for renamed in filter(None, map(renamed_option, rest)):
            raise ValueError(renamed)
        _command(name)(rest)
    except SystemExit as stop:  # tyro has printed help or the mistake
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


def _command(name: str) -> Callable[[list[str]], Any]:
    """Import a command's module and return its function."""
    if name in COMMANDS or name in _OWN_MODULES:
        module = import_module(f"worldmodels_fast.cli.{name.replace('-', '_')}")
        function: Callable[[list[str]], Any] = module.command
        return function
    from worldmodels_fast.cli import stage

    return functools.partial(stage.command, name)


def _help() -> str:
    def rows(table: dict[str, str]) -> str:
        return "\n".join(f"  {name:<18} {line}" for name, line in table.items())

    return (
        f"usage: {PROGRAM} COMMAND ...\n\nWorld Models: train V and M, evolve C in the dream, "
        f"play the real game.\n\ncommands (each has --help):\n{rows(COMMANDS)}\n\n"
        f"stages of a run, each alone: STAGE FOLDER [RECIPE] [settings]\n{rows(STAGES)}\n\n"
        f"{recipes_help()}"
    )


if __name__ == "__main__":
    sys.exit(main())

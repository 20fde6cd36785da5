"""The names of all commands, and texts that several of them print: usage, recipes."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

PROGRAM = "worldmodels-fast"

COMMANDS = {
    "demo": "Evolve a controller in a bundled dream; score it in the real game (3 minutes).",
    "run": "Do every stage that is not finished: run RECIPE [--from RUN] [settings].",
    "video": "Film the game beside dreams from the same frames, under the same actions.",
    "bench": "Time the kernels beside their rivals, each checked first (tables and figures).",
    "doctor": "Print what this machine can run, and why not.",
}
"""Commands and their first line of help; each has a module of its name in this folder."""

STAGES = {
    "collect": "Record episodes of the game under open-loop policies.",
    "train-vae": "Train V on the frames.",
    "encode": "Encode the frames with V: mu and logvar of every frame.",
    "train-rnn": "Train M on the latents.",
    "fidelity": "Compare dream and game: how long open-loop policies survive, or their rewards.",
    "quality": "Measure V and M on held-out episodes.",
    "evolve": "Evolve C by CMA-ES, in the dream or in the game.",
    "evaluate": "Score the agent in the real game, beside the random policy.",
    "sweep-temperature": "Evolve C at several temperatures; score each in dream and game.",
    "report": "Write the run's page, report.html, and its world's model card.",
}
"""Stages of a run in their order, and their first line of help; each is a command, too."""


def lacks_target(args: list[str]) -> bool:
    """Return whether the first argument, a folder, world or recipe, is missing."""
    return not args or args[0].startswith("-")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "did you mean 'NAME'? " if one of the names is like this one, else ""."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def exit_with_usage(text: str, args: list[str]) -> NoReturn:
    """Print how a command is used and exit: status 0 if `args` asks for help, else 2."""
    asked = args in (["-h"], ["--help"])
    print(f"usage: {text}", file=sys.stdout if asked else sys.stderr)
    raise SystemExit(0 if asked else 2)


def summary(function: Callable[..., object]) -> str:
    """Return the first line of a function's docstring."""
    return (function.__doc__ or "").strip().splitlines()[0]


def recipes_help() -> str:
    """Return a line for each recipe: its name and what it is."""
    from worldmodels_fast.experiments.recipes.registry import RECIPES

    rows = (f"  {name:<24} {summary(make)}" for name, make in RECIPES.items())
    return f"recipes (`{PROGRAM} run RECIPE --help` lists every setting):\n" + "\n".join(rows)

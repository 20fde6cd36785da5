"""The command line's own help and the table of stages as Markdown."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator

from settings import first_paragraph, settings_of

from worldmodels_fast.cli.main import main as command_line
from worldmodels_fast.cli.usage import COMMANDS, PROGRAM
from worldmodels_fast.experiments.pipeline import STAGES


@contextlib.contextmanager
def plain_terminal(columns: int) -> Iterator[None]:
    """Let help be printed without colours, to lines of one length."""
    before = dict(os.environ)
    os.environ |= {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def help_text(*args: str) -> str:
    """Return what a command prints when it is asked for help."""
    out = io.StringIO()
    with plain_terminal(80), contextlib.redirect_stdout(out):
        status = command_line([*args, "--help"])
    if status != 0:
        raise RuntimeError(f"{' '.join(args)} --help: expected status 0, got {status}")
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def commands() -> str:
    """Return the help of the program and of each command."""
    lines = [f"## `{PROGRAM}`", "", "```text", help_text(), "```", ""]
    for name in dict.fromkeys((*COMMANDS, *STAGES)):
        text = help_text(name).split("\n\nrecipes (")[0]  # listed above
        lines += [f"## `{PROGRAM} {name}`", "", "```text", text, "```", ""]
    return "\n".join(lines)


def stages() -> str:
    """Return the list of stages: what each reads, writes, and goes on from after a kill."""
    lines: list[str] = []
    for name, stage in STAGES.items():
        settings = [settings_of(setting) for setting in stage.settings]
        parts = (
            ("reads the results of", stage.reads),
            ("reads the settings", settings),
            ("writes", stage.writes),
            ("to resume", stage.needs),
        )
        lines += [f"`{name}`", f": {first_paragraph(stage.function)}", ""]
        lines += [f"  - {what}: {code(names)}" for what, names in parts if names]
        lines.append("")
    return "\n".join(lines)


def code(names: Iterable[str]) -> str:
    """Return names as code, with commas between."""
    return ", ".join(f"`{name}`" for name in names)

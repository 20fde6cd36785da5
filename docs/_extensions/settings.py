"""Recipes and options as Markdown, from the dataclasses that hold them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from typing import Any

from worldmodels_fast.experiments.config import RunConfig
from worldmodels_fast.experiments.pipeline import STAGES
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe


def first_paragraph(thing: object) -> str:
    """Return the first paragraph of a docstring, as one line."""
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def before_sections(thing: object) -> str:
    """Return a docstring up to the first of Google's sections."""
    text = inspect.getdoc(thing) or ""
    return re.split(r"\n+(?:Args|Attributes|Returns|Raises|Yields):\n", text)[0]


def attribute_texts(section: type) -> dict[str, str]:
    """Return the text of each entry under "Attributes:" in a class's docstring."""
    text = inspect.getdoc(section) or ""
    if "Attributes:\n" not in text:
        return {}
    entries = re.split(r"\n    (?=\w+: )", "\n" + text.split("Attributes:\n")[1].split("\n\n")[0])
    pairs = (entry.strip().split(": ", 1) for entry in entries if entry.strip())
    return {name: re.sub(r"\s+", " ", words) for name, words in pairs}


def fields(section: type) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield name, type, default and text of each field of a dataclass."""
    types, texts = typing.get_type_hints(section), attribute_texts(section)
    for field in dataclasses.fields(section):
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = dataclasses.MISSING
        if field.name not in texts:
            raise ValueError(f"{section.__name__}.{field.name}: its docstring does not name it")
        yield field.name, types[field.name], default, texts[field.name]


def type_name(annotation: Any) -> str:
    """Return a type as it is written, without modules."""
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(json.dumps(value) for value in typing.get_args(annotation))
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    if typing.get_args(annotation):
        text = re.sub(r"Literal\[([^]]*)\]", lambda m: m[1].replace(", ", " | "), str(annotation))
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def option(path: tuple[str, ...]) -> str:
    """Return a setting as it is typed on the command line."""
    return "--" + ".".join(path).replace("_", "-")


def settings_of(stage_reads: str) -> str:
    """Return what a stage reads, a setting "section.name" or a section, as options."""
    path = tuple(stage_reads.split("."))
    section = len(path) == 1 and dataclasses.is_dataclass(typing.get_type_hints(RunConfig)[path[0]])
    return option(path) + (".*" if section else "")


def typed(value: Any) -> str:
    """Return a value as it is typed behind its option."""
    if isinstance(value, list | tuple):
        return " ".join(map(typed, value)) or "()"
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value) if value != "" else '""'


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", r"\|")


def options() -> str:
    """Return every option of a run: those at the top, then a table for each section."""
    lines = ["## The run", "", *_table(RunConfig, ())]
    for name, section, _, _ in fields(RunConfig):
        if dataclasses.is_dataclass(section):
            lines += ["", f"## `{option((name,))}.*`", "", before_sections(section), ""]
            readers = [
                stage
                for stage, facts in STAGES.items()
                if any(setting.split(".")[0] == name for setting in facts.settings)
            ]
            if readers:
                lines += [f"Read by {', '.join(f'`{stage}`' for stage in readers)}.", ""]
            lines += _table(section, (name,))
    return "\n".join(lines)


def _table(section: type, path: tuple[str, ...]) -> list[str]:
    rows = ["| option | type | default | |", "| --- | --- | --- | --- |"]
    for name, kind, default, text in fields(section):
        if dataclasses.is_dataclass(kind):
            continue
        missing = default is dataclasses.MISSING
        shown = "" if missing else f"`{typed(default)}`"
        cells = (f"`{option((*path, name))}`", f"`{type_name(kind)}`", shown, text)
        rows.append("| " + " | ".join(map(cell, cells)) + " |")
    return rows


def flat(settings: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return a configuration's settings by path; dictionaries of the user's stay whole."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in settings.items():
        section = isinstance(value, dict) and not path and name != "env_kwargs"
        found |= flat(value, (*path, name)) if section else {(*path, name): value}
    return found


def recipes() -> str:
    """Return every recipe: its docstring, what it changes of the defaults, and all settings."""
    lines: list[str] = []
    defaults = flat(dataclasses.asdict(RunConfig(recipe="")))
    for name, function in RECIPES.items():
        settings = dataclasses.asdict(make_recipe(name))
        lines += [f"## `{name}`", "", inspect.getdoc(function) or "", ""]
        lines += ["| differs from the defaults | |", "| --- | --- |"]
        for path, value in flat(settings).items():
            if value != defaults[path] and path != ("recipe",):
                lines.append(f"| `{option(path)}` | {cell(f'`{typed(value)}`')} |")
        resolved = json.dumps(settings, indent=2)
        lines += ["", "<details><summary>All settings</summary>", ""]
        lines += ["```json", resolved, "```", "", "</details>", ""]
    return "\n".join(lines)

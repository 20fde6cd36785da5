"""Directives that write parts of the reference from the package itself.

In a page, `{api} FOLDER` is the documentation of a folder's modules; `{names}` the package's own
names, `{recipes}`, `{options}`, `{stages}` and `{commands}` the tables and texts of these.
"""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import commands
import settings
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import worldmodels_fast

PACKAGE = worldmodels_fast.__name__


def modules_of(folder: str) -> list[ModuleType]:
    """Return a folder's modules, or the one module of that name: the folder itself first."""
    top = import_module(f"{PACKAGE}.{folder}")
    found = [top]
    if hasattr(top, "__path__"):
        inner = pkgutil.walk_packages(top.__path__, f"{top.__name__}.")
        names = [info.name for info in inner]
        public = [name for name in names if not any(p.startswith("_") for p in name.split("."))]
        found += [import_module(name) for name in public]
    return found


def public_names(module: ModuleType) -> list[str]:
    """Return the names that a module offers."""
    return [name for name in getattr(module, "__all__", ()) if not name.startswith("_")]


def documented_elsewhere(module: ModuleType, exported: dict[int, str]) -> list[str]:
    """Return the module's names that a folder above it exports under its own name."""
    return [name for name, value in vars(module).items() if exported.get(id(value)) == name]


def api(folder: str) -> str:
    """Return a folder's page: each module under a heading, each object once."""
    lines: list[str] = []
    exported: dict[int, str] = {}
    for module in modules_of(folder):
        names = public_names(module)
        package = hasattr(module, "__path__")
        lines += [f"## `{module.__name__.removeprefix(PACKAGE + '.')}`", "", "```{eval-rst}"]
        lines.append(f".. automodule:: {module.__name__}")
        if names or not package:
            lines.append("   :members:")
        if elsewhere := documented_elsewhere(module, exported):
            lines.append(f"   :exclude-members: {', '.join(elsewhere)}")
        lines += ["```", ""]
        if package:
            values = ((name, getattr(module, name)) for name in names)
            exported |= {
                id(value): name
                for name, value in values
                if inspect.isclass(value) or inspect.isroutine(value)
            }
    return "\n".join(lines)


def names() -> str:
    """Return the table of the package's own names, each with its home."""
    rows = ["| name | |", "| --- | --- |"]
    for name in worldmodels_fast.__all__:
        value = getattr(worldmodels_fast, name)
        if inspect.ismodule(value):
            link = f"[`wmf.{name}`](api/{name}.md)"
        else:
            link = f"{{py:obj}}`wmf.{name} <{value.__module__}.{name}>`"
        rows.append(f"| {link} | {settings.cell(settings.first_paragraph(value))} |")
    return "\n".join(rows)


class Generated(SphinxDirective):
    """A directive whose content is Markdown that a function returns for its arguments."""

    optional_arguments = 1
    function: Callable[..., str]

    def run(self) -> list[nodes.Node]:
        """Parse it in the directive's place."""
        for module in list(sys.modules.values()):
            if module.__name__.startswith(PACKAGE) and module.__file__:
                self.env.note_dependency(module.__file__)
        return self.parse_text_to_nodes(
            type(self).function(*self.arguments), allow_section_headings=True
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    for function in (
        api,
        names,
        settings.recipes,
        settings.options,
        commands.stages,
        commands.commands,
    ):
        body = {"function": staticmethod(function), "__doc__": function.__doc__}
        app.add_directive(function.__name__, type(function.__name__, (Generated,), body))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

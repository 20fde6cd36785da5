"""Docstrings as this package writes them: Google's sections, with plain sentences in them.

Two things differ from what napoleon expects. The first words of an attribute's docstring and of a
`Returns:` are not a type, which the signature has. And an indented block is literal.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

_CONFIG = Config(napoleon_use_ivar=True, napoleon_use_rtype=False, napoleon_attr_annotations=False)


class Docstring(GoogleDocstring):
    """A docstring whose results have no type in front of a colon."""

    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        lines = self._dedent(self._consume_to_next_section())
        return [("", "", lines)] if lines else []

    def _parse_attribute_docstring(self) -> list[str]:
        return list(self._consume_to_end())


def literal_blocks(lines: list[str]) -> list[str]:
    """Return the lines with `::` before each deeper block that an empty line sets apart."""
    found: list[str] = []
    for i, line in enumerate(lines):
        found.append(line)
        empty, block = [*lines[i + 1 :], "", ""][:2]
        apart = line.strip() and not empty.strip() and _indent(block) > _indent(line)
        if apart and not line.endswith("::"):
            found.append("")
            found.append(" " * _indent(line) + "::")
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, in place."""
    # A text of one letter, as in "latent_dim: Z.", is not the first item of a list.
    plain = [re.sub(r"^(\s+\w+: )(\w+\.( |$))", r"\1\\\2", line) for line in lines]
    lines[:] = Docstring(literal_blocks(plain), _CONFIG, app, what, name, thing, options).lines()


def setup(app: Sphinx) -> dict[str, bool]:
    """Use them, and call a class's attributes what they are."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Directives that write parts of the reference from the package itself."""

from __future__ import annotations

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Equations as MathML, which browsers draw by themselves: no script from elsewhere is needed."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx


def _mathml(source: str, *, block: bool) -> str:
    return str(latex2mathml.tex2mathml(source.strip(), as_block=block))


def visit_inline(writer: Any, node: nodes.math) -> None:
    """Write an equation in a line."""
    writer.body.append(_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """Write an equation of its own, which scrolls if it is wider than the page."""
    writer.body.append(f'<div class="equation">{_mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Links: of single backticks in docstrings, and of pages to folders of the repository."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).parents[2]


class NameOrCode(XRefRole):
    """A name in single backticks: a link if it is a documented object of ours, else plain code."""

    def __init__(self) -> None:
        super().__init__(innernodeclass=nodes.literal)

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: nodes.Element,
        has_explicit_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        """Look for the name where it stands first, then everywhere."""
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        refnode["refdomain"], refnode["reftype"] = "py", "obj"
        refnode["name_or_code"] = True
        return title, target


def plain_code(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Return the text alone where `NameOrCode` has found no object."""
    return content if node.get("name_or_code") else None


class RepositoryFolders(SphinxTransform):
    """A link to a folder of the repository becomes its text: the site does not hold folders."""

    default_priority = 5

    def apply(self) -> None:
        """Replace them."""
        page = Path(self.env.doc2path(self.env.docname))
        for node in list(self.document.findall(addnodes.pending_xref)):
            target = node.get("reftarget", "").split("#")[0]
            if node.get("reftype") != "myst" or not target:
                continue
            folder = (page.parent / target).resolve()
            if folder.is_dir() and folder.is_relative_to(ROOT):
                inside = folder.relative_to(ROOT).as_posix()
                text = nodes.inline("", "", *node[0].children, classes=["repository"])
                text["title"] = f"{inside}/ in the repository"
                node.replace_self(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make `NameOrCode` what single backticks mean."""
    app.add_role("name-or-code", NameOrCode())
    app.connect("missing-reference", plain_code)
    app.add_transform(RepositoryFolders)
    app.config.default_role = "name-or-code"  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

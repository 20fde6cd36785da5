"""Links: of single backticks in docstrings, and of pages to folders of the repository."""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

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


@functools.cache
def names_in(module: str) -> dict[str, str]:
    """Return the full names of what a module's source, or a folder's, imports and defines.

    Names that are imported for type checkers alone are among them: Python does not know these.
    """
    file = Path(sys.modules[module].__file__ or "")
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    found: dict[str, str] = {}
    for path in files:
        owner = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, alias.name)
            elif isinstance(node, ast.ClassDef):
                found.setdefault(node.name, f"{owner}.{node.name}")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.setdefault(node.targets[0].id, f"{owner}.{node.targets[0].id}")
    return found


def in_signature(node: addnodes.pending_xref) -> bool:
    """Return whether autodoc made it, of an annotation, and no page or docstring wrote it."""
    if node.get("refdomain") != "py" or node.get("name_or_code"):
        return False
    above = node.parent
    while above is not None and not isinstance(above, addnodes.desc):
        above = above.parent
    return above is not None


def qualify(app: Sphinx, document: nodes.document) -> None:
    """Give the names in signatures the modules that they were imported from."""
    for node in document.findall(addnodes.pending_xref):
        module = node.get("py:module")
        if in_signature(node) and module in sys.modules:
            first, dot, rest = node["reftarget"].partition(".")
            node["reftarget"] = names_in(module).get(first, first) + dot + rest
            node["refspecific"] = False


def exists(name: str) -> bool:
    """Return whether Python knows a name that is given in full, or type checkers do."""
    owner, _, last = name.split("[")[0].rpartition(".")
    if not owner:
        return hasattr(builtins, last)
    return owner not in sys.modules or hasattr(sys.modules[owner], last)


def resolve_missing(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a name that no object of ours has in full.

    A name in single backticks leads to the one object that ends in it, or is plain code. A name in
    a signature is plain text if it exists elsewhere. Whatever else is missing stays an error.
    """
    if in_signature(node):
        return content if exists(node["reftarget"]) else None
    if not node.get("name_or_code"):
        return None
    target = node["reftarget"]
    found = {
        (entry.docname, entry.node_id)
        for name, entry in env.domains.python_domain.objects.items()
        if name.endswith(f".{target}") and entry.objtype not in ("attribute", "property")
    }
    if len(found) != 1:
        return content
    (page, anchor), here = found.pop(), node.get("refdoc", env.docname)
    return make_refnode(app.builder, here, page, anchor, content, target)


class PlainBars(SphinxTransform):
    """Bars around words are bars, as in `|x|`: nothing is ever substituted here."""

    default_priority = 210  # before docutils looks for what they stand for

    def apply(self) -> None:
        """Write them as text."""
        for node in list(self.document.findall(nodes.substitution_reference)):
            node.replace_self(nodes.Text(f"|{node.astext()}|"))


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
    app.connect("doctree-read", qualify)
    app.connect("missing-reference", resolve_missing)
    app.add_transform(PlainBars)
    app.add_transform(RepositoryFolders)
    app.config.default_role = "name-or-code"  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}

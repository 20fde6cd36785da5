"""Imports between the folders of the package: floors and circles.

    python tools/layers.py            # a line per floor, and every circle; exit status 1 if wrong

The order is the list under "Layers" in CONTRIBUTING.md: a folder imports only from those above it,
also inside functions and for type checkers. Modules must form no circle either; there, imports for
type checkers do not count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "worldmodels_fast"


def layers() -> list[str]:
    """Return the folders in CONTRIBUTING.md's order, the first to be imported first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Layers")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([a-z_]+)`", section, re.M)


def modules() -> dict[str, Path]:
    """Return the package's modules by dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path], *, types: bool) -> Iterator[str]:
    """Yield the modules of the package that a file imports.

    Args:
        path: the file.
        known: see `modules`.
        types: whether imports under TYPE_CHECKING count.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module


def folder_of(module: str) -> str:
    """Return the folder, or the module at the top, that a module belongs to; "" for the package."""
    return [*module.split("."), ""][1]


def wrong_folders(order: list[str], known: dict[str, Path]) -> list[str]:
    """Return imports that go up, and folders that the list does not name."""
    top = ("", "__main__", "_core")  # the package's names, its command, the extension
    found = []
    for module, path in known.items():
        here = folder_of(module)
        if here in top:
            continue
        if here not in order:
            found.append(f"{here}: not in CONTRIBUTING.md's list of layers")
            continue
        for name in imports(path, known, types=True):
            there = folder_of(name)
            if there in order and order.index(there) > order.index(here):
                found.append(f"{module} imports {name}: {there} is below {here}")
    return sorted(set(found))


def floors(known: dict[str, Path]) -> tuple[dict[str, int], list[str]]:
    """Return the floor of each module, 0 if it imports none of ours, and the modules in circles."""
    graph = {
        module: set(imports(path, known, types=False)) & known.keys() - {module, PACKAGE}
        for module, path in known.items()
        if module != PACKAGE
    }
    floor: dict[str, int] = {}
    while ready := [m for m, used in graph.items() if m not in floor and used <= floor.keys()]:
        for module in ready:
            floor[module] = 1 + max((floor[m] for m in graph[module]), default=-1)
    return floor, sorted(graph.keys() - floor.keys())


def main() -> int:
    """Print floors and faults; return the exit status."""
    order, known = layers(), modules()
    floor, circles = floors(known)
    for folder in order:
        inside = [m for m in known if folder_of(m) == folder]
        heights = [floor[m] for m in inside if m in floor]
        span = f"floors {min(heights)} to {max(heights)}" if heights else "no floor"
        print(f"{folder:<12} {len(inside):3} modules, {span}")
    faults = wrong_folders(order, known) + [f"{module}: part of a circle" for module in circles]
    print(f"{len(floor)} modules on {1 + max(floor.values())} floors, {len(faults)} faults")
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

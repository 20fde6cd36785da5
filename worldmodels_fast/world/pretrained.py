"""Bundled worlds: folders in `worldmodels_fast/pretrained`, each with its model card."""

from __future__ import annotations

from pathlib import Path

from worldmodels_fast.world.world import World

__all__ = ["BUNDLED", "folder_of", "load_pretrained", "pretrained_names"]

BUNDLED = Path(__file__).parents[1] / "pretrained"


def pretrained_names() -> tuple[str, ...]:
    """Return the names of the bundled worlds, e.g. "take-cover"."""
    return tuple(sorted(config.parent.name for config in BUNDLED.glob("*/config.json")))


def folder_of(name_or_folder: str | Path) -> Path:
    """Return the folder of a bundled world, or the given folder.

    Raises:
        ValueError: neither a bundled world nor a world's folder.
    """
    if str(name_or_folder) in pretrained_names():
        return BUNDLED / name_or_folder
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    raise ValueError(
        f"name_or_folder: expected a bundled world ({', '.join(pretrained_names()) or 'none'}) or "
        f"the folder of a world, got {str(name_or_folder)!r}"
    )


def load_pretrained(name_or_folder: str | Path) -> World:
    """Load a bundled world by its name, or any world's folder.

    Raises:
        ValueError: neither a bundled world nor a world's folder.
    """
    return World.load(folder_of(name_or_folder))

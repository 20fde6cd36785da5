"""Shards: the unit in which episodes and latents are stored.

A shard appears whole or not at all (see `utils.files`), so a killed collection continues with the
missing shards. V and M are trained on most shards; every 20th is held out: their losses are
reported on it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

HELD_OUT_EVERY = 20
"""The last of so many shards is never trained on: losses are reported on it."""


def shard_path(folder: Path, shard: int, suffix: str = "") -> Path:
    """Return the path of shard number `shard` in `folder`."""
    return folder / f"shard-{shard:05d}{suffix}"


def finished_shards(folder: Path, suffix: str = "") -> list[int]:
    """Return the numbers of the shards that `folder` holds, sorted; none if there is no folder."""
    if not folder.is_dir():
        return []
    name = re.compile(r"shard-([0-9]+)" + re.escape(suffix))
    matches = (name.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def remove_unfinished(folder: Path) -> None:
    """Delete the unfinished shards of killed writers; no writer may be at work in `folder`."""
    for path in folder.glob("shard-*.unfinished"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def split_held_out(shards: Sequence[int]) -> tuple[list[int], list[int]]:
    """Split shard numbers into (training, held-out); with a single shard both are that one."""
    held_out = [s for s in shards if s % HELD_OUT_EVERY == HELD_OUT_EVERY - 1] or list(shards[-1:])
    training = [s for s in shards if s not in held_out] or list(shards)
    return training, held_out

"""Shards of another run, linked into this one."""

from __future__ import annotations

import os
from pathlib import Path

from worldmodels_fast import data


def take_shards(source: Path, target: Path, suffix: str = "") -> list[int]:
    """Link every shard of another run that `target` lacks; return their numbers."""
    shards = data.finished_shards(source, suffix)
    if not shards:
        raise ValueError(f"--round.base: no shards in {source}; finish that run first")
    target.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        link = data.shard_path(target, shard, suffix)
        if not link.exists():
            link.unlink(missing_ok=True)  # a link to what is no longer there
            original = data.shard_path(source, shard, suffix).resolve()
            link.symlink_to(os.path.relpath(original, target.resolve()))
    return shards

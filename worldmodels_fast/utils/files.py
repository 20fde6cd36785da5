"""Files that appear whole or not at all; JSON and JSON lines, always UTF-8."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return a log's rows, oldest first; none if there is no log.

    A kill may have left half a line at the end: that one is left out.
    """
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None if there is no such file.

    Raises:
        ValueError: it is not JSON.
    """
    if not path.is_file():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete it") from error
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(unfinished, path)

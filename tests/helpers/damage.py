"""Files that are damaged in every way that tests try."""

from collections.abc import Iterator
from pathlib import Path


def damaged(path: Path) -> Iterator[str]:
    """Damage a file in one way after another, yield the way's name, and mend it in the end."""
    whole = path.read_bytes()
    ways = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "junk": b"\x80\xffjunk\n\x00" * 50,
        "list": b"[1]",
        "null": b"null",
        "object": b"{}\n",
    }
    try:
        for name, content in ways.items():
            path.write_bytes(content)
            yield name
    finally:
        path.write_bytes(whole)

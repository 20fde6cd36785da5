"""The repository's pages and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from folders import ROOT

PYTHON = ("python", "py")
SHELL = ("sh", "bash", "shell", "console", "")
MARKS = ("slow", "parse", "continues")

PAGES = [
    path
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / folder / "README.md" for folder in ("benchmarks", "csrc", "examples")),
    )
    if path.is_file()
]


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: path from the repository's root.
        line: number of its first line.
        language: the first word behind the fence; empty for none.
        code: its lines, without the indentation of the fence.
        marks: words of a comment <!-- test: MARK ... --> right above it; see `test_pages.py`.
    """

    page: str
    line: int
    language: str
    code: str
    marks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str, languages: tuple[str, ...]) -> Iterator[Block]:
    """Yield the fenced blocks of these languages.

    Raises:
        ValueError: a mark that is none, a comment for tests above no block, a fence without an end.
    """
    lines, i = text.splitlines(), 0
    marks: tuple[str, ...] | None = None
    while i < len(lines):
        comment = re.fullmatch(r"\s*<!--\s*test:\s*(\w+)\b.*-->\s*", lines[i])
        fence = re.match(r"(\s*)(`{3,}|~{3,})\s*(\{?[\w-]*\}?)", lines[i])
        if comment:
            if comment[1] not in MARKS:
                raise ValueError(
                    f"{page}:{i + 1}: expected one of {', '.join(MARKS)}, got {comment[1]!r}"
                )
            marks = (*(marks or ()), comment[1])
        elif fence:
            indent, ticks, language = fence.groups()
            end = re.compile(rf"\s*{ticks}{ticks[0]}*\s*")
            last = next((j for j in range(i + 1, len(lines)) if end.fullmatch(lines[j])), None)
            if last is None:
                raise ValueError(f"{page}:{i + 1}: a fence without an end")
            if language in languages:
                code = "\n".join(line.removeprefix(indent) for line in lines[i + 1 : last])
                yield Block(page, i + 2, language, code + "\n", marks or ())
            elif marks and language not in PYTHON:
                raise ValueError(f"{page}:{i + 1}: a comment for tests above no Python")
            i, marks = last, None
        elif marks and lines[i].strip():
            raise ValueError(f"{page}:{i + 1}: a comment for tests above no block")
        i += 1


def blocks_of(languages: tuple[str, ...]) -> list[Block]:
    """Return the blocks of all pages."""
    return [
        block
        for path in PAGES
        for block in blocks(
            path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"), languages
        )
    ]


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each command in a block of shell, with the line that it begins in."""
    joined, begun = "", block.line
    for line, text in enumerate(block.code.splitlines(), block.line):
        begun = begun if joined else line
        joined += text.removeprefix("$ ")
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        try:
            lexer = shlex.shlex(joined, posix=True, punctuation_chars=";&|")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # no command: a block without a language may hold anything
            words = []
        for part in _cut(words):
            yield begun, part
        joined = ""


def _cut(words: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if set(word) <= set(";&|"):
            yield part
            part = []
        else:
            part.append(word)
    yield part

"""Files that appear whole or not at all; text, JSON and JSON lines, always UTF-8.

Files of a run, a world or a report are written here. The bytes go to `NAME.unfinished` in the same
folder, reach the disk, and only then take the place of `NAME`: whatever fails on the way (a full
disk, a value that is not JSON, a kill) leaves the file that was there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ".unfinished"
"""Ending of the name of a file or folder that is still being written."""


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an exception.

    A second writer of the same path, thread or process, waits until the first is done: the
    unfinished file is locked. A killed writer leaves it unlocked, and the next one uses it again.

    Args:
        path: the file to write; its folder is made if there is none, and its permissions are those
            that the umask allows.

    Yields:
        The unfinished file, open for writing; `.name` is its path, for a library that wants one.

    Raises:
        OSError: it cannot be written; the message names `path`. What was there is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished = path.with_name(path.name + UNFINISHED)
        with _locked(unfinished) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())  # the name must not reach the disk before its content
                os.replace(unfinished, path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.filename is None and error.errno is not None:  # as of a full disk
            error.filename = str(path)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open `path`, empty, for this writer alone; wait for another one to be done with it."""
    while True:
        file = open(path, "r+b", opener=_create)  # noqa: SIM115 - it must be locked first
        try:
            _lock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
        except BaseException:
            file.close()
            raise
        file.close()  # it was another writer's, who has renamed it
    try:
        file.truncate(0)
        yield file
    finally:
        try:
            _lock(file, fcntl.LOCK_UN)  # a child that was forked meanwhile holds the file open
        finally:
            file.close()


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _lock(file: BinaryIO, operation: int) -> None:
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise  # some network file systems have no locks: one writer at a time, there


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with new_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json_text(value))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a log of one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_json_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row to a log; `read_json_lines` leaves it out if a kill cuts it in half."""
    with path.open("ab") as file:
        file.write(json.dumps(row).encode() + b"\n")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write several files of one folder: all are on the disk before the first replaces an old one.

    A kill between the replacements leaves some of them new and some old; the first file of the
    mapping is replaced last, so it can say which others belong to it.
    """
    with contextlib.ExitStack() as stack:
        for name, data in files.items():
            file = stack.enter_context(new_file(folder / name))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Name a folder that takes the place of `path` when the block ends without an exception.

    Each process has a name of its own, `NAME.PID.unfinished`. A killed one leaves that folder.

    Yields:
        The unfinished folder, which the block is to make.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(unfinished, path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


NOT_THE_FILES_FAULT = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT")
    if hasattr(errno, name)
)
"""Errors of the system that say nothing about what a file holds."""


@contextlib.contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Turn an exception from a file's content into a ValueError that names the file.

    Whoever takes apart what a file holds does so in this block: a damaged file, or one of another
    kind, raises KeyError, TypeError, RuntimeError and so on, depending on its bytes.

    Args:
        path: the file that is read in the block.
        advice: ends the message: what to do about the file.

    Raises:
        ValueError: the block raised another exception. If the message names the file already, it
            is passed on.
        MemoryError, OSError: what does not come from the file's content is passed on.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        if isinstance(error, OSError) and error.errno in NOT_THE_FILES_FAULT:
            raise
        raise ValueError(
            f"{path}: damaged, or of another version ({one_line(error)}); {advice}"
        ) from error


def one_line(error: Exception) -> str:
    """Return an exception's type and message in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def json_text(value: Any) -> str:
    """Return a value as indented JSON, as `write_json` writes it."""
    return json.dumps(value, indent=1) + "\n"


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from error


def read_json(
    path: Path, advice: str = "delete the file", keys: Collection[str] = ()
) -> dict[str, Any] | None:
    """Return the JSON object that a file holds, or None if there is no such file.

    Args:
        path: the file.
        advice: ends the error's message: what to do about a damaged file.
        keys: which the object must have.

    Raises:
        ValueError: it is not a JSON object, or a key is missing.
    """
    if not path.is_file():
        return None
    return _json_object(path.read_bytes(), str(path), advice, keys)


def read_json_lines(
    path: Path, advice: str = "delete the file", keys: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return a log's rows, oldest first; none if there is no log.

    A kill may have left half a line at the end: that one is left out.

    Args:
        path: the log.
        advice: ends the error's message: what to do about a damaged file.
        keys: which each row must have.

    Raises:
        ValueError: another line is not a JSON object, or a key is missing in one.
    """
    if not path.is_file():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [
        _json_object(line, f"{path}, line {number}", advice, keys)
        for number, line in enumerate(whole.split(b"\n") if whole else (), 1)
    ]


def _json_object(content: bytes, name: str, advice: str, keys: Collection[str]) -> dict[str, Any]:
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON ({error}); {advice}") from error
    if not isinstance(value, dict):
        found = "null" if value is None else type(value).__name__
        raise ValueError(f"{name}: expected a JSON object, got {found}; {advice}")
    if missing := [key for key in keys if key not in value]:
        raise ValueError(f"{name}: expected {', '.join(missing)}, got no such key; {advice}")
    return value

"""Files appear whole or not at all."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from worldmodels_fast.utils.files import (
    append_json_line,
    new_file,
    read_json,
    read_json_lines,
    read_text,
    reading,
    write_bytes,
    write_files,
    write_json,
    write_json_lines,
    write_text,
)
from worldmodels_fast.utils.tensors import load_tensors, save_tensors


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_of_the_system_is_not_the_files_fault(tmp_path):
    with pytest.raises(PermissionError), reading(tmp_path / "x", "delete it"):
        raise PermissionError(errno.EACCES, "Permission denied")
    damaged = pytest.raises(ValueError, match=r"x: damaged, .*truncated.*; delete it")
    with damaged, reading(tmp_path / "x", "delete it"):
        raise OSError("Unable to open file: truncated file")  # as h5py says it


def test_several_files_are_on_the_disk_before_the_first_replaces_one(tmp_path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda *a: seen.append("replace") or replace(*a))
    write_files(tmp_path, {"config.json": b"{}", "a": b"1", "b": b"2"})
    assert seen[:3] == ["fsync"] * 3
    assert seen.count("replace") == 3


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "made" / "too" / "x.json"
    write_json(path, {"name": "Größe", "values": [1.5, None]})
    assert read_json(path) == {"name": "Größe", "values": [1.5, None]}
    write_text(path, "Größe\n")
    assert path.read_bytes() == "Größe\n".encode()
    assert read_text(path) == "Größe\n"
    write_bytes(path, b"short")
    assert path.read_bytes() == b"short"
    assert names(path.parent) == ["x.json"]


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
        save_tensors(tmp_path / "b", {"x": np.zeros(3)})
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640] * 2


def test_a_value_that_cannot_be_written_leaves_the_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})

    def fail_midway() -> None:
        with new_file(path) as file:
            file.write(b"half")
            file.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert read_json(path) == {"old": 1}
    assert names(tmp_path) == ["x.json"]


def test_a_full_disk_leaves_the_file_and_names_it(tmp_path):
    """The system's limit on a file's size stands for the full disk: the write itself fails."""
    path = tmp_path / "x.bin"
    write_bytes(path, b"old")
    before = (
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1][1]))
        with pytest.raises(OSError, match=r"File too large.*x.bin") as caught:
            write_bytes(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_writers_of_one_path_wait_for_one_another(tmp_path):
    path = tmp_path / "x"
    order = []

    def write(letter: str, begun: threading.Event) -> None:
        with new_file(path) as file:
            begun.set()
            order.append(letter)
            for _ in range(20):
                file.write(letter.encode())
                file.flush()
                time.sleep(0.001)
            order.append(letter)

    begun = [threading.Event() for _ in range(4)]
    threads = [
        threading.Thread(target=write, args=each) for each in zip("abcd", begun, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert order[::2] == order[1::2]  # each ends before the next begins
    assert path.read_bytes() == order[-1].encode() * 20
    assert names(tmp_path) == ["x"]


def test_a_killed_writer_is_not_waited_for(tmp_path):
    path = tmp_path / "x"
    write_bytes(path, b"old")
    code = (
        "import os, sys, pathlib\n"
        "from worldmodels_fast.utils.files import new_file\n"
        "with new_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'much longer than what comes next')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x", "x.unfinished"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x"]


def test_logs_lose_the_half_line_of_a_kill_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    write_json_lines(path, [{"step": 1}])
    append_json_line(path, {"step": 2})
    with path.open("ab") as file:
        file.write(b'{"step": 3')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    write_json_lines(path, [])
    assert read_json_lines(path) == []


@pytest.mark.parametrize("broken", [b'{"step": 2', b"null", b"[1]", b"", b"\xff\xfe", b"[" * 9999])
def test_a_broken_line_is_named(tmp_path, broken):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + broken + b'\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 2: .*delete"):
        read_json_lines(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"\xff\xfe\x00", "not JSON .*utf-8"),
        (b"null", "expected a JSON object, got null"),
        (b"[1]", "expected a JSON object, got list"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_not_a_json_object_is_named(tmp_path, content, says):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x.json: {says}"):
        read_json(path)


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 64, b"{}", b"null", "half"])
def test_damaged_tensors_are_named(tmp_path, content):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": np.arange(6.0).reshape(2, 3)[:, ::-1]}, {"format": "pt"})
    np.testing.assert_array_equal(load_tensors(path, "")["a"], [[2, 1, 0], [5, 4, 3]])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=r"x.safetensors: .*; encode again"):
        load_tensors(path, "encode again")
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none", "")

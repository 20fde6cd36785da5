"""Processes of this machine, for tests that start, stop and count some."""

import os
import subprocess
import sys
import time
from pathlib import Path

from folders import HELPERS, ROOT


def wait_for(condition, problem, seconds=60):
    """Wait until `condition()` is true; AssertionError with `problem` if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, problem
        time.sleep(0.02)


def is_running(pid):
    """Whether there is such a process, and not only its exit status."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid=None):
    """Return the ids of a process's running children (default: of this process)."""
    pids = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        pids += [int(child) for child in task.read_text(encoding="utf-8").split()]
    return [child for child in pids if is_running(child)]


def script_environment():
    """Return the environment of a process that finds the package and the tests' helpers."""
    path = [str(ROOT), str(HELPERS), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run_script(code, folder, how="file"):
    """Run Python code as a "file" in a folder, or from "stdin"; return what `subprocess.run` does.

    A script that hangs is stopped: subprocess.TimeoutExpired.
    """
    command, given = [sys.executable, "-"], code
    if how == "file":
        (folder / "script.py").write_text(code, encoding="utf-8")
        command, given = [sys.executable, "script.py"], ""
    return subprocess.run(
        command,
        input=given,
        cwd=folder,
        env=script_environment(),
        capture_output=True,
        text=True,
        timeout=100,  # less than START_SECONDS: nothing waits for that here
    )

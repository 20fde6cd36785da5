"""Workers that die, raise, and are interrupted; the functions that they run come first."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import children, is_running, script_environment, wait_for

from worldmodels_fast.utils.processes import n_workers, run_tasks
from worldmodels_fast.utils.worker_main import picklable


def square(x):
    return x * x


def threads_of_torch(_):
    import torch

    return torch.get_num_threads()


def once(folder, name):
    """Whether this is the first call with that name, by any process."""
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def troubled_once(task):
    """Task 1 is killed, 2 exits, 3 raises, each the first time only."""
    folder, x = task
    if x in (1, 2, 3) and once(folder, f"trouble-{x}"):
        if x == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if x == 2:
            os._exit(7)
        raise KeyError("lost it")
    return x * x


def killed_once_with_a_child(task):
    folder, x = task
    if x == 1 and once(folder, "killed"):
        # Holds on to what its parent has open, as a game's engine does.
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        (Path(folder) / "child").write_text(str(child.pid), encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def always_fails(x):
    if x == 1:
        raise ValueError("one is bad")
    time.sleep(0.05)
    return x


def always_killed(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    return x


class OddError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def returns_what_cannot_be_pickled(x):
    return lambda: x


def sleeps(task):
    """Leaves a file when it begins, another when it is stopped."""
    folder, x = task
    (Path(folder) / f"begun-{x}").write_text(str(os.getpid()), encoding="utf-8")
    try:
        time.sleep(60)
    finally:
        (Path(folder) / f"tidied-{x}").touch()


def test_number_of_workers():
    assert n_workers(3) == n_workers(np.int64(3)) == 3
    assert type(n_workers(np.int64(3))) is int
    assert n_workers(None) >= 1
    with pytest.raises(ValueError, match=r"workers: expected at least 1, got 0"):
        n_workers(0)
    for value in (2.5, True, "2"):
        with pytest.raises(TypeError, match=f"workers: expected an integer, got {value!r}"):
            n_workers(value)


def test_every_task_once():
    assert sorted(run_tasks(square, list(range(7)), workers=2)) == [(x, x * x) for x in range(7)]
    assert list(run_tasks(square, [], workers=2)) == []
    assert list(run_tasks(threads_of_torch, [0], workers=4)) == [(0, 1)]


def test_a_failed_task_is_done_again_and_its_end_is_named(tmp_path):
    tasks = [(str(tmp_path), x) for x in range(5)]
    with pytest.warns(RuntimeWarning, match="a worker failed") as caught:
        results = dict(run_tasks(troubled_once, tasks, workers=2))
    assert results == {task: task[1] ** 2 for task in tasks}
    messages = sorted(re.sub(r"process \d+", "process N", str(w.message)) for w in caught)
    assert messages == [  # one each: the other worker's task is not done again
        "a worker failed (KeyError: 'lost it'); doing its task again: " + repr(tasks[3]),
        "a worker failed (WorkerDied: worker process N exited with status 7 in the middle of a "
        "task); doing its task again: " + repr(tasks[2]),
        "a worker failed (WorkerDied: worker process N was killed by SIGKILL (often: out of "
        "memory)); doing its task again: " + repr(tasks[1]),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")
def test_what_a_killed_worker_had_started_ends_with_it(tmp_path):
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="SIGKILL"):
        results = list(
            run_tasks(killed_once_with_a_child, [(str(tmp_path), x) for x in range(2)], workers=1)
        )
    assert len(results) == 2
    assert time.monotonic() - began < 30
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if (
            not state.exists()
            or state.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z"
        ):
            return
        time.sleep(0.05)
    pytest.fail("the killed worker's child is still there")


@pytest.mark.filterwarnings("ignore:a worker failed")
def test_a_task_that_always_fails_is_named():
    with pytest.raises(
        RuntimeError, match="task 1 failed 3 times; last: ValueError: one is bad"
    ) as e:
        list(run_tasks(always_fails, [0, 1, 2, 3], workers=1))
    assert isinstance(e.value.__cause__, ValueError)
    assert "in always_fails" in e.value.__notes__[0]  # the traceback of the worker


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a worker failed")
def test_a_task_that_always_kills_its_worker_is_named_and_no_other():
    with pytest.raises(RuntimeError, match=r"task 1 failed 3 times; .*WorkerDied: .*SIGKILL"):
        list(run_tasks(always_killed, [0, 2, 3, 1], workers=2))


@pytest.mark.filterwarnings("ignore:a worker failed")
def test_a_result_that_cannot_be_pickled_is_named():
    with pytest.raises(RuntimeError, match="last: TypeError: the result cannot be pickled"):
        list(run_tasks(returns_what_cannot_be_pickled, [0], workers=1))


def test_an_error_that_cannot_be_pickled_keeps_its_words():
    with pytest.raises(OddError) as caught:
        raise OddError(1, 2)
    error = picklable(caught.value)
    assert str(error) == "OddError: 1 and 2"
    assert "OddError(1, 2)" in error.__notes__[0]


def test_an_abandoned_iteration_leaves_no_process(tmp_path):
    before = children()
    results = run_tasks(square, list(range(20)), workers=2)
    next(results)
    assert len(children()) == len(before) + 2
    results.close()
    assert children() == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_parent_that_is_stopped_does_not_hang_or_leave_workers(tmp_path, number):
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_processes import run_tasks, sleeps\n"
        "if __name__ == '__main__':\n"
        f"    list(run_tasks(sleeps, [({str(tmp_path)!r}, x) for x in range(3)], workers=2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    errors = tmp_path / "errors"
    with errors.open("w", encoding="utf-8") as file:
        parent = subprocess.Popen(
            [sys.executable, str(script)], env=script_environment(), stderr=file
        )
    wait_for(lambda: len(list(tmp_path.glob("begun-*"))) == 2, "the workers did not begin")
    time.sleep(0.2)
    pids = [int(path.read_text(encoding="utf-8")) for path in tmp_path.glob("begun-*")]
    began = time.monotonic()
    parent.send_signal(number)
    parent.wait(timeout=30)
    assert time.monotonic() - began < 10
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors.read_text(encoding="utf-8")
        assert errors.read_text(encoding="utf-8").count("Traceback") == 1  # the workers say nothing
        assert len(list(tmp_path.glob("tidied-*"))) == 2
        assert not any(map(is_running, pids))
    else:
        # They end when their task does; here that would take a minute.
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not any(map(is_running, pids)), "the workers are still there")
        assert len(list(tmp_path.glob("tidied-*"))) == 2

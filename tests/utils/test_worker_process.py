"""Starting a worker process, whatever happens meanwhile; scripts without a guard or a file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import children, is_running, run_script, script_environment, wait_for

from worldmodels_fast.utils import worker_process
from worldmodels_fast.utils.processes import run_tasks
from worldmodels_fast.utils.worker_process import WorkerProcess, stop_workers

LARGE = np.ones(4_000_000, np.float32)  # more than the buffer of any pipe


def echo(pipe, *first):
    pipe.send([np.shape(x) for x in first])
    while True:
        pipe.send(pipe.recv())


class Unpickled:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def fail(message):
    raise ValueError(message)


def square(x):
    return x * x


def tensor(x):
    import torch

    return torch.full((3,), x)


def killed_at_first(path):
    """Return `square` when it is unpickled, but kill the process the first time."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square


def test_arguments_and_messages_of_any_size_arrive():
    worker = WorkerProcess.start(echo, LARGE, 3)
    worker.send(LARGE)  # before it is up
    assert worker.receive() == [LARGE.shape, ()]
    np.testing.assert_array_equal(worker.receive(), LARGE)
    worker.send("again")
    assert worker.receive() == "again"
    stop_workers([worker])
    assert not is_running(worker.pid)


def test_a_worker_killed_at_its_start_is_noticed():
    began = time.monotonic()
    worker = WorkerProcess.start(echo, LARGE)
    os.kill(worker.pid, signal.SIGKILL)
    worker.send(LARGE)
    with pytest.raises(EOFError):
        worker.receive()
    assert str(worker.reap()) == (
        f"worker process {worker.pid} was killed by SIGKILL while it started (often: out of memory)"
    )
    assert time.monotonic() - began < 30


def test_a_task_whose_worker_is_killed_at_its_start_is_done_again(tmp_path):
    path = str(tmp_path / "killed")
    with pytest.warns(RuntimeWarning, match="killed by SIGKILL while it started") as caught:
        results = list(run_tasks(Unpickled(killed_at_first, path), [1, 2, 3], workers=1))
    assert sorted(results) == [(1, 1), (2, 4), (3, 9)]
    assert len(caught) == 1


def test_a_worker_that_does_not_start_in_time_is_lost(monkeypatch):
    monkeypatch.setattr(worker_process, "START_SECONDS", 1.0)
    began = time.monotonic()
    worker = WorkerProcess.start(echo, Unpickled(time.sleep, 60), LARGE)
    worker.send(LARGE)
    with pytest.raises(EOFError):
        worker.receive()
    assert str(worker.reap()) == f"worker process {worker.pid} did not start within 1 s"
    assert time.monotonic() - began < 30
    assert not is_running(worker.pid)


def test_an_error_at_the_start_is_shown_at_once(recwarn):
    before = children()
    with pytest.raises(
        RuntimeError, match="a worker process could not start: ValueError: no weights"
    ) as caught:
        list(run_tasks(Unpickled(fail, "no weights"), [0, 1], workers=2))
    assert isinstance(caught.value.__cause__, ValueError)
    assert "in fail" in caught.value.__notes__[0]  # the traceback of the worker
    assert not recwarn.list
    assert children() == before


def test_a_function_that_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match=r"top-level function.*, got .*_task_loop.*<lambda>"):
        list(run_tasks(lambda x: x, [0], workers=1))


def test_tensors_are_sent_by_value():
    ((_, result),) = run_tasks(tensor, [2.5], workers=1)
    assert result.tolist() == [2.5] * 3


def test_at_exit_workers_are_stopped(tmp_path):
    code = (
        "import sys, time\n"
        "from processes import children\n"
        "from worldmodels_fast.utils.worker_process import WorkerProcess\n"
        "def wait(pipe):\n"
        "    pipe.send('up')\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    worker = WorkerProcess.start(wait)\n"
        "    assert worker.receive() == 'up'\n"
        "    print(*children())\n"
    )
    done = run_script(code, tmp_path)
    assert not done.stderr
    (pid,) = map(int, done.stdout.split())
    assert not is_running(pid)


def test_a_worker_does_not_choose_the_scripts_start_method():
    code = (
        "import multiprocessing\n"
        "from test_worker_process import echo\n"
        "from worldmodels_fast.utils.worker_process import WorkerProcess, stop_workers\n"
        "worker = WorkerProcess.start(echo)\n"
        "worker.receive()\n"
        "stop_workers([worker])\n"
        "multiprocessing.set_start_method('spawn')\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=100)


def test_a_fork_leaves_its_parents_workers_alone():
    worker = WorkerProcess.start(echo)
    assert worker.receive() == []
    child = os.fork()
    if child == 0:
        stop_workers([], [worker])
        os._exit(0)
    os.waitpid(child, 0)
    worker.send("still there")
    assert worker.receive() == "still there"
    stop_workers([worker])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=str
)
def test_a_parent_that_ends_while_workers_start_leaves_none(tmp_path, number):
    (tmp_path / "slow_module.py").write_text(
        "import pathlib, os, time\n"
        "if os.getcwd() != os.environ.get('OLD'):\n"
        "    pathlib.Path(f'importing-{os.getpid()}').touch()\n"
        "    time.sleep(2)\n"
        "def main(pipe, weights):\n"
        "    pipe.recv()\n",
        encoding="utf-8",
    )
    (tmp_path / "script.py").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # as in a terminal, not under nohup
        f"os.environ['OLD'] = {str(tmp_path)!r}\n"
        "import slow_module\n"
        "from worldmodels_fast.utils.worker_process import WorkerProcess\n"
        "del os.environ['OLD']\n"
        "workers = [WorkerProcess.start(slow_module.main, bytes(10**7)) for _ in range(2)]\n"
        "workers[0].receive()\n",
        encoding="utf-8",
    )
    with (tmp_path / "errors").open("w", encoding="utf-8") as errors:
        parent = subprocess.Popen(
            [sys.executable, "script.py"], cwd=tmp_path, env=script_environment(), stderr=errors
        )
    wait_for(lambda: len(list(tmp_path.glob("importing-*"))) == 2, "the workers did not begin")
    pids = children(parent.pid)
    assert len(pids) == 2
    parent.send_signal(number)
    parent.wait(timeout=30)
    wait_for(lambda: not any(map(is_running, pids)), "the workers are still there", 20)
    said = (tmp_path / "errors").read_text(encoding="utf-8")
    assert said.count("Traceback") == (number == signal.SIGINT)  # the workers say nothing


# --- the main script --------------------------------------------------------------------------

TASKS = "from worldmodels_fast.utils.processes import run_tasks\n"
LIBRARY = TASKS + "import operator\n"
NEGATE = "print(sorted(run_tasks(operator.neg, [1, 2], workers=2)))\n"
OWN = TASKS + "print('here')\ndef double(x):\n    return 2 * x\n"
DOUBLE = "print(sorted(run_tasks(double, [1, 2], workers=2)))\n"
GUARD = "if __name__ == '__main__':\n    "


@pytest.mark.parametrize("how", ["file", "stdin"])
@pytest.mark.parametrize("guard", [GUARD, ""], ids=["guarded", "unguarded"])
def test_a_script_that_needs_no_guard(tmp_path, how, guard):
    done = run_script(LIBRARY + guard + NEGATE, tmp_path, how)
    assert (done.stdout, done.stderr) == ("[(1, -1), (2, -2)]\n", "")


def test_a_function_of_a_guarded_script(tmp_path):
    done = run_script(OWN + GUARD + DOUBLE, tmp_path)
    assert not done.stderr
    assert done.stdout.splitlines()[-1] == "[(1, 2), (2, 4)]"
    assert done.stdout.count("here") == 3  # here and in both workers, which import the script


OBJECT = "class A:\n    pass\n"
TYPE_OF = "print([x for _, x in run_tasks(type, [A()], workers=1)])\n"


def test_a_task_of_a_class_of_the_script(tmp_path):
    done = run_script(LIBRARY + OBJECT + GUARD + TYPE_OF, tmp_path)
    assert (done.stdout, done.stderr) == ("[<class '__main__.A'>]\n", "")
    done = run_script(LIBRARY + OBJECT + TYPE_OF, tmp_path, "stdin")
    failure = "failed 3 times; last: RuntimeError: the main script cannot be imported by worker"
    assert failure in done.stderr


@pytest.mark.parametrize(
    ("guard", "how", "message"),
    [
        ("", "file", 'put that part of it under `if __name__ == "__main__":`'),
        ("", "stdin", "the main script cannot be imported by worker processes, because it came"),
        (GUARD, "stdin", "put what workers need into a module (a file)"),
    ],
)
def test_a_script_whose_function_workers_cannot_import(tmp_path, guard, how, message):
    done = run_script(OWN + guard + DOUBLE, tmp_path, how)
    assert done.returncode == 1
    beginning = "RuntimeError: a worker process could not start: "
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(beginning)]
    assert message in line

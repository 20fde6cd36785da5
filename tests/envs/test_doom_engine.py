"""Doom's engine dies, the process dies, threads and forks: nobody else is harmed, nothing is left.

What may crash or hang is tried in a process of its own.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from worldmodels_fast.envs.doom_engine import DoomEngine, EngineError
from worldmodels_fast.envs.take_cover import TakeCoverEnv

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds the engine in /proc"
)

STILL, RIGHT = np.zeros(1, np.float32), np.ones(1, np.float32)

COMMON = """
import json, os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from worldmodels_fast.envs.take_cover import TakeCoverEnv

STILL = np.zeros(1, np.float32)

def descendants(name, of=None):
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        command, rest = text[text.index("(") + 1 :].rsplit(")", 1)
        parents[int(stat.parent.name)] = (command, int(rest.split()[1]))
    found = []
    for pid, (command, parent) in parents.items():
        while parent in parents and parent != (of or os.getpid()):
            parent = parents[parent][1]
        if parent == (of or os.getpid()) and command == name:
            found.append(pid)
    return found
"""


def start(code, tmp_path, **settings):
    """Start Python with `COMMON` and this code; temporary files go into `tmp_path`."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", COMMON + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **settings,
    )


def run(code, tmp_path, timeout=300):
    """Run Python with `COMMON` and this code; return what it has printed as JSON."""
    process = start(code, tmp_path)
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    return json.loads(out)


def steps(env, number):
    """Step this often, in as many episodes as it takes."""
    for _ in range(number):
        *_, terminated, truncated, _ = env.step(STILL)
        if terminated or truncated:
            env.reset()


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


KILLS = """
delays, outcomes = json.loads({delays!r}), []

def kill_soon(delay):
    while not descendants("vizdoom"):
        time.sleep(0.001)
    (engine,) = descendants("vizdoom")
    time.sleep(delay)
    os.kill(engine, signal.SIGKILL)

for delay in delays:
    env = TakeCoverEnv()
    killer = threading.Thread(target=kill_soon, args=(delay,))
    killer.start()
    try:
        env.reset(seed=0)
        killer.join()
        for _ in range(3):
            env.step(STILL)
        outcomes.append("nothing")
    except RuntimeError as error:
        outcomes.append(str(error))
    killer.join()
    env.reset(seed=0)
    env.close()
print(json.dumps(outcomes))
"""


def kills(delays, tmp_path):
    outcomes = run(KILLS.format(delays=json.dumps(delays)), tmp_path, timeout=60 + 10 * len(delays))
    assert len(outcomes) == len(delays)
    for outcome in outcomes:
        assert outcome.startswith(("Doom's engine did not start: ", "Doom's engine stopped in tic"))
    assert list(tmp_path.iterdir()) == []
    return outcomes


def test_an_engine_killed_while_it_starts_is_an_error(tmp_path):
    outcomes = kills([0.0, 0.03], tmp_path)
    assert any("did not start" in outcome for outcome in outcomes)


@pytest.mark.slow
def test_an_engine_killed_at_any_time_is_an_error(tmp_path):
    kills([0.0, 0.01, 0.03, 0.05, 0.1, 0.2] * 10, tmp_path)


def test_a_window_without_a_display_is_an_error(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r'"human" needs a display: DISPLAY .* not set'):
        TakeCoverEnv(render_mode="human")
    monkeypatch.setenv("DISPLAY", ":987")
    env = TakeCoverEnv(render_mode="human")
    with pytest.raises(RuntimeError, match=r"Doom's engine did not start: .*SIG"):
        env.reset(seed=0)


def test_an_engine_that_cannot_start_says_why(monkeypatch):
    with pytest.raises(EngineError, match=r"FileDoesNotExistException: .*no_such"):
        DoomEngine(scenario="no_such.cfg", skill=4, resolution="160x120", visible=False)
    monkeypatch.setattr(sys, "path", [])
    env = TakeCoverEnv()
    with pytest.raises(RuntimeError, match=r"did not start: ModuleNotFoundError: .*vizdoom"):
        env.reset(seed=0)
    monkeypatch.undo()
    env.reset(seed=0)
    env.close()
    env.close()  # twice is fine


THREADS = """
def state():
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kept = [line for line in status if line.startswith(("Umask", "SigBlk", "SigIgn", "SigCgt"))]
    handlers = [str(signal.getsignal(number)) for number in signal.valid_signals()]
    return [os.getcwd(), dict(os.environ), kept, handlers]

def play():
    env = TakeCoverEnv()
    env.reset(seed=0)
    for _ in range(20):
        env.step(STILL)
    env.close()

before, seen = state(), []
threads = [threading.Thread(target=play) for _ in range(4)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    if (now := state()) != before:
        seen.append(now)
    time.sleep(0.001)
print(json.dumps([before == state(), seen[:3]]))
"""


def test_threads_keep_the_processs_folder_environment_signals_and_umask(tmp_path):
    assert run(THREADS, tmp_path) == [True, []]


BARE = """
env = TakeCoverEnv()
env.reset(seed=0)
env.step(STILL)
(engine,) = descendants("vizdoom")
files = [str(path) for path in Path("/dev/shm").glob("ViZDoom*")
         if path.name in Path(f"/proc/{engine}/maps").read_text(encoding="utf-8")]
print(json.dumps([engine, files]), flush=True)
"""

ENDS = {
    "SIGTERM": (BARE + "time.sleep(600)", signal.SIGTERM),
    "SIGHUP": (BARE + "time.sleep(600)", signal.SIGHUP),
    "SIGKILL": (BARE + "time.sleep(600)", signal.SIGKILL),
    "SIGKILL while it steps": (BARE + "while True: env.reset(); env.step(STILL)", signal.SIGKILL),
    "SIGKILL, a fork lives on": (
        BARE.replace(
            "print(", "if os.fork() == 0: os.close(1); time.sleep(60); os._exit(0)\nprint("
        )
        + "time.sleep(600)",
        signal.SIGKILL,
    ),
    "the end": (BARE, None),
    "os._exit": (BARE + "os._exit(0)", None),
}


@pytest.mark.parametrize("end", list(ENDS))
def test_nothing_is_left_of_a_process_that_ends(end, tmp_path):
    code, number = ENDS[end]
    process = start(code, tmp_path)
    engine, files = json.loads(process.stdout.readline())
    if number is not None:
        assert alive(engine)
        process.send_signal(number)
    process.communicate(timeout=30)  # nobody holds its output open
    wait_until(lambda: not alive(engine))
    wait_until(lambda: list(tmp_path.iterdir()) == [])
    assert files
    wait_until(lambda: not any(map(os.path.exists, files)))


def test_nothing_is_left_where_both_processes_are_killed(tmp_path):
    code = BARE + "helper = Path(f'/proc/{engine}/stat').read_text().rsplit(')', 1)[1].split()[1]"
    code += "\nos.kill(int(helper), signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    process = start(code, tmp_path)
    engine, files = json.loads(process.stdout.readline())
    process.communicate(timeout=30)
    wait_until(lambda: not alive(engine))
    wait_until(lambda: list(tmp_path.iterdir()) == [])
    wait_until(lambda: not any(map(os.path.exists, files)))


def test_a_killed_process_of_the_engine_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = TakeCoverEnv()
    env.reset(seed=0)
    env._engine._process._process.kill()
    with pytest.raises(RuntimeError, match=r"engine stopped in tic \d+ \(signal SIGKILL"):
        steps(env, 3)
    assert list(tmp_path.iterdir()) == []
    env.reset(seed=0)
    env.step(STILL)
    env.close()
    assert list(tmp_path.iterdir()) == []


FORK = """
env = TakeCoverEnv()
env.reset(seed=0)
engines = descendants("vizdoom")
reads, writes = os.pipe()
if os.fork() == 0:
    errors = []
    for use in (lambda: env.step(STILL), env.reset):
        try:
            use()
        except RuntimeError as error:
            errors.append(str(error))
    env.close()
    env.reset(seed=0)  # closed, it may have an engine of its own
    env.step(STILL)
    env.close()
    os.write(writes, json.dumps(errors).encode())
    os.close(writes)
    del env
    sys.exit()
os.close(writes)
errors = json.loads(os.fdopen(reads).read())
_, status = os.wait()
if os.fork() == 0:
    sys.exit()  # without any use of it
os.wait()
frames = [int(env.step(STILL)[0].sum()) for _ in range(20)]
again = TakeCoverEnv()
again.reset(seed=0)
expected = [int(again.step(STILL)[0].sum()) for _ in range(20)]
lives = engines[0] in descendants("vizdoom")
print(json.dumps([errors, status, frames == expected, lives]))
"""


def test_a_fork_neither_ends_nor_uses_the_parents_engine(tmp_path):
    errors, status, same, lives = run(FORK, tmp_path)
    assert len(errors) == 2
    for error in errors:
        assert "belongs to process" in error
        assert "make an environment of its own in each process" in error
    assert (status, same, lives) == (0, True, True)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_step_is_not_answered_later():
    env = TakeCoverEnv(skill=1)
    frames = [env.reset(seed=3)[0]] + [env.step(RIGHT)[0] for _ in range(5)]
    for delay in (0.01, 0.02, 0.03):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            steps(env, 10**6)
        timer.join()
        again = [env.reset(seed=3)[0]] + [env.step(RIGHT)[0] for _ in range(5)]
        np.testing.assert_array_equal(frames, again)
    env.close()

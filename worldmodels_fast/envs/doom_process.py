"""The process that runs Doom's engine for one environment; `doom_engine` starts it as a script.

ViZDoom's library crashes its own process if the engine dies while it starts, starts the engine in
the process's working directory, and leaves the engine running if the process is killed. So the
library runs here, in a process of its own: Python's standard library, ViZDoom, nothing else.

Requests and answers go through a socket, frames through shared memory. The process ends when the
socket ends, or when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import resource
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

REQUEST = struct.Struct("<cI")
"""A command and its number: `NEW_EPISODE` and the seed, `STEP` and the pressed buttons' bits."""

NEW_EPISODE, STEP = b"n", b"s"

ANSWER = struct.Struct("<??dI")
"""Whether the command failed, whether the player is dead, the health, the length of a text. The
text follows: the error if the command failed; to the first answer, of the start, the engine's files
in shared memory, one a line."""

BUTTONS = 2
"""MOVE_LEFT, MOVE_RIGHT: the scenario's buttons, in its order."""

_CLEAN_UP = """
read -r files
read -r closed
rm -rf -- "$1" $files
[ "$closed" ] || kill -KILL 0
"""
"""For /bin/sh: when its input ends, remove the folder "$1" and `files`; if that was not by
`_closed`, this process was killed, and the group's other processes are to be."""


def main() -> None:
    """Run the engine as the JSON settings in `sys.argv[1]` say, until the requests end."""
    settings = json.loads(sys.argv[1])
    sys.path[:] = settings["path"]
    channel, frames = settings["channel"], settings["frames"]
    for fd in (channel, frames):
        os.set_inheritable(fd, False)  # the engine must not keep the socket open
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    cleaner = _Cleaner(os.getcwd())
    busy = threading.Lock()
    threading.Thread(target=_end_with, args=(settings["parent"], busy), daemon=True).start()
    # The library puts a frame into an array of NumPy: import that while the engine starts.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    threading.Thread(target=importlib.import_module, args=("numpy",), daemon=True).start()
    try:
        game = _Game(settings, frames)
        files = _shared_memory()
    except Exception as error:
        cleaner.remove([])
        cleaner.closed()
        _answer(channel, _described(error), failed=True)
        os._exit(0)
    cleaner.remove(files)
    _answer(channel, "\n".join(files))
    while len(request := os.read(channel, REQUEST.size)) == REQUEST.size:
        with busy:
            try:
                dead, health = game.do(*REQUEST.unpack(request))
            except Exception as error:
                _answer(channel, _described(error), failed=True)
                break
        _answer(channel, dead=dead, health=health)
    game.close()
    cleaner.closed()
    os._exit(0)  # an orderly end of Python takes a while, and there is nothing to put in order


class _Game:
    """ViZDoom's game, started; its frames go into shared memory."""

    def __init__(self, settings: dict[str, Any], frames: int) -> None:
        import vizdoom

        self._health = vizdoom.GameVariable.HEALTH
        self._screen = mmap.mmap(frames, 0)
        self._game = game = vizdoom.DoomGame()
        game.load_config(str(Path(vizdoom.scenarios_path) / settings["scenario"]))
        game.set_doom_config_path(str(Path("engine.ini").absolute()))
        game.set_doom_skill(settings["skill"])
        resolution = "RES_" + settings["resolution"].upper()
        game.set_screen_resolution(getattr(vizdoom.ScreenResolution, resolution))
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(settings["visible"])
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        self._actions = [
            [bool(pressed >> button & 1) for button in range(BUTTONS)]
            for pressed in range(1 << BUTTONS)
        ]
        game.init()

    def do(self, command: bytes, number: int) -> tuple[bool, float]:
        """Carry out a request; return whether the player is dead, and his health."""
        game = self._game
        dead = False
        if command == NEW_EPISODE:
            game.set_seed(number)
            game.new_episode()
        else:
            game.make_action(self._actions[number])
            dead = bool(game.is_player_dead() or game.is_episode_finished())
        if not dead:
            self._screen[:] = game.get_state().screen_buffer.data.cast("B")
        return dead, game.get_game_variable(self._health)

    def close(self) -> None:
        self._game.close()


def _answer(
    fd: int, text: str = "", *, failed: bool = False, dead: bool = False, health: float = 0.0
) -> None:
    data = text.encode()
    with contextlib.suppress(OSError):  # nobody waits for it any more
        os.write(fd, ANSWER.pack(failed, dead, health, len(data)) + data)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _shared_memory() -> list[str]:
    """Paths of the engine's files in shared memory, which a killed process leaves."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    lines = maps.read_text(encoding="utf-8").splitlines()
    return sorted({line.split()[-1] for line in lines if "/dev/shm/ViZDoom" in line})


class _Cleaner:
    """A shell that removes the folder and ends the engine when this process has ended."""

    def __init__(self, folder: str) -> None:
        output, self._input = os.pipe()
        self._shell = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", _CLEAN_UP, "sh", folder],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output, 0)],
        )
        os.close(output)

    def remove(self, files: list[str]) -> None:
        """Name the files to be removed with the folder, once."""
        os.write(self._input, " ".join(files).encode() + b"\n")

    def closed(self) -> None:
        """Remove all; the engine has ended."""
        os.write(self._input, b"closed\n")
        os.waitpid(self._shell, 0)


def _end_with(parent: int, busy: threading.Lock) -> None:
    """End this process when the one that started it is gone; `_Cleaner` does the rest.

    The socket's end would not do: processes that the parent has forked hold it open.
    """
    while os.getppid() == parent:
        time.sleep(0.2)
    busy.acquire(timeout=5.0)
    os._exit(1)


if __name__ == "__main__":
    main()

"""Doom: Take Cover. Monsters at the far wall throw fireballs; survive by stepping left and right.

ViZDoom's own scenario, one tic per step, reward 1 per tic survived, 2,100 tics at most (paper,
section "VizDoom experiment"). The only difference from the scenario file is what the agent sees:
the top five sixths of the screen (the paper's rows 0..399 of 480, which leaves out the floor at
one's feet), area-averaged to 64x64 RGB.
"""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from PIL import Image

from worldmodels_fast.types import Frame

MAX_STEPS = 2100
"""Tics after which an episode is truncated: the paper's limit and the score's cap."""

ACTION_THRESHOLD = 1.0 / 3.0
"""Below minus this the player steps left, above it right, else he stands still (PAPER, C)."""

VISIBLE_ROWS = 400 / 480
"""Share of the screen's rows that the agent sees, from the top."""

RESOLUTIONS = ("160x120", "320x240", "640x480")

_ENGINE_SEEDS = 2**31 - 1


class TakeCoverEnv(gymnasium.Env[Frame, npt.NDArray[np.float32]]):
    """The real Take Cover through Gymnasium's API; headless unless `render_mode="human"`.

    Observation: uint8 (frame_size, frame_size, 3) RGB. Action: float32 (1,) in [-1, 1]; left
    below -1/3, right above 1/3, else nothing. Reward: 1 for each tic, the last included.
    `terminated` when the player dies, `truncated` after `max_steps` tics; the observation then is
    the last one the engine drew. `info` holds `health` and `skill`.

    The same seed gives the same game, also in another process: each episode's engine seed is
    drawn from the environment's own generator.

    Args:
        skill: Doom's difficulty, 1 to 5. The scenario's file says 4, and there a random policy
            scores as in the paper; state it with every score.
        resolution: the engine's own, "160x120", "320x240" or "640x480". Larger is slower.
        frame_size: height and width of the observation in pixels.
        max_steps: tics after which an episode is truncated.
        render_mode: None, "rgb_array" (the engine's whole screen) or "human" (Doom's window).

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the engine could not start, or died; the cause is in the message. `reset`
            starts a fresh engine.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 35}  # noqa: RUF012

    def __init__(
        self,
        skill: int = 4,
        resolution: str = "160x120",
        frame_size: int = 64,
        max_steps: int = MAX_STEPS,
        render_mode: str | None = None,
    ) -> None:
        if not isinstance(skill, int) or skill not in range(1, 6):
            raise ValueError(f"skill: expected an integer from 1 (easiest) to 5, got {skill!r}")
        if resolution not in RESOLUTIONS:
            raise ValueError(f"resolution: expected one of {RESOLUTIONS}, got {resolution!r}")
        if not isinstance(frame_size, int) or frame_size < 1:
            raise ValueError(f"frame_size: expected at least 1 pixel, got {frame_size!r}")
        if not isinstance(max_steps, int) or max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1 tic, got {max_steps!r}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode: expected None or one of {self.metadata['render_modes']}, "
                f"got {render_mode!r}"
            )
        self.skill = skill
        self.resolution = resolution
        self.frame_size = frame_size
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (frame_size, frame_size, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._game: Any = None
        self._stop_engine: Callable[[], object] | None = None
        self._screen: Frame | None = None
        self._health = 0.0
        self._steps = 0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a new episode; see `gymnasium.Env.reset`. `options` are not used."""
        super().reset(seed=seed)
        engine_seed = int(self.np_random.integers(_ENGINE_SEEDS))
        self._steps = 0
        if self._game is not None:
            try:
                self._new_episode(engine_seed)
            except Exception:
                self.close()  # it died since the last episode; a fresh one may do better
        if self._game is None:
            self._start_engine()
            try:
                self._new_episode(engine_seed)
            except Exception as error:
                raise self._engine_died(error) from error
        self._over = False
        return self._observation(), self._info()

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Play one tic; see the class for the meaning of what comes back."""
        if self._over:
            raise RuntimeError("step() after the episode's end: call reset() first")
        a = np.asarray(action, dtype=np.float32)
        if a.shape != (1,) or not np.isfinite(a[0]):
            raise ValueError(
                f"action: expected one finite number, shape (1,), got {action!r}; "
                "left below -1/3, right above 1/3"
            )
        # Buttons in the scenario's order: MOVE_LEFT, MOVE_RIGHT.
        buttons = [bool(a[0] < -ACTION_THRESHOLD), bool(a[0] > ACTION_THRESHOLD)]
        try:
            self._game.make_action(buttons)
            terminated = bool(self._game.is_player_dead() or self._game.is_episode_finished())
            self._look(terminated)
        except Exception as error:
            raise self._engine_died(error) from error
        self._steps += 1
        truncated = not terminated and self._steps >= self.max_steps
        self._over = terminated or truncated
        return self._observation(), 1.0, terminated, truncated, self._info()

    def render(self) -> Frame | None:
        """Return the engine's whole screen, uint8 (rows, columns, 3), for "rgb_array"."""
        return self._screen if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Stop the engine's process and remove its files."""
        self._game = None
        self._over = True
        if self._stop_engine is not None:
            self._stop_engine()
            self._stop_engine = None

    def _start_engine(self) -> None:
        import vizdoom

        self.close()
        # The engine writes its settings and a `_vizdoom` folder where it is started; give it a
        # folder of its own, so that neither the user's nor another instance's is touched.
        files = tempfile.TemporaryDirectory(prefix="take-cover-")
        game = vizdoom.DoomGame()
        # Also when the environment is forgotten, or Python ends: first the engine, then its files.
        self._stop_engine = weakref.finalize(self, _stop_engine, game, files)
        try:
            game.load_config(str(Path(vizdoom.scenarios_path) / "take_cover.cfg"))
            game.set_doom_config_path(str(Path(files.name) / "engine.ini"))
            game.set_doom_skill(self.skill)
            game.set_screen_resolution(
                getattr(vizdoom.ScreenResolution, "RES_" + self.resolution.upper())
            )
            game.set_screen_format(vizdoom.ScreenFormat.RGB24)
            game.set_window_visible(self.render_mode == "human")
            game.set_sound_enabled(False)
            game.set_mode(vizdoom.Mode.PLAYER)
            with contextlib.chdir(files.name):
                game.init()
        except Exception as error:
            self.close()
            raise RuntimeError(f"Doom's engine did not start: {error}") from error
        self._game = game

    def _new_episode(self, engine_seed: int) -> None:
        self._game.set_seed(engine_seed)
        self._game.new_episode()
        self._look(over=False)

    def _engine_died(self, error: Exception) -> RuntimeError:
        self.close()
        return RuntimeError(
            f"Doom's engine stopped in tic {self._steps} ({type(error).__name__}: {error}); "
            "reset() starts a new one"
        )

    def _look(self, over: bool) -> None:
        import vizdoom

        if not over:
            self._screen = self._game.get_state().screen_buffer
        self._health = float(self._game.get_game_variable(vizdoom.GameVariable.HEALTH))

    def _observation(self) -> Frame:
        assert self._screen is not None
        visible = self._screen[: round(self._screen.shape[0] * VISIBLE_ROWS)]
        size = (self.frame_size, self.frame_size)
        return np.array(Image.fromarray(visible).resize(size, Image.Resampling.BOX))

    def _info(self) -> dict[str, Any]:
        return {"health": self._health, "skill": self.skill}


def _stop_engine(game: Any, files: tempfile.TemporaryDirectory[str]) -> None:
    game.close()
    files.cleanup()

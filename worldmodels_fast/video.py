"""`worldmodels-fast video`: reality beside dreams, under the same actions, or with C in the dreams.

See `beside` for what is shown.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels_fast.agent import World
from worldmodels_fast.beside import beside, pictures_of
from worldmodels_fast.data import Frames
from worldmodels_fast.envs import card_of
from worldmodels_fast.pictures import play_one
from worldmodels_fast.pretrained import folder_of, load_pretrained, pretrained_names
from worldmodels_fast.progress import console
from worldmodels_fast.stages import Run

__all__ = ["VideoOptions", "make_video", "write_video"]

SUFFIXES = (".mp4", ".gif")

DEFAULT_POLICY = {"take-cover": "swing-40", "car-racing": "random-linear"}
"""Plays where there is no evolved controller, by environment: from wall to wall, or straight on."""


@dataclass(frozen=True)
class VideoOptions:
    """Film reality beside dreams from the same first frames, under the same actions or C's.

    Attributes:
        out: an .mp4 (needs the extra `video`) or .gif; None for dream.mp4, or dream.gif without
            the extra, in the run's folder, or here for a bundled world.
        taus: temperatures of the dreams, a picture for each.
        player: "agent", the evolved controller, or a fixed policy's name; None for the agent if
            there is one.
        own_actions: whether C acts in the dreams by itself, on what it dreams; else what was done
            in the game is repeated there. None: it does where M predicts no end (CarRacing), and
            where there is a C.
        seed: of the game and the dreams.
        warm_up: tics that M watches before it dreams.
        tics: at most so many are shown.
        fps: tics in a second; None for the game's own.
        scale: a pixel of the 64x64 becomes so many in either direction.
    """

    out: Path | None = None
    taus: tuple[float, ...] = (0.1, 1.0, 1.3)
    player: str | None = None
    own_actions: bool | None = None
    seed: int = 7
    warm_up: int = 30
    tics: int = 700
    fps: int | None = None
    scale: int = 4


def write_video(pictures: Iterable[Frames], path: Path, fps: int) -> None:
    """Write pictures, all of one even size, as an .mp4 or .gif.

    Raises:
        ValueError: another suffix, or an .mp4 without imageio-ffmpeg.
    """
    _check_suffix(path)
    if fps < 1:
        raise ValueError(f"fps: expected at least 1, got {fps}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        _write_mp4(iter(pictures), path, fps)
        return
    # A palette with dither flickers; fire and walls need few colours.
    images = (
        Image.fromarray(picture).quantize(128, dither=Image.Dither.NONE) for picture in pictures
    )
    first = next(images)
    # A GIF counts in hundredths of a second.
    duration = max(20, round(100 / fps) * 10)
    first.save(path, save_all=True, append_images=images, duration=duration, loop=0)


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"out: expected a name ending in {' or '.join(SUFFIXES)}, got {path}")
    if path.suffix == ".mp4" and not _has_ffmpeg():
        raise ValueError(
            "out: an .mp4 needs imageio-ffmpeg; pip install 'worldmodels-fast[video]', or name a "
            ".gif"
        )


def _has_ffmpeg() -> bool:
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def _write_mp4(pictures: Iterator[Frames], path: Path, fps: int) -> None:
    import imageio_ffmpeg

    first = next(pictures)
    height, width, _ = first.shape
    unfinished = path.with_suffix(".unfinished.mp4")
    writer: Any = imageio_ffmpeg.write_frames(
        str(unfinished),
        (width, height),
        fps=fps,
        quality=8,
        macro_block_size=2,  # else it would scale the picture to multiples of 16
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for picture in itertools.chain([first], pictures):
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()
    unfinished.replace(path)


def make_video(run_or_world: str, options: VideoOptions) -> Path:
    """Play the game once, dream beside it, and write the video; return its path.

    Args:
        run_or_world: a run's folder with trained V and M, a bundled world, or a world's folder.
        options: see `VideoOptions`.

    Raises:
        ValueError: no such run or world, an agent where none has evolved, or a setting out of
            range.
    """
    world, evolved, folder = _find(run_or_world)
    card = card_of(world.config)
    policy = DEFAULT_POLICY.get(world.config["environment"], "uniform")
    player = options.player or ("agent" if evolved else policy)
    own_actions = options.own_actions
    if own_actions is None:
        own_actions = evolved and not world.mdn_rnn.predicts_done
    if (player == "agent" or own_actions) and not evolved:
        raise ValueError(
            f"player: no controller has evolved in {run_or_world} yet; name a policy, for instance "
            f"{policy}"
        )
    if options.scale < 1:
        raise ValueError(f"scale: expected at least 1, got {options.scale}")
    if not options.taus:
        raise ValueError("taus: expected at least one temperature")
    out = options.out or folder / ("dream.mp4" if _has_ffmpeg() else "dream.gif")
    _check_suffix(out)
    frames, actions = play_one(
        world, seed=options.seed, policy=None if player == "agent" else player
    )
    shown = min(len(frames), options.tics)
    limit = world.config.get("env_kwargs", {}).get("max_steps", card.max_steps)
    fps = card.fps if options.fps is None else options.fps
    scene = beside(
        world,
        frames[:shown],
        actions[:shown],
        temperatures=options.taus,
        warm_up=options.warm_up,
        seed=options.seed,
        died=world.mdn_rnn.predicts_done and shown == len(frames) < limit,
        own_actions=own_actions,
    )
    # A second to look at the end.
    write_video(_held(pictures_of(scene, options.scale), fps), out, fps)
    console.print(f"video: {out}, {shown} of {len(frames)} tics played by {player}")
    for row in scene.rows[2:] if world.mdn_rnn.predicts_done else ():
        end = "not over" if row.over is None else f"over in tic {row.over}"
        console.print(f"  {row.caption}: {end}")
    return out


def _held(pictures: Iterable[Frames], n: int) -> Iterator[Frames]:
    """Yield them, and the last one n times more."""
    picture = None
    for picture in pictures:
        yield picture
    if picture is not None:
        yield from itertools.repeat(picture, n)


def _find(run_or_world: str) -> tuple[World, bool, Path]:
    """The world, whether its controller has evolved, and where its video goes."""
    folder = Path(run_or_world)
    if run_or_world in pretrained_names():
        return load_pretrained(run_or_world), True, Path()
    if (folder / "world" / "config.json").is_file():
        return World.load(folder / "world"), True, folder
    if (folder / "initial_latents.safetensors").is_file():
        return World.load(folder_of(folder)), True, folder
    return Run.load(folder).unevolved_world(), False, folder

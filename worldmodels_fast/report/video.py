"""Video files of frames."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels_fast.types import Frames
from worldmodels_fast.utils.files import new_file

SUFFIXES = (".mp4", ".gif")


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
    check_suffix(path)
    if fps < 1:
        raise ValueError(f"fps: expected at least 1, got {fps}")
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
    with new_file(path) as file:
        first.save(file, "GIF", save_all=True, append_images=images, duration=duration, loop=0)


def check_suffix(path: Path) -> None:
    """Raise ValueError unless a video can be written under this name here."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"out: expected a name ending in {' or '.join(SUFFIXES)}, got {path}")
    if path.suffix == ".mp4" and not has_ffmpeg():
        raise ValueError(
            "out: an .mp4 needs imageio-ffmpeg; pip install 'worldmodels-fast[video]', or name a "
            ".gif"
        )


def has_ffmpeg() -> bool:
    """Return whether imageio-ffmpeg, which writes .mp4, is installed."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def _write_mp4(pictures: Iterator[Frames], path: Path, fps: int) -> None:
    import imageio_ffmpeg

    first = next(pictures)
    height, width, _ = first.shape
    with new_file(path) as file:
        writer: Any = imageio_ffmpeg.write_frames(
            file.name,
            (width, height),
            fps=fps,
            quality=8,
            macro_block_size=2,  # else it would scale the picture to multiples of 16
            ffmpeg_log_level="error",
            output_params=["-f", "mp4"],
        )
        writer.send(None)
        try:
            for picture in itertools.chain([first], pictures):
                writer.send(np.ascontiguousarray(picture))
        finally:
            writer.close()


def held(pictures: Iterable[Frames], n: int) -> Iterator[Frames]:
    """Yield them, and the last one n times more."""
    picture = None
    for picture in pictures:
        yield picture
    if picture is not None:
        yield from itertools.repeat(picture, n)

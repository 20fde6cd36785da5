"""Videos: their options, and .mp4, .gif and .webp files of frames."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels_fast.envs.policies import POLICY_NAMES, make_policy
from worldmodels_fast.types import Frames
from worldmodels_fast.utils.arguments import checked_integer, checked_number
from worldmodels_fast.utils.files import new_file

SUFFIXES = (".mp4", ".gif", ".webp")


@dataclass(frozen=True)
class VideoOptions:
    """Film the game beside dreams from the same first frames, under the same actions or C's.

    Attributes:
        out: an .mp4 (needs the extra `video`), .gif or .webp; None for dream.mp4, or dream.gif
            without the extra, in the run's folder, or in the working directory for a bundled world.
        taus: temperatures of the dreams, one picture each.
        player: "agent", the evolved controller, or the name of an open-loop policy; None for the
            agent if there is one.
        own_actions: whether C acts in the dreams on the dreamt latents; else the game's actions are
            repeated there. None: C acts where there is one and M predicts no end (CarRacing).
        seed: of the game and the dreams.
        warm_up: tics that M watches before it dreams.
        first: the tic from which the video is shown.
        tics: the tic at which it ends, at most.
        fps: tics per second; None for the game's own.
        scale: width and height in the video of a pixel of the 64x64 frame.
    """

    out: Path | None = None
    taus: tuple[float, ...] = (0.1, 1.0, 1.3)
    player: str | None = None
    own_actions: bool | None = None
    seed: int = 7
    warm_up: int = 30
    first: int = 0
    tics: int = 700
    fps: int | None = None
    scale: int = 4

    def check(self) -> None:
        """Check every field.

        Raises:
            TypeError: a field of another type.
            ValueError: a field out of range; the message names the option.
        """
        if not self.taus:
            raise ValueError("--taus: expected at least one temperature, got none")
        for tau in self.taus:
            checked_number("--taus", tau, above=0)
        if self.player not in (None, "agent"):
            try:
                make_policy(self.player)
            except ValueError:
                names = ", ".join(("agent", *POLICY_NAMES))
                raise ValueError(
                    f"--player: expected one of {names}, got {self.player!r}"
                ) from None
        checked_integer("--seed", self.seed, low=0, high=2**63)
        checked_integer("--warm-up", self.warm_up, low=1)
        checked_integer("--tics", self.tics, low=2)
        if self.warm_up >= self.tics:
            raise ValueError(
                f"--warm-up: expected fewer tics than --tics, {self.tics}, got {self.warm_up}"
            )
        checked_integer("--first", self.first, low=0)
        if self.first >= self.tics:
            raise ValueError(f"--first: expected less than --tics, {self.tics}, got {self.first}")
        if self.fps is not None:
            checked_integer("--fps", self.fps, low=1)
        checked_integer("--scale", self.scale, low=1)
        if self.out is not None:
            check_suffix(self.out)


def write_video(pictures: Iterable[Frames], path: Path, fps: int) -> None:
    """Write pictures as an .mp4, .gif or .webp.

    Args:
        pictures: uint8 (height, width, 3) each, all of one size, height and width even.
        path: of the file; its folder is made if there is none.
        fps: pictures per second, from 1.

    Raises:
        ValueError: another suffix, or an .mp4 without imageio-ffmpeg.
    """
    check_suffix(path)
    if fps < 1:
        raise ValueError(f"fps: expected at least 1, got {fps}")
    if path.suffix == ".mp4":
        _write_mp4(iter(pictures), path, fps)
        return
    if path.suffix == ".webp":
        first, *others = map(Image.fromarray, pictures)
        with new_file(path) as file:
            first.save(
                file,
                "WEBP",
                save_all=True,
                append_images=others,
                duration=round(1000 / fps),
                loop=0,
                quality=75,
            )
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
    """Raise ValueError unless a video can be written to this path on this machine."""
    if path.suffix not in SUFFIXES:
        suffixes = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(f"--out: expected a name ending in {suffixes}, got {path}")
    if path.suffix == ".mp4" and not has_ffmpeg():
        raise ValueError(
            "--out: an .mp4 needs imageio-ffmpeg; pip install 'worldmodels-fast[video]', or name a "
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
    """Yield the pictures, and the last one n times more."""
    picture = None
    for picture in pictures:
        yield picture
    if picture is not None:
        yield from itertools.repeat(picture, n)

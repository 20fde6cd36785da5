"""The game and dreams side by side: the same first frames, the same actions.

M is run on the game's first tics; then the game goes on, and so do M's dreams, one for each
temperature, with the actions of the game; or C chooses the actions in the dreams, as in the paper.
A bar under each picture is M's probability that the episode ends in this tic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from worldmodels_fast import ops
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.dream.stepping import Act, DreamState
from worldmodels_fast.envs.registry import FRAME_SIZE
from worldmodels_fast.evaluation.quality.deaths import sigmoid
from worldmodels_fast.evaluation.quality.dreaming import decode, dream_on, follow
from worldmodels_fast.report.pictures import BATCH, reconstruct
from worldmodels_fast.types import Floats, Frames, Indices
from worldmodels_fast.world.world import World

__all__ = ["Row", "Scene", "beside", "pictures_of"]

_CAPTION, _BAR, _GAP = 28, 14, 4  # pixels


@dataclass(frozen=True)
class Row:
    """One of the pictures side by side, over T tics.

    Attributes:
        caption: its text.
        frames: uint8 (T, 64, 64, 3).
        chance: (T,), probability that the episode ends in this tic; None where M predicts no end.
        over: the tic in which M ended its dream; None if it never did.
    """

    caption: str
    frames: Frames
    chance: npt.NDArray[np.float64] | None
    over: int | None = None


@dataclass(frozen=True)
class Scene:
    """T tics of the game, and dreams that begin after some of them.

    Attributes:
        rows: the game, V's pictures of it, and a dream for each temperature.
        warm_up: the first tic that is dreamt.
        died: whether the game's last tic shown was its end.
    """

    rows: tuple[Row, ...]
    warm_up: int
    died: bool

    def __len__(self) -> int:
        return len(self.rows[0].frames)


def beside(
    world: World,
    frames: Frames,
    actions: Floats,
    *,
    temperatures: Sequence[float],
    warm_up: int,
    seed: int,
    died: bool = False,
    own_actions: bool = False,
) -> Scene:
    """Run M on an episode's first tics and dream the others, under the same actions.

    Args:
        world: V, M and how dreams end.
        frames: uint8 (T, 64, 64, 3), those before each action.
        actions: float32 (T, A).
        temperatures: of the dreams.
        warm_up: tics of the game before the dreams begin, from 1 to T - 1.
        seed: of the dreams' noise.
        died: whether the last action ended the episode.
        own_actions: whether C chooses the actions in the dreams; else they are the game's.

    Raises:
        ValueError: a warm_up that leaves no tic to dream.
    """
    if not 1 <= warm_up < len(frames):
        raise ValueError(f"warm_up: expected 1 to {len(frames) - 1} tics, got {warm_up}")
    dream = world.dream(temperature=1.0)
    seen, z = reconstruct(world, frames), _latents(world, frames)
    episode = _Episode(actions, np.zeros(1, np.int64), np.array([len(z)]))
    watched = follow(dream, episode, z, np.array([warm_up]))
    rows = [
        Row("the game", frames, _chance(dream, watched.logit)),
        Row("as V sees it", seen, None),
    ]
    for temperature in temperatures:
        dream = world.dream(temperature=temperature)
        dreamt = dream_on(
            dream,
            z[warm_up][None],
            watched.h,
            watched.c,
            actions[warm_up:, None],
            seed=seed,
            act=_acts(world) if own_actions else None,
        )
        # The last dreamt latent is after the last tic, of which there is no real frame.
        pictures = np.concatenate([seen[: warm_up + 1], decode(world.vae, dreamt.z[:-1, 0])])
        own = np.concatenate([watched.logit[:warm_up], dreamt.logit[:, 0]])
        ends = warm_up + np.flatnonzero(dreamt.done[:, 0])
        over = int(ends[0]) if ends.size else None
        caption = f"dream, tau {temperature:g}" + (", C acts" if own_actions else "")
        rows.append(Row(caption, pictures, _chance(dream, own), over))
    return Scene(tuple(rows), warm_up, died)


class _Episode(NamedTuple):
    """One real episode, for `follow`."""

    actions: Floats
    starts: Indices
    lengths: Indices


def _acts(world: World) -> Act:
    """Return the world's controller as one that acts in a dream."""
    spec, params = world.controller.spec, world.controller.flat.detach().numpy()[None].copy()

    def act(state: DreamState, rows: Indices) -> Floats:
        return ops.controller_forward(spec, params, state.z, state.h, state.c)

    return act


def _latents(world: World, frames: Frames) -> Floats:
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(np.ascontiguousarray(frames)), BATCH)
        mu = torch.cat([world.vae.encode(part)[0] for part in parts])
    return np.ascontiguousarray(mu.numpy())


def _chance(dream: Dream, logits: Floats) -> npt.NDArray[np.float64] | None:
    """Return the probability (T,) of an end by the dream's rule; it is 0.5 at a threshold."""
    if not dream.weights.predicts_done:
        return None
    return sigmoid((logits - dream.done_threshold) / (dream.done_temperature or 1.0))


def pictures_of(scene: Scene, scale: int = 4) -> Iterator[Frames]:
    """Yield each tic's picture, uint8 (height, width, 3), height and width even."""
    for t in range(len(scene)):
        panes = [_pane(row, t, scene, scale) for row in scene.rows]
        gap = np.full((panes[0].shape[0], _GAP, 3), 255, np.uint8)
        yield np.concatenate([part for pane in panes for part in (pane, gap)][:-1], axis=1)


def _pane(row: Row, t: int, scene: Scene, scale: int) -> Frames:
    """Return one picture with its caption above and its bar below, uint8."""
    size = FRAME_SIZE * scale
    pane = Image.new("RGB", (size, _CAPTION + size + _BAR), "white")
    large = row.frames[t].repeat(scale, axis=0).repeat(scale, axis=1)
    over = row.over is not None and t >= row.over
    if over:  # the dream goes on in grey
        large = (large // 2 + 100).astype(np.uint8)
    pane.paste(Image.fromarray(large), (0, _CAPTION))
    draw = ImageDraw.Draw(pane)
    draw.text((4, 1), row.caption, fill="black")
    second = f"tic {t}"
    if row.caption.startswith("dream"):
        second += ", the game" if t < scene.warm_up else ", dreaming"
        second += f"; over in tic {row.over}" if over else ""
    elif scene.died and t == len(scene) - 1:
        second += ", the player dies"
    draw.text((4, 13), second, fill="red" if over or "dies" in second else "gray")
    if row.chance is not None:
        top, length = _CAPTION + size + 3, round(row.chance[t] * (size - 2))
        draw.rectangle((0, top, size - 1, top + _BAR - 5), outline="gray")
        if length:
            draw.rectangle((1, top + 1, length, top + _BAR - 6), fill="red")
    return np.asarray(pane)

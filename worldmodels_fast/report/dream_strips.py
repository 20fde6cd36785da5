"""Strips of frames: a real episode, V's pictures of it, and dreams under the same actions."""

from __future__ import annotations

import numpy as np

from worldmodels_fast.report.pictures import dream_along, reconstruct, strip
from worldmodels_fast.report.side_by_side import beside
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.world.world import World

STRIP_FRAMES = 12
"""Frames in a row of a picture."""


END_TICS = 36
"""Number of an episode's last tics that are dreamt."""


WATCHED_TICS = 200
"""Number of tics that M watches before those, at most."""


PICTURE_SEED = 7
"""Seed of the agent's real episode that is drawn."""


def dream_beside_reality(world: World, frames: Frames, actions: Floats) -> tuple[Frames, str]:
    """Return a picture of the game, V's reconstruction, and dreams under the same actions.

    Args:
        world: the world.
        frames: uint8 (T, 64, 64, 3), frame t from before action t.
        actions: float32 (T, A).

    Returns:
        uint8 (height, width, 3), and a sentence that describes its rows.
    """
    stride = max(1, min(12, len(frames) // STRIP_FRAMES))
    shown = slice(0, stride * STRIP_FRAMES, stride)
    rows = [frames[shown], reconstruct(world, frames[shown])]
    ends = []
    own = float(world.dream_settings["temperature"])
    temperatures = (1.0, own) if own != 1.0 else (0.5, 1.0)
    for temperature in temperatures:
        dreamt, ended = dream_along(
            world, frames[0], actions, temperature=temperature, seed=PICTURE_SEED, shown=shown
        )
        rows.append(dreamt)
        ends.append(int(ended.argmax()) + 1 if ended.any() else None)
    n = min(len(row) for row in rows)
    said = "; ".join(
        f"at {tau:g} it " + ("never ended" if end is None else f"ended in tic {end}")
        for tau, end in zip(temperatures, ends, strict=True)
    )
    note = (
        f"Every {stride}th tic of one real episode of {len(frames)} tics, from above: the game, "
        "V's picture of the game, and M's dream from the same first frame under the same actions "
        f"at temperatures {temperatures[0]:g} and {temperatures[1]:g}"
        f"{f' ({said})' if world.mdn_rnn.predicts_done else ''}."
    )
    captions = ["the game", "as V sees it", *(f"dream, tau {tau:g}" for tau in temperatures)]
    return strip([row[:n] for row in rows], captions=captions), note


def end_beside_reality(world: World, frames: Frames, actions: Floats) -> tuple[Frames, str]:
    """Return a picture of an episode's last tics, and dreams of an M that watched those before.

    Args, returns: as `dream_beside_reality`.
    """
    dreamt = min(END_TICS, len(frames) - 1)
    first = max(0, len(frames) - dreamt - WATCHED_TICS)
    temperatures = sorted({0.5, 1.0, float(world.dream_settings["temperature"])})
    scene = beside(
        world,
        frames[first:],
        actions[first:],
        temperatures=temperatures,
        warm_up=len(frames) - dreamt - first,
        seed=PICTURE_SEED,
    )
    stride = max(1, -(-dreamt // STRIP_FRAMES))
    shown = np.arange(len(scene) - 1, scene.warm_up - 1, -stride)[::-1]
    ends = "; ".join(
        f"{row.caption}: "
        + ("not over" if row.over is None else f"over {len(scene) - 1 - row.over} tics before")
        for row in scene.rows[2:]
    )
    note = (
        f"The last {dreamt} tics of that episode, one in {stride}: M has watched the game up to "
        "there and now dreams on under the real actions"
        f"{f' ({ends})' if world.mdn_rnn.predicts_done else ''}."
    )
    captions = [row.caption for row in scene.rows]
    return strip([row.frames[shown] for row in scene.rows], captions=captions), note

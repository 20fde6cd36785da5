"""The contents of Take Cover's frames: fireballs, walls, deaths by being hit, in game and dream.

All of it is measured by colour, in frames of the game, V's pictures of them, and V's pictures of
what M dreams. Fire is the only thing whose green channel is bright; side walls are the only brown
things high above and far below the horizon. There is no red flash in this game when one is hit, and
V's pictures of a wall have no texture whose motion could be followed; so neither is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.envs.take_cover import ACTION_THRESHOLD
from worldmodels_fast.evaluation.quality.contents import Material, SeedOf, Table
from worldmodels_fast.evaluation.quality.dreaming import Dreamt, decode, dream_episodes, dream_on
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.types import Bools, Doubles, Floats, Frames, Indices
from worldmodels_fast.world.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRE = 150
"""A pixel whose green is above this is fire; floor, walls and monsters are below 120."""

BROWN = 15
"""A wall's red is above its blue by more than this; floor and ceiling are grey."""

NEAR_FIRE = 100
"""So many pixels of fire (of 4,096) are a fireball at arm's length, or one that has just burst."""

HIT_TICS = 4
"""Fire as near as that in one of so many last tics before a death explains it."""

SIZES = (1, 4, 8, 16, 32, 64, 128)
"""Lower edges of the bins of a fireball's size in pixels."""

KEPT = 0.5
"""V keeps a fireball if its picture has at least this share of its brightness above the floor."""

STRIDE = 4
"""Every so many tics are looked at where all of an episode matters."""

PERIOD = 100
"""Tics over which fire is averaged."""

PUSH_TICS = 60
"""A push to one side is looked at if it lasts at least so long: that reaches the wall."""

WATCHED_TICS = 120
PUSHES = 64
WALL_STRIDE = 3

AT_WALL = 0.75
"""Share of the half view that a side wall fills when one stands at it; the game's is 0.89."""


def fire(frames: Frames) -> Bools:
    """Return where there is fire, (N, 64, 64)."""
    burning: Bools = frames[..., 1] > FIRE
    return burning


def wall(frames: Frames) -> Doubles:
    """Return how much of the left and of the right half of the view a side wall fills, (N, 2).

    What fire hides is not counted.
    """
    rows = np.r_[2:20, 44:62]  # the far wall lies between them
    halves = frames[:, rows].reshape(len(frames), rows.size, 2, 32, 3)
    red, green, blue = np.moveaxis(halves.astype(np.int16), -1, 0)
    clear = green <= FIRE
    brown = (red - blue > BROWN) & clear
    share: Doubles = brown.sum((1, 3)) / np.maximum(1, clear.sum((1, 3)))
    return share


def blobs(mask: Bools) -> tuple[npt.NDArray[np.int32], Indices, Indices]:
    """Find connected pieces, diagonal neighbours included.

    Args:
        mask: (N, rows, columns).

    Returns:
        label (N, rows, columns), from 1 up through all pictures, 0 outside; the picture (B,) and
        the number of pixels (B,) of each piece, label 1 first.
    """
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        wide = np.pad(label, ((0, 0), (1, 1), (1, 1)))
        wide = np.maximum.reduce([wide[:, :, :-2], wide[:, :, 1:-1], wide[:, :, 2:]])
        wide = np.maximum.reduce([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]])
        wide = np.where(mask, wide, 0)
        if (wide == label).all():
            break
        label = wide
    roots, first, inverse, sizes = np.unique(
        label, return_index=True, return_inverse=True, return_counts=True
    )
    inverse = inverse.reshape(mask.shape)
    if roots.size and roots[0] == 0:
        first, sizes = first[1:], sizes[1:]
    else:
        inverse = inverse + 1
    picture = first // (mask.shape[1] * mask.shape[2])
    return inverse.astype(np.int32), picture.astype(np.int64), sizes.astype(np.int64)


def fireballs_kept(real: Frames, seen: Frames) -> list[dict[str, float]]:
    """Which fireballs are still there in V's pictures, by their size.

    Args:
        real: uint8 (N, 64, 64, 3), frames of the game.
        seen: the same frames as V sees them.

    Returns:
        for each of `SIZES` that occurs: "from" pixels, how many ("fireballs"), the share "kept",
        and the mean share of "brightness" that is left.
    """
    some = fire(real).any((1, 2))
    real, seen = real[some], seen[some]
    label, picture, size = blobs(fire(real))
    if not size.size:
        return []
    green, pictured = real[..., 1].astype(float), seen[..., 1].astype(float)
    floor = np.median(green, axis=(1, 2))[picture]
    flat = label.ravel()

    def mean(values: Doubles) -> Doubles:
        return np.bincount(flat, values.ravel(), size.size + 1)[1:] / size

    left = (mean(pictured) - floor) / (mean(green) - floor)
    rows = []
    for low, high in zip(SIZES, (*SIZES[1:], np.inf), strict=True):
        inside = (size >= low) & (size < high)
        if inside.any():
            rows.append(
                {
                    "from": low,
                    "fireballs": int(inside.sum()),
                    "kept": float((left[inside] >= KEPT).mean()),
                    "brightness": float(left[inside].mean()),
                }
            )
    return rows


def fireballs_invented(real: Frames, seen: Frames) -> float | None:
    """Share of the fireballs in V's pictures where the game has no fire within 3 pixels."""
    some = fire(seen).any((1, 2))
    if not some.any():
        return None
    label, _, size = blobs(fire(seen[some]))
    wide = np.pad(fire(real[some]), ((0, 0), (3, 3), (3, 3)))
    views = np.lib.stride_tricks.sliding_window_view(wide, (7, 7), axis=(1, 2))
    near = np.bincount(label.ravel(), views.any((-1, -2)).ravel(), size.size + 1)[1:]
    return float((near == 0).mean())


class _Fire:
    """Pixels and sizes of the fire in frames that are shown one batch after the other."""

    def __init__(self, n: int) -> None:
        self.pixels = np.zeros(n)
        self.largest = np.zeros(n)
        self.number = np.zeros(n)

    def look(self, places: Indices, frames: Frames) -> None:
        """Note what these frames hold."""
        mask = fire(frames)
        self.pixels[places] = mask.sum((1, 2))
        some = np.flatnonzero(self.pixels[places] > 0)
        _, picture, size = blobs(mask[some])
        np.maximum.at(self.largest, places[some[picture]], size)
        np.add.at(self.number, places[some[picture]], 1)

    def figures(self, tic: Indices, same: Bools) -> dict[str, Any]:
        """Averages; `tic` of their episode for each, `same` whether the next one follows it."""
        over_time = []
        for start in range(0, int(tic.max()) + 1, PERIOD):
            inside = (tic >= start) & (tic < start + PERIOD)
            if inside.sum() >= 50:  # fewer say nothing
                over_time.append(
                    {
                        "from": start,
                        "frames": int(inside.sum()),
                        "pixels": float(self.pixels[inside].mean()),
                        "fireballs": float(self.number[inside].mean()),
                    }
                )
        before, after = self.largest[:-1][same[:-1]], self.largest[1:][same[:-1]]
        small = (before >= SIZES[1]) & (before < 32)
        return {
            "frames": len(tic),
            "pixels": float(self.pixels.mean()),
            "fireballs": float(self.number.mean()),
            "near": float((self.pixels >= NEAR_FIRE).mean()),
            "over_time": over_time,
            "small_fireballs": int(small.sum()),
            # A fireball may also leave the view, or another one be the largest: hence not 1.
            "growing": float((after[small] > before[small]).mean()) if small.any() else None,
        }


def _spread(starts: Indices, lengths: Indices, limit: int) -> tuple[Indices, Indices, Bools]:
    """Every `STRIDE`-th tic of as many episodes as give `limit` of them.

    Returns:
        the tics' indices, their place in the episode, and whether the next one is of the same.
    """
    tics, places, same = [], [], []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        place = np.arange(0, length, STRIDE)
        tics.append(start + place)
        places.append(place)
        same.append(np.arange(place.size) < place.size - 1)
        limit -= place.size
        if limit <= 0:
            break
    return np.concatenate(tics), np.concatenate(places), np.concatenate(same)


def fire_over_time(world: World, held_out: HeldOut, dreamt: Dreamt, limit: int) -> dict[str, Any]:
    """Fire in the game, in V's pictures of it, and in whole dreams, over their tics.

    Returns:
        JSON: for "game", "V" and "dream" the mean "pixels" of fire and number of "fireballs" of a
        frame, also by `PERIOD`; "near", the share of frames with near fire; "growing", of frames
        whose largest fireball is small, the share in which it is larger `STRIDE` tics later.
    """
    tics, place, same = _spread(held_out.starts, held_out.lengths, limit)
    game, seen = _Fire(len(tics)), _Fire(len(tics))
    for places, frames in held_out.read(tics):
        game.look(places, frames)
        seen.look(places, decode(world.vae, held_out.mu[tics[places]]))
    result = {"game": game.figures(place, same), "V": seen.figures(place, same)}
    tics, place, same = _spread(dreamt.starts, dreamt.lengths, limit)
    shown = _Fire(len(tics))
    for places in np.array_split(np.arange(len(tics)), max(1, len(tics) // 500)):
        shown.look(places, decode(world.vae, dreamt.z[tics[places]]))
    return result | {"dream": shown.figures(place, same)}


def hits(world: World, held_out: HeldOut, dreamt: Dreamt) -> dict[str, Any]:
    """Share of deaths with near fire in one of the last `HIT_TICS` tics: game, V's view, dream."""
    last = (held_out.starts + held_out.lengths - 1)[held_out.terminated]
    at = (last[:, None] - np.arange(HIT_TICS)).ravel()
    dream_last = (dreamt.starts + dreamt.lengths - 1)[dreamt.died & (dreamt.lengths >= HIT_TICS)]
    dream_at = (dream_last[:, None] - np.arange(HIT_TICS)).ravel()

    def share(frames: Frames) -> float:
        near = fire(frames).sum((1, 2)) >= NEAR_FIRE
        return float(near.reshape(-1, HIT_TICS).any(1).mean())

    result: dict[str, Any] = {"deaths": len(last), "dream_deaths": len(dream_last)}
    if last.size:
        result["game"] = share(held_out.frames(at))
        result["V"] = share(decode(world.vae, held_out.mu[at]))
    if dream_last.size:
        result["dream"] = share(decode(world.vae, dreamt.z[dream_at]))
    return result


def pushes(held_out: HeldOut) -> list[tuple[int, int, int]]:
    """Find the real pushes to one side that last: (first tic, tics watched, 0 left or 1 right).

    M has to know where it is: a push is watched from the episode's 10th tic on, at the earliest.
    """
    action = held_out.actions[:, 0]
    side = np.where(action < -ACTION_THRESHOLD, 0, np.where(action > ACTION_THRESHOLD, 1, -1))
    changes = np.flatnonzero(np.diff(side)) + 1
    place = held_out.in_episode
    edges = np.unique(np.concatenate([[0], changes, held_out.starts, [len(side)]]))
    found = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if side[start] >= 0 and end - start >= PUSH_TICS:
            begins = max(start, start - int(place[start]) + 10)
            tics = min(end - begins, WATCHED_TICS)
            if tics >= PUSH_TICS - 10:
                found.append((begins, tics, int(side[start])))
    return found


def walls(
    world: World,
    dream: Dream,
    held_out: HeldOut,
    z: Floats,
    watched: list[tuple[int, int, int]],
    memory: tuple[Floats, Floats],
    seed: int,
) -> dict[str, Any]:
    """Push against the walls in the dream as somebody did in the game.

    Args:
        world: V.
        dream: M.
        held_out: the episodes.
        z: (N, Z), the latents that M has seen.
        watched: some of `pushes`, at least one.
        memory: h, c (W, H), M's from before the first tic of each.
        seed: of the dream's noise.

    Returns:
        JSON: "pushes"; "at_wall", the share of tics in which the game's player stood at the wall
        and V's picture ("V") or the dream's ("dream") shows that; "false_wall", the same of the
        tics in which he did not; "slipped", of pushes that have reached the wall, the share that
        then leave it though the push goes on; "late", the median of tics by which the dream arrives
        later, over pushes that arrive in both; "coverage", the view's share that the wall fills
        while the game's player stands at it.
    """
    begins = np.array([push[0] for push in watched])
    tics = np.array([push[1] for push in watched])
    side = np.array([push[2] for push in watched])
    shown = np.arange(WALL_STRIDE, int(tics.max()), WALL_STRIDE)
    # Where a push has ended, its last action goes on; those tics are not looked at.
    lived = np.minimum(np.arange(shown[-1])[:, None], tics - 1)
    dreamt = dream_on(dream, z[begins], *memory, held_out.actions[begins + lived], seed=seed).z

    real, seen, dreamed = np.full((3, len(watched), len(shown)), np.nan)
    valid = shown < tics[:, None]
    row, column = np.nonzero(valid)
    at, where = begins[row] + shown[column], side[row]
    seen[valid] = wall(decode(world.vae, held_out.mu[at]))[np.arange(at.size), where]
    dreamed[valid] = wall(decode(world.vae, dreamt[shown[column] - 1, row]))[
        np.arange(at.size), where
    ]
    for places, frames in held_out.read(at):
        real[row[places], column[places]] = wall(frames)[np.arange(places.size), where[places]]
    stands = {
        name: valid & (x >= AT_WALL)
        for name, x in (("game", real), ("V", seen), ("dream", dreamed))
    }
    there, elsewhere = stands["game"], valid & ~stands["game"]

    def share(what: npt.ArrayLike, of: npt.ArrayLike) -> float | None:
        chosen = np.asarray(what)[np.asarray(of)]
        return float(chosen.mean()) if chosen.size else None

    def slipped(at_wall: Bools) -> float | None:
        arrived = at_wall.any(1)
        since = np.cumsum(at_wall, axis=1) > 0
        return share((since & valid & ~at_wall).any(1), arrived)

    both = stands["game"].any(1) & stands["dream"].any(1)
    late = WALL_STRIDE * (stands["dream"].argmax(1) - stands["game"].argmax(1))[both]
    return {
        "pushes": len(watched),
        "tics_at_wall": int(there.sum()) * WALL_STRIDE,
        "at_wall": {name: share(stands[name], there) for name in ("V", "dream")},
        "false_wall": {name: share(stands[name], elsewhere) for name in ("V", "dream")},
        "slipped": {name: slipped(stands[name]) for name in stands},
        "late": float(np.median(late)) if late.size else None,
        "coverage": {
            name: float(x[there].mean()) if there.any() else None
            for name, x in (("game", real), ("V", seen), ("dream", dreamed))
        },
    }


def plan(held_out: HeldOut, seed_of: SeedOf) -> TakeCoverPlan:
    """Return the measurement of these episodes."""
    return TakeCoverPlan(held_out, seed_of)


class TakeCoverPlan:
    """The measurement of some episodes: the pushes to one side that are watched.

    Attributes:
        tics: the first tic of each.
    """

    def __init__(self, held_out: HeldOut, seed_of: SeedOf) -> None:
        found = pushes(held_out)
        rng = np.random.default_rng(seed_of("pushes"))
        chosen = rng.permutation(len(found))[:PUSHES]
        self._watched = [found[k] for k in sorted(chosen)]
        self.tics = [push[0] for push in self._watched]

    def measure(self, material: Material) -> dict[str, Any]:
        """Return JSON: "kept", "invented", "hits", "fire" and, if pushes are watched, "walls"."""
        world, held_out, config = material.world, material.held_out, material.config
        dreamt = dream_episodes(
            material.dream, material.policies, config.dreams, material.seed_of("dreams")
        )
        contents: dict[str, Any] = {
            "kept": fireballs_kept(material.real, material.seen),
            "invented": fireballs_invented(material.real, material.seen),
            "hits": hits(world, held_out, dreamt),
            "fire": fire_over_time(world, held_out, dreamt, 2 * config.frames),
        }
        material.on_part("whole dreams")
        if self._watched:
            contents["walls"] = walls(
                world,
                material.dream,
                held_out,
                material.z,
                self._watched,
                material.memory(self.tics),
                material.seed_of("walls"),
            )
        material.on_part("walls")
        return contents


def tables(contents: dict[str, Any]) -> list[Table]:
    """Return two tables of a measurement: of frames, and of the fireballs that V keeps."""
    return [_shown(contents), _kept(contents)]


def _shown(t: dict[str, Any]) -> Table:
    """Return the table of what game, V's pictures of it and dreams show."""

    def row(name: str, values: dict[str, Any], form: str) -> list[str]:
        cells = [values.get(place) for place in ("game", "V", "dream")]
        return [name, *("-" if cell is None else form.format(cell) for cell in cells)]

    fire: dict[str, dict[str, Any]] = t["fire"]
    rows = [row("deaths with fire at arm's length in the last 4 tics", t["hits"], "{:.0%}")]
    for name, key, form in (
        ("any tic with fire so near", "near", "{:.1%}"),
        ("pixels of fire in a frame", "pixels", "{:.1f}"),
        ("fireballs in a frame", "fireballs", "{:.2f}"),
        ("small fireballs that are larger 4 tics later", "growing", "{:.0%}"),
    ):
        rows.append(row(name, {place: fire[place][key] for place in fire}, form))
    if "walls" in t:
        walls = t["walls"]
        for name, values, form in (
            ("at a wall: it is seen", {"game": 1.0, **walls["at_wall"]}, "{:.0%}"),
            ("not at a wall: one is seen", {"game": 0.0, **walls["false_wall"]}, "{:.1%}"),
            ("pushes that slip off the wall", walls["slipped"], "{:.0%}"),
        ):
            rows.append(row(name, values, form))
    return ["", "game", "game as V sees it", "dream, tau 1"], rows


def _kept(contents: dict[str, Any]) -> Table:
    """Return the table of the fireballs that V keeps, by size."""
    rows = [
        [
            f"from {row['from']:g}",
            str(row["fireballs"]),
            f"{row['kept']:.0%}",
            f"{row['brightness']:.0%}",
        ]
        for row in contents["kept"]
    ]
    return ["pixels of a fireball", "fireballs", "kept by V", "brightness left"], rows


def figure(contents: dict[str, Any]) -> Figure:
    """Return fire over an episode's tics in game, V's pictures and dreams, and what V keeps."""
    from matplotlib.figure import Figure

    from worldmodels_fast.evaluation.quality.figures import COLOURS

    drawn = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    names = {"game": "game", "V": "game as V sees it", "dream": "dream, tau 1"}
    for axes, key, label in (
        (left, "pixels", "pixels of fire in a frame"),
        (middle, "fireballs", "fireballs in a frame"),
    ):
        for place, name in names.items():
            over_time = contents["fire"][place]["over_time"]
            axes.plot(
                [row["from"] + PERIOD / 2 for row in over_time],
                [row[key] for row in over_time],
                ".-",
                color=COLOURS[place],
                label=name,
            )
        axes.set(
            xlabel=f"tic of those still alive (every {STRIDE}th)", ylabel=label, ylim=(0, None)
        )
        axes.legend(fontsize=8)
    kept = contents["kept"]
    right.bar(range(len(kept)), [row["kept"] for row in kept], color=COLOURS["V"])
    right.set_xticks(range(len(kept)), [f"{row['from']:g}+\n{row['fireballs']}" for row in kept])
    right.set(
        xlabel="pixels of a fireball; how many of those",
        ylabel="share kept in V's picture",
        ylim=(0, 1),
    )
    return drawn

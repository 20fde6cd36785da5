"""Stage `report`: whatever a run has so far, drawn into one self-contained page."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from worldmodels_fast import envs
from worldmodels_fast.agent import World
from worldmodels_fast.beside import beside
from worldmodels_fast.curves import authors_curve, curves_of, draw_curves
from worldmodels_fast.data import Floats, Frames
from worldmodels_fast.envs.take_cover import MAX_STEPS
from worldmodels_fast.evaluation import FidelityRow, Summary, fidelity_table, load_evaluations
from worldmodels_fast.pictures import dream_along, play_one, reconstruct, strip
from worldmodels_fast.quality import figures, tables
from worldmodels_fast.quality.figures import survival_curves
from worldmodels_fast.quality.survival import survival
from worldmodels_fast.scoring import UNMODIFIED, read_fidelity, unmodified_beside
from worldmodels_fast.temperatures import (
    draw_temperatures,
    read_temperatures,
    temperatures_table,
)
from worldmodels_fast.training import read_metrics

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
img { max-width: 100%; image-rendering: pixelated; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ccc;
       text-align: left; } pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; }
.note { color: #555; }
"""

STRIP_FRAMES = 12
"""Frames in a row of a picture."""

END_TICS = 36
"""Tics before the end of an episode that are dreamt."""

WATCHED_TICS = 200
"""Tics that M watches before those, at most."""

PICTURE_SEED = 7
"""The real episode that is drawn is the agent's on this seed: whatever happens in it."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder from what the folder holds; return its path.

    Raises:
        ValueError: there is nothing to report yet.
    """
    sections = [part for make in SECTIONS for part in make(folder)]
    if not sections:
        raise ValueError(f"{folder}: nothing to report yet; run the stages first")
    title = f"worldmodels_fast: {html.escape(folder.resolve().name)}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1>{''.join(sections)}</html>\n"
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _scores(folder: Path) -> Iterator[str]:
    path = folder / "evaluation.json"
    if not path.is_file():
        return
    evaluations = load_evaluations(path)
    card = _card(folder)
    rows = [_summary_row(name, e.summary()) for name, e in evaluations.items()]
    for name, (mean, std) in (card.paper_scores if card else {}).items():
        rows.append([f"the paper: {name}", "100", f"{mean:.0f}", f"{std:.0f}", *["-"] * 4])
    yield "<h2>In the real game</h2>"
    yield _table(
        ["player", "episodes", "mean", "std", "95% interval", "min", "median", "max"], rows
    )
    for line in dict.fromkeys(_environment_line(e.settings) for e in evaluations.values()):
        yield f'<p class="note">{html.escape(line)}</p>'
    if UNMODIFIED in evaluations:
        yield (
            "<p>The same agent on the same seeds in the game's unmodified environment, with its "
            f"own drawing: {html.escape(unmodified_beside(evaluations))}</p>"
        )
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    low = min(0.0, *(e.scores.min() for e in evaluations.values()))
    top = max(e.scores.max() for e in evaluations.values())
    bins = np.linspace(low, top, 31).tolist()
    for name, evaluation in evaluations.items():
        axes.hist(evaluation.scores, bins=bins, alpha=0.6, label=name)
    if card is not None:
        axes.axvline(card.solved_score, color="black", lw=1, ls=":", label="solved")
    axes.set(xlabel="score of an episode", ylabel="episodes")
    axes.legend()
    yield _figure(figure, folder, "scores")


def _dream_beside_reality(folder: Path) -> Iterator[str]:
    if not (folder / "world" / "config.json").is_file():
        return
    world = World.load(folder / "world")
    frames, actions = play_one(world, seed=PICTURE_SEED)
    yield "<h2>The dream beside the game</h2>"
    for name, draw in (("dream", dream_beside_reality), ("dream-end", end_beside_reality)):
        picture, note = draw(world, frames, actions)
        yield f"<p>{html.escape(note)}</p>"
        yield _image(Image.fromarray(picture), folder, name)


def dream_beside_reality(world: World, frames: Frames, actions: Floats) -> tuple[Frames, str]:
    """Draw the game, V's picture of it, and dreams from the same first frame and actions.

    Args:
        world: the world.
        frames: uint8 (T, 64, 64, 3), those of an episode before each action.
        actions: float32 (T, A).

    Returns:
        uint8 (height, width, 3), and a sentence that says what the rows are.
    """
    stride = max(1, min(12, len(frames) // STRIP_FRAMES))
    shown = slice(0, stride * STRIP_FRAMES, stride)
    rows = [frames[shown], reconstruct(world, frames[shown])]
    ends = []
    own = float(world.config.get("dream", {}).get("temperature", 1.15))
    temperatures = (1.0, own) if own != 1.0 else (0.5, 1.0)
    for temperature in temperatures:
        dreamt, ended = dream_along(
            world, frames[0], actions, temperature=temperature, seed=PICTURE_SEED, shown=shown
        )
        rows.append(dreamt)
        ends.append(int(ended.argmax()) + 1 if ended.any() else None)
    n = min(len(row) for row in rows)
    said = "; ".join(
        f"at {tau:g} the dream "
        + ("never said that it was over" if end is None else f"said that it was over in tic {end}")
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
    """Draw an episode's last tics, and dreams of them by an M that has watched what came before.

    Args, returns: as `dream_beside_reality`.
    """
    dreamt = min(END_TICS, len(frames) - 1)
    first = max(0, len(frames) - dreamt - WATCHED_TICS)
    temperatures = sorted({0.5, 1.0, float(world.config.get("dream", {}).get("temperature", 1.15))})
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


def _learning_curve(folder: Path) -> Iterator[str]:
    path = folder / "history.jsonl"
    if not path.is_file():
        return
    rows = read_metrics(path)
    if not rows:
        return
    x = [row["generation"] + 1 for row in rows]
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(x, [r["min"] for r in rows], [r["max"] for r in rows], alpha=0.15)
    axes.plot(x, [r["mean"] for r in rows], label="population, mean (band: min to max)")
    scored = [(r["generation"] + 1, r["mean_score"]) for r in rows if "mean_score" in r]
    if scored:
        axes.plot(*zip(*scored, strict=True), "ko-", ms=4, label="the distribution's mean")
    where, card = _where(folder), _card(folder)
    score = card.score if card else "steps survived"
    axes.set(xlabel="generation", ylabel=f"{score} in the {where}")
    axes.legend()
    steps = sum(row["steps"] + row.get("score_steps", 0) for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    yield f"<h2>Evolution in the {where}</h2>"
    yield (
        f"<p>{len(rows)} generations, {steps:,} {where} steps in {seconds:,.0f} s, "
        f"{steps / seconds:,.0f} steps/s in all{_core_hours(folder)}.</p>"
    )
    yield _figure(figure, folder, "evolution")


def _where(folder: Path) -> str:
    """What C was evolved in, "dream" or "game"."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    return str(config.get("evolve", {}).get("where", "dream"))


def _pays_rewards(folder: Path) -> bool:
    """Whether M predicts rewards, whose sum a dream then returns."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    return bool(config.get("rnn", {}).get("predicts_reward", False))


def _core_hours(folder: Path) -> str:
    path = folder / "stages" / "evolve.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    hours = record.get("figures", {}).get("core_hours")
    if hours is None:
        return ""
    return f"; {hours:,.1f} core-hours on {record['processors']} processors"


def _fidelity(folder: Path) -> Iterator[str]:
    rows = read_fidelity(folder / "fidelity.json")
    if not rows:
        return
    if any(row.measure == "reward" for row in rows):
        yield "<h2>Does the dream pay what the game pays?</h2>"
        yield (
            "<p class='note'>Sums of rewards: the game's, and those that M predicts in the dream "
            "at temperature 1, over as many steps as the game has at most.</p>"
        )
        yield f"<pre>{html.escape(fidelity_table(rows))}</pre>"
        yield _figure(_scatter(rows), folder, "fidelity")
        return
    yield "<h2>Is the dream as deadly as the game?</h2>"
    yield f"<pre>{html.escape(fidelity_table(rows))}</pre>"
    yield _figure(_scatter(rows), folder, "fidelity")
    limits = _limits(folder)
    tests = survival(rows, *limits)
    yield "<h3>Survival, tic by tic</h3>"
    yield (
        '<p class="note">Kaplan-Meier curves; who lives to the limit is taken out there, not '
        "counted as dead. The log-rank test asks whether a player dies at the same rates in the "
        f"game and in the dream: p is below 0.05 for {sum(t['p'] < 0.05 for t in tests)} of "
        f"{len(tests)}. {html.escape(_early_or_late(tests))}</p>"
    )
    yield _figure(survival_curves(rows, *limits), folder, "survival")
    yield _table(*tables.survivals(tests))


LABEL_POINTS = 11
"""Height of a point's name, and what lies between it and the next."""


def _name_points(figure: Figure, axes: Axes, rows: list[FidelityRow]) -> None:
    """Write every player's name beside its point, one above the other where they are crowded."""
    figure.draw_without_rendering()  # now it is known where points lie on the page
    points = axes.transData.transform([(row.game.mean, row.dream.mean) for row in rows])
    points *= 72 / figure.dpi
    lowest = -np.inf
    for k in np.argsort(points[:, 1]):
        x, y = points[k]
        lowest = max(lowest + LABEL_POINTS, y - LABEL_POINTS / 2)
        axes.annotate(
            rows[k].player,
            (rows[k].game.mean, rows[k].dream.mean),
            xytext=(
                max(x + 14, points[np.abs(points[:, 1] - y) < 30, 0].max() + 22) - x,
                lowest - y,
            ),
            textcoords="offset points",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.5"},
        )


def _scatter(rows: list[FidelityRow]) -> Figure:
    """Scores in the dream against those in the game, with the diagonal and a band around it.

    Survival in steps on logarithmic axes, sums of rewards on linear ones and without a band.
    """
    in_steps = all(row.measure == "steps" for row in rows)
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker, colour in (("policy", "o", "tab:blue"), ("controller", "D", "tab:red")):
        mine = [row for row in rows if row.kind == kind]
        if not mine:
            continue
        game, dream = ([getattr(row, place) for row in mine] for place in ("game", "dream"))
        axes.errorbar(
            [s.mean for s in game],
            [s.mean for s in dream],
            xerr=[[s.mean - s.low for s in game], [s.high - s.mean for s in game]],
            yerr=[[s.mean - s.low for s in dream], [s.high - s.mean for s in dream]],
            fmt=marker,
            color=colour,
            label={"policy": "fixed policies", "controller": "evolved controllers"}[kind],
        )
    low = min(min(row.game.low, row.dream.low) for row in rows)
    top = max(max(row.game.high, row.dream.high) for row in rows)
    room = 0.1 * (top - low) + 1
    low, top = (low / 1.5, top * 1.5) if in_steps else (low - room, top + room)
    line = np.array([low, top])
    axes.plot(line, line, "k-", lw=0.8)
    if in_steps:
        axes.fill_between(
            line, line / 1.5, line * 1.5, color="black", alpha=0.08, label="within a factor of 1.5"
        )
        axes.set(xscale="log", yscale="log")
    axes.set(
        xlim=(low, top),
        ylim=(low, top),
        xlabel="tics survived in the game" if in_steps else "reward in the game",
        ylabel=f"{'steps survived' if in_steps else 'reward'} in the dream, tau = 1",
    )
    axes.legend(loc="upper left", fontsize=8)
    _name_points(figure, axes, rows)
    return figure


def _limits(folder: Path) -> tuple[int, int]:
    """Tics after which an episode is cut, in the game and in the dream."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    card = envs.ENVIRONMENTS.get(config.get("environment", ""))
    game = card.max_steps if card is not None else MAX_STEPS
    return (
        int(config.get("env_kwargs", {}).get("max_steps", game)),
        int(config.get("evolve", {}).get("max_steps", game)),
    )


def _early_or_late(tests: list[dict[str, Any]]) -> str:
    """Say where the dream is safer than the game: deaths of all players in 100 tics lived."""
    said = []
    for name, chosen in (("first 200", (0, 100)), ("later", None)):
        rates = []
        for place in ("game", "dream"):
            rows = [
                row
                for test in tests
                for row in test[place]["hazard"]
                if (row[0] in chosen if chosen else row[0] >= 200)
            ]
            deaths, lived = sum(row[1] for row in rows), sum(row[2] for row in rows)
            rates.append(100 * deaths / lived if lived else None)
        if None not in rates:
            said.append(f"{rates[0]:.2f} in the game and {rates[1]:.2f} in the dream ({name} tics)")
    return f"Deaths in 100 tics lived, all players: {'; '.join(said)}." if said else ""


def _quality(folder: Path) -> Iterator[str]:
    path = folder / "quality.json"
    if not path.is_file():
        return
    result = json.loads(path.read_text())
    held_out = (
        "held out from the training" if result["held_out"] else "NOT held out: too few shards"
    )
    yield "<h2>How good is the dream?</h2>"
    yield (
        f'<p class="note">Measured on {result["episodes"]} episodes ({result["tics"]:,} tics under '
        f"{html.escape(', '.join(result['policies']))}), {held_out}, before any controller was "
        "evolved.</p>"
    )
    yield _table(*tables.losses(result)) + f"<p>{html.escape(tables.about_losses(result))}</p>"
    if "prediction" in result:
        yield "<h3>How far M foresees</h3>"
        yield f"<p>{html.escape(tables.about_predictions(result))}</p>"
        yield _figure(figures.foresight(result["prediction"]), folder, "foresight")
        yield _table(*tables.predictions(result)) + _table(*tables.pixel_predictions(result))
    if "deaths" in result:
        yield "<h3>Does M know when one dies?</h3>"
        yield f"<p>{html.escape(tables.about_head(result))}</p>"
        yield _figure(figures.death_head(result["deaths"]), folder, "deaths")
        yield _table(*tables.head(result)) + _table(*tables.alarm_rates(result))
    if "take_cover" in result:
        yield "<h3>What the dream shows</h3>"
        yield _table(*tables.contents(result))
        yield _figure(figures.fire_and_sight(result["take_cover"]), folder, "fire")
        yield _table(*tables.kept(result))


def _training(folder: Path) -> Iterator[str]:
    curves = (
        (
            "V",
            "vae.log.jsonl",
            {"reconstruction": "training", "held_out_reconstruction": "held out"},
            "squared error of a frame",
            "The paper's log for Doom: 31.9 at step 500, about 4 at the end.",
        ),
        (
            "M",
            "mdn_rnn.log.jsonl",
            {"z_loss": "training", "held_out_z_loss": "held out"},
            "nats for each dimension",
            "The paper's log for Doom ends at 0.98. Values of different V cannot be compared: a V "
            "that keeps more detail is harder to predict.",
        ),
        (
            "M, the end of an episode",
            "mdn_rnn.log.jsonl",
            {"done_loss": "training", "held_out_done_loss": "held out"},
            "weighted cross-entropy",
            "The paper's log ends at 0.0005.",
        ),
        (
            "M, the reward of a step",
            "mdn_rnn.log.jsonl",
            {"reward_loss": "training", "held_out_reward_loss": "held out"},
            "squared error",
            f"Beyond the paper.{_reward_variance(folder)}",
        ),
    )
    for title, name, keys, label, note in curves:
        rows = [row for row in read_metrics(folder / name) if all(key in row for key in keys)]
        if not any(row[key] for row in rows for key in keys):  # no end is predicted: all are 0
            continue
        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots()
        for key, legend in keys.items():
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=legend)
        axes.set(xlabel="batches", ylabel=label, yscale="log")
        axes.legend()
        yield f'<h2>Training {title}</h2><p class="note">{note}</p>'
        yield _figure(figure, folder, name.split(".")[0] + "-" + next(iter(keys)))


def _reward_variance(folder: Path) -> str:
    """Say what the reward's loss would be of an M that knows nothing."""
    path = folder / "stages" / "train-rnn.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    variance = record.get("figures", {}).get("held_out_reward_variance")
    return "" if variance is None else f" The held-out rewards' mean alone has {variance:.3g}."


def _settings(folder: Path) -> Iterator[str]:
    path = folder / "config.json"
    if path.is_file():
        yield f"<h2>Settings</h2><pre>{html.escape(path.read_text())}</pre>"


def _temperatures(folder: Path) -> Iterator[str]:
    if (folder / "temperatures.json").is_file():
        table = read_temperatures(folder)
        yield "<h2>The temperature table</h2>"
        yield f"<pre>{html.escape(temperatures_table(table))}</pre>"
        yield _figure(draw_temperatures(table), folder, "temperatures")


def _beside_the_authors(folder: Path) -> Iterator[str]:
    if curves := curves_of(folder):
        card, in_game, paid = _card(folder), _where(folder) == "game", _pays_rewards(folder)
        yield "<h2>Learning, beside the paper's authors</h2>"
        if not in_game:
            places = "Ours in the dream, theirs in the game" if paid else "Each in its own dream"
            yield f"<p class='note'>{places}: heights do not compare, times do.</p>"
        score = f"{card.score} in the game" if card and in_game else "steps in the dream"
        if paid and not in_game:
            score = "reward in the dream"
        authors = authors_curve(_environment(folder) or "take-cover")
        yield _figure(draw_curves(curves, authors, score), folder, "learning-curves")


SECTIONS = (
    _scores,
    _temperatures,
    _dream_beside_reality,
    _learning_curve,
    _beside_the_authors,
    _fidelity,
    _quality,
    _training,
    _settings,
)


# --- pieces of a page -------------------------------------------------------------------------


def _environment(folder: Path) -> str:
    """The name of the run's environment, or of its world's, or nothing."""
    for path in (folder / "config.json", folder / "world" / "config.json"):
        if path.is_file() and (name := json.loads(path.read_text()).get("environment")):
            return str(name)
    return ""


def _card(folder: Path) -> envs.EnvironmentCard | None:
    return envs.ENVIRONMENTS.get(_environment(folder))


def _environment_line(settings: dict[str, Any]) -> str:
    environment = ", ".join(f"{k} {v}" for k, v in settings["environment"].items())
    versions = ", ".join(f"{k} {v}" for k, v in settings["versions"].items())
    return f"{settings['env_id']} ({environment}), seed {settings['seed']}; {versions}"


def _summary_row(name: str, s: Summary) -> list[str]:
    return [
        name,
        str(s.n),
        f"{s.mean:.0f}",
        f"{s.std:.0f}",
        f"{s.low:.0f} to {s.high:.0f}",
        f"{s.min:.0f}",
        f"{s.median:.0f}",
        f"{s.max:.0f}",
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def _figure(figure: Figure, folder: Path, name: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _embedded(buffer.getvalue(), folder, name)


def _image(image: Image.Image, folder: Path, name: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return _embedded(buffer.getvalue(), folder, name)


def _embedded(png: bytes, folder: Path, name: str) -> str:
    """Write the picture beside the page, too, for those who want it alone."""
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    (figures / f"{name}.png").write_bytes(png)
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'

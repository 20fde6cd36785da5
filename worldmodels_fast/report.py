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
from matplotlib.figure import Figure
from PIL import Image

from worldmodels_fast import envs
from worldmodels_fast.agent import World
from worldmodels_fast.data import Frames
from worldmodels_fast.evaluation import FidelityRow, Summary, fidelity_table, load_evaluations
from worldmodels_fast.pictures import dream_along, play_one, reconstruct, strip
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
    settings = next(iter(evaluations.values())).settings
    rows = [(name, e.summary()) for name, e in evaluations.items()]
    yield "<h2>In the real game</h2>"
    yield _table(
        ["player", "episodes", "mean", "std", "95% interval", "min", "median", "max"],
        [_summary_row(name, s) for name, s in rows],
    )
    yield f'<p class="note">{html.escape(_environment_line(settings))}</p>'
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    top = max(e.scores.max() for e in evaluations.values())
    bins = np.linspace(0, top, 31).tolist()
    for name, evaluation in evaluations.items():
        axes.hist(evaluation.scores, bins=bins, alpha=0.6, label=name)
    card = _card(folder)
    if card is not None:
        axes.axvline(card.solved_score, color="black", lw=1, ls=":", label="solved")
    axes.set(xlabel="score of an episode", ylabel="episodes")
    axes.legend()
    yield _figure(figure, folder, "scores")


def _dream_beside_reality(folder: Path) -> Iterator[str]:
    if not (folder / "world" / "config.json").is_file():
        return
    world = World.load(folder / "world")
    picture, note = dream_beside_reality(world)
    yield "<h2>The dream beside the game</h2>"
    yield f"<p>{html.escape(note)}</p>"
    yield _image(Image.fromarray(picture), folder, "dream")


def dream_beside_reality(world: World) -> tuple[Frames, str]:
    """Draw the game, V's picture of it, and dreams from the same first frame and actions.

    Returns:
        uint8 (height, width, 3), and a sentence that says what the rows are.
    """
    frames, actions = play_one(world, seed=PICTURE_SEED)
    stride = max(1, min(12, len(frames) // STRIP_FRAMES))
    shown = slice(0, stride * STRIP_FRAMES, stride)
    rows = [frames[shown], reconstruct(world, frames[shown])]
    ends = []
    temperatures = (1.0, float(world.config.get("dream", {}).get("temperature", 1.15)))
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
        f"at temperatures {temperatures[0]:g} and {temperatures[1]:g} ({said})."
    )
    captions = ["the game", "as V sees it", *(f"dream, tau {tau:g}" for tau in temperatures)]
    return strip([row[:n] for row in rows], captions=captions), note


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
    axes.set(xlabel="generation", ylabel="steps survived in the dream")
    axes.legend()
    steps, seconds = (sum(row[key] for row in rows) for key in ("steps", "seconds"))
    yield "<h2>Evolution in the dream</h2>"
    yield (
        f"<p>{len(rows)} generations, {steps:,} dream steps in {seconds:,.0f} s, "
        f"{steps / seconds:,.0f} steps/s in all.</p>"
    )
    yield _figure(figure, folder, "evolution")


def _fidelity(folder: Path) -> Iterator[str]:
    path = folder / "fidelity.json"
    if not path.is_file():
        return
    rows = []
    for raw in json.loads(path.read_text())["rows"]:
        raw["game"], raw["dream"] = Summary(**raw["game"]), Summary(**raw["dream"])
        rows.append(FidelityRow(**raw))
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.errorbar(
            row.game.mean,
            row.dream.mean,
            xerr=[[row.game.mean - row.game.low], [row.game.high - row.game.mean]],
            yerr=[[row.dream.mean - row.dream.low], [row.dream.high - row.dream.mean]],
            fmt="o",
        )
        axes.annotate(
            row.player,
            (row.game.mean, row.dream.mean),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    low = min(min(row.game.low, row.dream.low) for row in rows) / 1.5
    top = max(max(row.game.high, row.dream.high) for row in rows) * 1.5
    line = np.array([low, top])
    axes.plot(line, line, "k-", lw=0.8)
    axes.fill_between(line, line / 1.5, line * 1.5, color="black", alpha=0.08)
    axes.set(
        xlim=(low, top),
        ylim=(low, top),
        xscale="log",
        yscale="log",
        xlabel="tics survived in the game",
        ylabel="steps survived in the dream, tau = 1",
    )
    yield "<h2>Is the dream as deadly as the game?</h2>"
    yield f"<pre>{html.escape(fidelity_table(rows))}</pre>"
    yield _figure(figure, folder, "fidelity")


def _training(folder: Path) -> Iterator[str]:
    curves = (
        (
            "V",
            "vae.log.jsonl",
            {"reconstruction": "training", "held_out_reconstruction": "held out"},
            "squared error of a frame",
            "The paper's log: 31.9 at step 500, about 4 at the end.",
        ),
        (
            "M",
            "mdn_rnn.log.jsonl",
            {"z_loss": "training", "held_out_z_loss": "held out"},
            "nats for each dimension",
            "The paper's log ends at 0.98. Values of different V cannot be compared: a V that "
            "keeps more detail is harder to predict.",
        ),
        (
            "M, the end of an episode",
            "mdn_rnn.log.jsonl",
            {"done_loss": "training", "held_out_done_loss": "held out"},
            "weighted cross-entropy",
            "The paper's log ends at 0.0005.",
        ),
    )
    for title, name, keys, label, note in curves:
        rows = [row for row in read_metrics(folder / name) if all(key in row for key in keys)]
        if not rows:
            continue
        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots()
        for key, legend in keys.items():
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=legend)
        axes.set(xlabel="batches", ylabel=label, yscale="log")
        axes.legend()
        yield f'<h2>Training {title}</h2><p class="note">{note}</p>'
        yield _figure(figure, folder, name.split(".")[0] + "-" + next(iter(keys)))


def _settings(folder: Path) -> Iterator[str]:
    path = folder / "config.json"
    if path.is_file():
        yield f"<h2>Settings</h2><pre>{html.escape(path.read_text())}</pre>"


SECTIONS = (_scores, _dream_beside_reality, _learning_curve, _fidelity, _training, _settings)


# --- pieces of a page -------------------------------------------------------------------------


def _card(folder: Path) -> envs.EnvironmentCard | None:
    path = folder / "world" / "config.json"
    if not path.is_file():
        return None
    return envs.ENVIRONMENTS.get(json.loads(path.read_text()).get("environment", ""))


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

"""The stage `report`: the records of a run as one self-contained page."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from worldmodels_fast import envs
from worldmodels_fast.evaluation.beside_random import UNMODIFIED, unmodified_beside
from worldmodels_fast.evaluation.fidelity.file import read_fidelity
from worldmodels_fast.evaluation.fidelity.row import fidelity_table
from worldmodels_fast.evaluation.fidelity.survival import survival
from worldmodels_fast.evaluation.quality import figures, tables
from worldmodels_fast.evaluation.quality.contents import contents_of
from worldmodels_fast.evaluation.quality.figures import survival_curves
from worldmodels_fast.evaluation.scores import load_evaluations
from worldmodels_fast.evaluation.statistics import Summary
from worldmodels_fast.report.curves import authors_curve, curves_of, draw_curves
from worldmodels_fast.report.dream_strips import (
    PICTURE_SEED,
    dream_beside_reality,
    end_beside_reality,
)
from worldmodels_fast.report.html import STYLE, embedded_figure, embedded_image, html_table
from worldmodels_fast.report.pictures import play_one
from worldmodels_fast.report.plots import fidelity_scatter
from worldmodels_fast.report.temperatures import (
    draw_temperatures,
    read_temperatures,
    temperatures_table,
)
from worldmodels_fast.utils.files import read_json, read_json_lines, read_text, write_text
from worldmodels_fast.world.world import World


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
    write_text(path, page)
    return path


def _scores(folder: Path) -> Iterator[str]:
    path = folder / "evaluation.json"
    if not path.is_file():
        return
    evaluations = load_evaluations(path)
    spec = _spec(folder)
    rows = [_summary_row(name, e.summary()) for name, e in evaluations.items()]
    for name, (mean, std) in (spec.paper_scores if spec else {}).items():
        rows.append([f"the paper: {name}", "100", f"{mean:.0f}", f"{std:.0f}", *["-"] * 4])
    yield "<h2>In the real game</h2>"
    yield html_table(
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
    if spec is not None:
        axes.axvline(spec.solved_score, color="black", lw=1, ls=":", label="solved")
    axes.set(xlabel="score of an episode", ylabel="episodes")
    axes.legend()
    yield embedded_figure(figure, folder, "scores")


def _dream_beside_reality(folder: Path) -> Iterator[str]:
    if not (folder / "world" / "config.json").is_file():
        return
    world = World.load(folder / "world")
    frames, actions = play_one(world, seed=PICTURE_SEED)
    yield "<h2>The dream beside the game</h2>"
    for name, draw in (("dream", dream_beside_reality), ("dream-end", end_beside_reality)):
        picture, note = draw(world, frames, actions)
        yield f"<p>{html.escape(note)}</p>"
        yield embedded_image(Image.fromarray(picture), folder, name)


def _learning_curve(folder: Path) -> Iterator[str]:
    path = folder / "history.jsonl"
    if not path.is_file():
        return
    rows = read_json_lines(path)
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
    where, spec = _where(folder), _spec(folder)
    score = spec.score if spec else "steps survived"
    axes.set(xlabel="generation", ylabel=f"{score} in the {where}")
    axes.legend()
    steps = sum(row["steps"] + row.get("score_steps", 0) for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    yield f"<h2>Evolution in the {where}</h2>"
    yield (
        f"<p>{len(rows)} generations, {steps:,} {where} steps in {seconds:,.0f} s, "
        f"{steps / seconds:,.0f} steps/s in all{_core_hours(folder)}.</p>"
    )
    yield embedded_figure(figure, folder, "evolution")


def _where(folder: Path) -> str:
    """What C was evolved in, "dream" or "game"."""
    path = folder / "config.json"
    config = read_json(path) or {}
    return str(config.get("evolve", {}).get("where", "dream"))


def _pays_rewards(folder: Path) -> bool:
    """Whether M predicts rewards, whose sum a dream then returns."""
    path = folder / "config.json"
    config = read_json(path) or {}
    return bool(config.get("rnn", {}).get("predicts_reward", False))


def _core_hours(folder: Path) -> str:
    path = folder / "stages" / "evolve.json"
    record = read_json(path) or {}
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
        yield embedded_figure(fidelity_scatter(rows), folder, "fidelity")
        return
    yield "<h2>Is the dream as deadly as the game?</h2>"
    yield f"<pre>{html.escape(fidelity_table(rows))}</pre>"
    yield embedded_figure(fidelity_scatter(rows), folder, "fidelity")
    limits = _limits(folder)
    tests = survival(rows, *limits)
    yield "<h3>Survival, tic by tic</h3>"
    yield (
        '<p class="note">Kaplan-Meier curves; who lives to the limit is taken out there, not '
        "counted as dead. The log-rank test asks whether a player dies at the same rates in the "
        f"game and in the dream: p is below 0.05 for {sum(t['p'] < 0.05 for t in tests)} of "
        f"{len(tests)}. {html.escape(_early_or_late(tests))}</p>"
    )
    yield embedded_figure(survival_curves(rows, *limits), folder, "survival")
    yield html_table(*tables.survivals(tests))


def _limits(folder: Path) -> tuple[int, int]:
    """Tics after which an episode is cut, in the game and in the dream."""
    path = folder / "config.json"
    config = read_json(path) or {}
    spec = envs.ENVIRONMENTS.get(config.get("environment", ""))
    game = (spec or envs.ENVIRONMENTS[envs.DEFAULT_ENVIRONMENT]).max_steps
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
    result = read_json(path) or {}
    held_out = (
        "held out from the training" if result["held_out"] else "NOT held out: too few shards"
    )
    yield "<h2>How good is the dream?</h2>"
    yield (
        f'<p class="note">Measured on {result["episodes"]} episodes ({result["tics"]:,} tics under '
        f"{html.escape(', '.join(result['policies']))}), {held_out}, before any controller was "
        "evolved.</p>"
    )
    yield html_table(*tables.losses(result)) + f"<p>{html.escape(tables.about_losses(result))}</p>"
    if "prediction" in result:
        yield "<h3>How far M foresees</h3>"
        yield f"<p>{html.escape(tables.about_predictions(result))}</p>"
        yield embedded_figure(figures.foresight(result["prediction"]), folder, "foresight")
        yield html_table(*tables.predictions(result)) + html_table(
            *tables.pixel_predictions(result)
        )
    if "deaths" in result:
        yield "<h3>Does M know when one dies?</h3>"
        yield f"<p>{html.escape(tables.about_head(result))}</p>"
        yield embedded_figure(figures.death_head(result["deaths"]), folder, "deaths")
        yield html_table(*tables.head(result)) + html_table(*tables.alarm_rates(result))
    if found := contents_of(result):
        module, contents = found
        yield "<h3>What the dream shows</h3>"
        yield from (html_table(*table) for table in module.tables(contents))
        yield embedded_figure(module.figure(contents), folder, "contents")


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
        rows = [row for row in read_json_lines(folder / name) if all(key in row for key in keys)]
        if not any(row[key] for row in rows for key in keys):  # no end is predicted: all are 0
            continue
        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots()
        for key, legend in keys.items():
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=legend)
        axes.set(xlabel="batches", ylabel=label, yscale="log")
        axes.legend()
        yield f'<h2>Training {title}</h2><p class="note">{note}</p>'
        yield embedded_figure(figure, folder, name.split(".")[0] + "-" + next(iter(keys)))


def _reward_variance(folder: Path) -> str:
    """Say what the reward's loss would be of an M that knows nothing."""
    path = folder / "stages" / "train-rnn.json"
    record = read_json(path) or {}
    variance = record.get("figures", {}).get("held_out_reward_variance")
    return "" if variance is None else f" The held-out rewards' mean alone has {variance:.3g}."


def _settings(folder: Path) -> Iterator[str]:
    path = folder / "config.json"
    if path.is_file():
        yield f"<h2>Settings</h2><pre>{html.escape(read_text(path))}</pre>"


def _temperatures(folder: Path) -> Iterator[str]:
    if (folder / "temperatures.json").is_file():
        table = read_temperatures(folder)
        yield "<h2>The temperature table</h2>"
        yield f"<pre>{html.escape(temperatures_table(table))}</pre>"
        yield embedded_figure(draw_temperatures(table), folder, "temperatures")


def _beside_the_authors(folder: Path) -> Iterator[str]:
    if curves := curves_of(folder):
        spec, in_game, paid = _spec(folder), _where(folder) == "game", _pays_rewards(folder)
        yield "<h2>Learning, beside the paper's authors</h2>"
        if not in_game:
            places = "Ours in the dream, theirs in the game" if paid else "Each in its own dream"
            yield f"<p class='note'>{places}: heights do not compare, times do.</p>"
        score = f"{spec.score} in the game" if spec and in_game else "steps in the dream"
        if paid and not in_game:
            score = "reward in the dream"
        authors = authors_curve(_environment(folder) or envs.DEFAULT_ENVIRONMENT)
        yield embedded_figure(draw_curves(curves, authors, score), folder, "learning-curves")


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


def _environment(folder: Path) -> str:
    """The name of the run's environment, or of its world's, or nothing."""
    for path in (folder / "config.json", folder / "world" / "config.json"):
        if name := (read_json(path) or {}).get("environment"):
            return str(name)
    return ""


def _spec(folder: Path) -> envs.EnvironmentSpec | None:
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

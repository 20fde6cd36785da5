"""The stage `report`: the records of a run as one self-contained page."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from worldmodels_fast import envs
from worldmodels_fast.evaluation.beside_random import UNMODIFIED, unmodified_beside
from worldmodels_fast.evaluation.fidelity.row import fidelity_cells
from worldmodels_fast.evaluation.fidelity.survival import survival
from worldmodels_fast.evaluation.quality import figures, tables
from worldmodels_fast.evaluation.quality.contents import contents_of
from worldmodels_fast.evaluation.quality.figures import survival_curves
from worldmodels_fast.evaluation.statistics import Summary
from worldmodels_fast.report import plots
from worldmodels_fast.report.curves import authors_curve, curves_of, draw_curves
from worldmodels_fast.report.dream_strips import (
    PICTURE_SEED,
    dream_beside_reality,
    end_beside_reality,
)
from worldmodels_fast.report.html import STYLE, embedded_figure, embedded_image, html_table
from worldmodels_fast.report.pictures import play_one
from worldmodels_fast.report.records import RunRecords, environment_line
from worldmodels_fast.report.temperatures import (
    draw_temperatures,
    temperature_cells,
    temperature_notes,
)
from worldmodels_fast.utils.files import write_text
from worldmodels_fast.world.world import World

Section = Callable[[RunRecords], Iterator[str]]
"""Yields a section's pieces of HTML; none if the run has no records of it."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder from the records in it; return its path.

    Raises:
        ValueError: there is nothing to report yet, or a file of the run is damaged.
    """
    records = RunRecords(folder)
    pieces = [piece for section in SECTIONS for piece in section(records)]
    if not pieces:
        raise ValueError(f"{folder}: nothing to report yet; run the stages first")
    title = f"worldmodels_fast: {html.escape(folder.resolve().name)}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1>{''.join(pieces)}</html>\n"
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _scores(records: RunRecords) -> Iterator[str]:
    evaluations = records.evaluations
    if not evaluations:
        return
    rows = [_summary_row(name, e.summary()) for name, e in evaluations.items()]
    for name, (mean, std) in records.paper_scores.items():
        rows.append([f"the paper: {name}", "100", f"{mean:.0f}", f"{std:.0f}", *["-"] * 4])
    yield "<h2>In the real game</h2>"
    yield html_table(
        ["player", "episodes", "mean", "std", "95% interval", "min", "median", "max"], rows
    )
    for line in dict.fromkeys(environment_line(e.settings) for e in evaluations.values()):
        yield f'<p class="note">{html.escape(line)}</p>'
    if UNMODIFIED in evaluations:
        yield (
            "<p>The same agent on the same seeds in the game's unmodified environment, with its "
            f"own drawing: {html.escape(unmodified_beside(evaluations))}</p>"
        )
    solved = records.spec.solved_score if records.spec else None
    yield embedded_figure(plots.score_histogram(evaluations, solved), records.folder, "scores")


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


def _temperatures(records: RunRecords) -> Iterator[str]:
    if (table := records.temperatures) is not None:
        yield "<h2>The temperature table</h2>"
        yield html_table(*temperature_cells(table))
        for note in temperature_notes(table):
            yield f'<p class="note">{html.escape(note)}</p>'
        yield embedded_figure(draw_temperatures(table), records.folder, "temperatures")


def _dream_beside_reality(records: RunRecords) -> Iterator[str]:
    if records.world is None:
        return
    world = World.load(records.folder / "world")
    frames, actions = play_one(world, seed=PICTURE_SEED)
    yield "<h2>The dream beside the game</h2>"
    for name, draw in (("dream", dream_beside_reality), ("dream-end", end_beside_reality)):
        picture, note = draw(world, frames, actions)
        yield f"<p>{html.escape(note)}</p>"
        yield embedded_image(Image.fromarray(picture), records.folder, name)


def _evolution(records: RunRecords) -> Iterator[str]:
    rows, place = records.history, records.evolved_in
    if not rows:
        return
    steps = sum(row["steps"] + row.get("score_steps", 0) for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    hours, cores = records.figures("evolve").get("core_hours"), ""
    if hours is not None:
        cores = f"; {hours:,.1f} core-hours on {records.stages['evolve']['processors']} processors"
    yield f"<h2>Evolution in the {place}</h2>"
    yield (
        f"<p>{len(rows)} generations, {steps:,} {place} steps in {seconds:,.0f} s, "
        f"{steps / seconds:,.0f} steps/s in all{cores}.</p>"
    )
    figure = plots.evolution_curve(rows, f"{records.score} in the {place}")
    yield embedded_figure(figure, records.folder, "evolution")


def _beside_the_authors(records: RunRecords) -> Iterator[str]:
    curves = curves_of(records)
    if not curves:
        return
    yield "<h2>Learning, beside the paper's authors</h2>"
    if records.evolved_in == "game":
        score = f"{records.score} in the game"
    else:
        paid = records.predicts_reward
        score = "reward in the dream" if paid else "steps in the dream"
        places = "Ours in the dream, theirs in the game" if paid else "Each in its own dream"
        yield f"<p class='note'>{places}: heights do not compare, times do.</p>"
    authors = authors_curve(records.environment or envs.DEFAULT_ENVIRONMENT)
    figure = draw_curves(curves, authors, score)
    yield embedded_figure(figure, records.folder, "learning-curves")


def _fidelity(records: RunRecords) -> Iterator[str]:
    rows = records.fidelity
    if not rows:
        return
    if records.compares_rewards:
        yield "<h2>Does the dream pay what the game pays?</h2>"
        yield (
            "<p class='note'>Sums of rewards: the game's, and those that M predicts in the dream "
            "at temperature 1, over as many steps as the game has at most.</p>"
        )
    else:
        yield "<h2>Is the dream as deadly as the game?</h2>"
    yield html_table(*fidelity_cells(rows))
    yield embedded_figure(plots.fidelity_scatter(rows), records.folder, "fidelity")
    if not records.compares_rewards:
        yield from _survival(records)


def _survival(records: RunRecords) -> Iterator[str]:
    tests = survival(records.fidelity, *records.max_steps)
    yield "<h3>Survival, tic by tic</h3>"
    yield (
        '<p class="note">Kaplan-Meier curves; episodes that reach the limit are censored there, '
        "not counted as deaths. The log-rank test asks whether a player dies at the same rates in "
        f"the game and in the dream: p is below 0.05 for {sum(t['p'] < 0.05 for t in tests)} of "
        f"{len(tests)}. {html.escape(_early_or_late(tests))}</p>"
    )
    figure = survival_curves(records.fidelity, *records.max_steps)
    yield embedded_figure(figure, records.folder, "survival")
    yield html_table(*tables.survivals(tests))


def _early_or_late(tests: list[dict[str, Any]]) -> str:
    """Return a sentence on the deaths of all players in 100 tics lived, early and late."""
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


def _quality(records: RunRecords) -> Iterator[str]:
    result, folder = records.quality, records.folder
    if result is None:
        return
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
        yield "<h3>How far M predicts</h3>"
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
        yield "<h3>Contents of the dream</h3>"
        yield from (html_table(*table) for table in module.tables(contents))
        yield embedded_figure(module.figure(contents), folder, "contents")


def _training(records: RunRecords) -> Iterator[str]:
    variance = records.reward_variance
    mean_alone = (
        "" if variance is None else f" The held-out rewards' mean alone has {variance:.3g}."
    )
    for title, name, log, legends, loss, note in (
        (
            "V",
            "vae",
            records.vae_log,
            {"reconstruction": "training", "held_out_reconstruction": "held out"},
            "squared error of a frame",
            "The paper's log for Doom: 31.9 at step 500, about 4 at the end.",
        ),
        (
            "M",
            "mdn_rnn",
            records.mdn_rnn_log,
            {"z_loss": "training", "held_out_z_loss": "held out"},
            "nats for each dimension",
            "The paper's log for Doom ends at 0.98. Values of different V cannot be compared: a V "
            "that keeps more detail is harder to predict.",
        ),
        (
            "M, the end of an episode",
            "mdn_rnn",
            records.mdn_rnn_log,
            {"done_loss": "training", "held_out_done_loss": "held out"},
            "weighted cross-entropy",
            "The paper's log ends at 0.0005.",
        ),
        (
            "M, the reward of a step",
            "mdn_rnn",
            records.mdn_rnn_log,
            {"reward_loss": "training", "held_out_reward_loss": "held out"},
            "squared error",
            f"Beyond the paper.{mean_alone}",
        ),
    ):
        rows = [row for row in log if all(key in row for key in legends)]
        if any(row[key] for row in rows for key in legends):  # a loss that M lacks is 0
            yield f'<h2>Training {title}</h2><p class="note">{note}</p>'
            figure = plots.training_curve(rows, legends, loss)
            yield embedded_figure(figure, records.folder, f"{name}-{next(iter(legends))}")


def _settings(records: RunRecords) -> Iterator[str]:
    if records.config_text is not None:
        yield f"<h2>Settings</h2><pre>{html.escape(records.config_text)}</pre>"


SECTIONS: tuple[Section, ...] = (
    _scores,
    _temperatures,
    _dream_beside_reality,
    _evolution,
    _beside_the_authors,
    _fidelity,
    _quality,
    _training,
    _settings,
)
"""The sections of the page, in their order."""

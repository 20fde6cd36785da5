"""The temperature table that `sweep-temperature` writes: read, printed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from worldmodels_fast.evaluation.statistics import Summary
from worldmodels_fast.utils.files import read_json, reading

__all__ = [
    "PAPER",
    "PAPER_RANDOM",
    "draw_temperatures",
    "read_temperatures",
    "temperature_cells",
    "temperature_notes",
    "temperatures_table",
]

PAPER = {
    0.1: ((2086, 140), (193, 58)),
    0.5: ((2060, 277), (196, 50)),
    1.0: ((1145, 690), (868, 511)),
    1.15: ((918, 546), (1092, 556)),
    1.3: ((732, 269), (753, 139)),
}
"""The paper's table by temperature: mean and std in the dream, mean and std in the real game."""

PAPER_RANDOM = (210, 108)


def read_temperatures(folder: Path) -> dict[str, Any]:
    """Return a run's table: settings, rows with every episode's score, the random policy's scores.

    Raises:
        ValueError: there is none, or the file is damaged.
    """
    path = folder / "temperatures.json"
    advice = "delete it and run `sweep-temperature` again"
    table = read_json(path, advice, keys=("settings", "rows", "random"))
    if table is None:
        raise ValueError(f"{path}: no table yet; run `sweep-temperature` first")
    with reading(path, advice):
        scores = [table["random"]]
        for row in table["rows"]:
            float(row["temperature"])
            scores += [row["dream"], row["game"]]
        for each in scores:
            Summary(**each["summary"])
    return table


def temperature_cells(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table's head and rows of cells: mean +- std [95% interval of the mean]."""
    head = ["tau", "dream", "real game", "dream - game", "paper, dream", "paper, real game"]
    rows = []
    for row in table["rows"]:
        tau = float(row["temperature"])
        dream, game = (Summary(**row[key]["summary"]) for key in ("dream", "game"))
        paper = [f"{mean} +- {std}" for mean, std in PAPER.get(tau, ())] or ["-", "-"]
        difference = f"{dream.mean - game.mean:.0f}"
        rows.append([f"{tau:.2f}", str(dream), str(game), difference, *paper])
    random = Summary(**table["random"]["summary"])
    mean, std = PAPER_RANDOM
    return head, [*rows, ["random policy", "-", str(random), "-", "-", f"{mean} +- {std}"]]


def temperatures_table(table: dict[str, Any]) -> str:
    """Return the table as Markdown, with its settings as a list below it."""
    head, rows = temperature_cells(table)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    first, *others = temperature_notes(table)
    return "\n".join([*lines, "", first, "", *(f"- {note}" for note in others)])


def temperature_notes(table: dict[str, Any]) -> list[str]:
    """Return sentences on the table: its columns, its settings, and each row's evolution."""
    settings = table["settings"]
    environment = ", ".join(f"{key} {value}" for key, value in settings["environment"].items())
    versions = ", ".join(f"{key} {value}" for key, value in settings["versions"].items())
    notes = [
        "Steps survived, mean +- std [bootstrap 95% interval of the mean]. Each controller was "
        "evolved in the dream of its row and chosen there, without any real score; games are the "
        f"same {table['random']['summary']['n']} for all, and no other stage's.",
        f"game: {settings['env_id']} ({environment}); {versions}",
        f"recipe {settings['recipe']}, seed {settings['seed']}; every score is in "
        "`temperatures.json`",
    ]
    for row in table["rows"]:
        e, seconds = row["evolution"], row["seconds"]
        notes.append(
            f"tau {row['temperature']:.2f}: {e['generations']} generations of "
            f"{e['population']} x {e['rollouts']} rollouts in {e['precision']}, "
            f"{e['dream_steps']:,} dream steps in {seconds['evolve'] / 60:.1f} min; the mean "
            f"after generation {e['from_generation'] + 1}, scored in "
            f"{row['dream']['summary']['n']:,} dreams"
        )
    return notes


def draw_temperatures(table: dict[str, Any]) -> Figure:
    """Draw score against temperature, in the dream and in the game, the paper's in grey."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    taus = sorted(PAPER)
    for k, (name, marker) in enumerate((("dream", "s"), ("game", "o"))):
        means = [PAPER[tau][k][0] for tau in taus]
        axes.plot(taus, means, f"{marker}:", color="0.6", ms=5, lw=1, label=f"the paper, {name}")
    for name, marker, color in (("dream", "s", "tab:blue"), ("game", "o", "tab:red")):
        rows = table["rows"]
        summaries = [Summary(**row[name]["summary"]) for row in rows]
        axes.errorbar(
            [row["temperature"] for row in rows],
            [s.mean for s in summaries],
            yerr=[
                [s.mean - s.low for s in summaries],
                [s.high - s.mean for s in summaries],
            ],
            fmt=f"{marker}-",
            color=color,
            capsize=3,
            label=f"ours, {name} (95% interval)",
        )
    random = Summary(**table["random"]["summary"])
    axes.axhline(random.mean, color="black", lw=0.8, ls="--", label="random policy, game")
    axes.set(xlabel="temperature of the dream", ylabel="steps survived", ylim=(0, None))
    axes.legend(fontsize=8)
    return figure

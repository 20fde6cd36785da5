"""The temperature table: on a small random world and a toy game, whole and killed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from small_runs import TOY, finish, small_config, with_section, write_small_run

from worldmodels_fast import envs
from worldmodels_fast.cli import main as cli
from worldmodels_fast.evaluation.scores import EpisodeScore, Evaluation
from worldmodels_fast.evaluation.statistics import summary
from worldmodels_fast.experiments.config import PAPER_TEMPERATURES, SweepConfig
from worldmodels_fast.experiments.pipeline import open_run, run_stage, stage_sweep
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.report.temperatures import (
    PAPER,
    draw_temperatures,
    read_temperatures,
    temperatures_table,
)
from worldmodels_fast.utils.seeding import derive_seed


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


def made_up_table(temperatures):
    settings = {
        "player": "agent",
        "env_id": "worldmodels_fast/TakeCover-v0",
        "environment": {"skill": 4, "resolution": "160x120"},
        "seed": 3,
        "versions": {"vizdoom": "1.3"},
    }

    def game(scores):
        episodes = (EpisodeScore(i, i, float(s), int(s), True) for i, s in enumerate(scores))
        return Evaluation(settings, tuple(episodes)).to_json()

    rows = [
        {
            "temperature": tau,
            "evolution": {
                "population": 64,
                "rollouts": 16,
                "generations": 200,
                "from_generation": 174,
                "dream_steps": 12345678,
                "precision": "bf16",
            },
            "seconds": {"evolve": 600.0},
            "dream": {"summary": dataclasses.asdict(summary([900.0, 1100.0 * tau]))},
            "game": game([500, 700, 900 * tau]),
        }
        for tau in temperatures
    ]
    return {
        "settings": {**settings, "recipe": "take-cover-paper", "seed": 1},
        "rows": rows,
        "random": game([200, 250]),
    }


def test_the_table_says_what_matters():
    text = temperatures_table(made_up_table([0.5, 1.15, 1.2]))
    lines = text.splitlines()
    assert lines[3].startswith("| 1.15 | 1082 +- 182 [900, 1265] | 745 +- 221 [500, 1035] | 338 |")
    assert lines[3].endswith("| 918 +- 546 | 1092 +- 556 |")
    assert lines[4].endswith("| - | - |")  # a temperature that the paper does not have
    assert lines[5] == "| random policy | - | 225 +- 25 [200, 250] | - | - | 210 +- 108 |"
    for words in (
        "skill 4",
        "vizdoom 1.3",
        "160x120",
        "seed 1",
        "200 generations of 64 x 16 rollouts in bf16",
        "the mean after generation 175",
        "12,345,678 dream steps in 10.0 min",
    ):
        assert words in text
    assert set(PAPER) == set(PAPER_TEMPERATURES)


@pytest.mark.parametrize("temperatures", [PAPER_TEMPERATURES, [1.15], []])
def test_the_figure_draws_what_there_is(temperatures, tmp_path):
    figure = draw_temperatures(made_up_table(temperatures))
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {"the paper, dream", "the paper, game", "random policy, game"} <= set(labels)
    ours = [c for c in axes.containers if c.get_label().startswith("ours, game")]
    assert [list(c.lines[0].get_xdata()) for c in ours] == [list(temperatures)]
    figure.savefig(tmp_path / "figure.png")


def test_no_table_and_bad_temperatures(tmp_path):
    with pytest.raises(ValueError, match="no table yet; run `sweep-temperature` first"):
        read_temperatures(tmp_path)
    run = write_small_run(tmp_path, small_config())
    for bad in ((-1.0,), (0.5, 0.5), (float("inf"),)):
        with pytest.raises(ValueError, match=r"--sweep.temperatures: expected different positive"):
            stage_sweep(run, bad)
    with pytest.raises(ValueError, match=r"--sweep.episodes: expected at least 1, got 0"):
        dataclasses.replace(small_config(), sweep=SweepConfig(episodes=0))


def scores(folder):
    table = json.loads((folder / "temperatures.json").read_text(encoding="utf-8"))
    return {
        row["temperature"]: (row["dream"]["scores"], row["game"]["episodes"])
        for row in table["rows"]
    }


@pytest.mark.slow
def test_a_sweep_whole_by_rows_and_killed(tmp_path, capsys):
    run = write_small_run(tmp_path / "whole", small_config())
    means = stage_sweep(run)
    assert list(means) == ["0.5", "1.15"]
    whole = scores(run.folder)
    table = read_temperatures(run.folder)
    for row in table["rows"]:
        assert len(row["dream"]["scores"]) == 8
        assert row["asked"]["game_seed"] == derive_seed(run.config.seed, "sweep/game")
        assert row["evolution"]["generations"] == 5
        assert means[f"{row['temperature']:g}"] == np.mean(
            [episode["score"] for episode in row["game"]["episodes"]]
        )
    seeds = {tuple(e["seed"] for e in row["game"]["episodes"]) for row in table["rows"]}
    assert seeds == {tuple(e["seed"] for e in table["random"]["episodes"])}  # one set of games
    assert (run.folder / "temperatures.md").read_text(
        encoding="utf-8"
    ).rstrip() == temperatures_table(table)
    assert (run.folder / "figures" / "temperatures.png").stat().st_size > 10_000
    rows = json.loads((run.folder / "fidelity.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["player"], row["kind"]) for row in rows] == [
        ("tau 0.5", "controller"),
        ("tau 1.15", "controller"),
    ]
    # Again: nothing is done.
    capsys.readouterr()
    assert stage_sweep(run) == means
    assert capsys.readouterr().out.count("scores: finished before") == 2

    # The same, one row at a time, the second first, killed here and there.
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    shutil.rmtree(cut / "sweep" / "tau-0.5")
    row = cut / "sweep" / "tau-1.15"
    (row / "temperature.json").unlink()
    path = row / "game" / "sweep-agent.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:9], encoding="utf-8")
    assert cli.main(["sweep-temperature", str(cut), "--taus", "1.15"]) == 0
    assert scores(cut) == {1.15: whole[1.15]}
    assert cli.main(["sweep-temperature", str(cut), "--taus", "0.5"]) == 0
    assert scores(cut) == whole

    # M is trained anew: the rows are not silently kept.
    finish(run, "train-rnn")
    with pytest.raises(ValueError, match=r"tau-0.5: its train-rnn is that of .*delete this folder"):
        stage_sweep(run)


@pytest.mark.slow
def test_a_row_like_the_run_takes_its_controller(tmp_path, capsys):
    config = with_section(small_config(), "dream", temperature=0.5)
    config = dataclasses.replace(config, sweep=SweepConfig((0.5,), dream_rollouts=4, episodes=1))
    run = write_small_run(tmp_path / "run", config)
    run_stage("evolve", run)
    run_stage("sweep-temperature", run)
    assert "evolve: finished before" in capsys.readouterr().out
    row = Run.load(run.folder / "sweep" / "tau-0.5")
    assert row.record("evolve")["id"] == run.record("evolve")["id"]
    assert row.record("evolve")["adopted_from"] == str(run.folder)
    assert run.record("sweep-temperature")["figures"].keys() == {"0.5"}
    # Other generations are another evolution.
    (run.folder / "stages" / "sweep-temperature.json").unlink()
    longer = dataclasses.replace(run.config, sweep=SweepConfig((0.5,), 4, 1, generations=6))
    with pytest.raises(ValueError, match=r"--evolve.generations: 5, now 6.*use another folder"):
        run_stage("sweep-temperature", open_run(run.folder, longer))

"""The records of a run: of today's form, of earlier ones, missing and damaged."""

import dataclasses
import json
from pathlib import Path

import pytest
from small_worlds import small_world

from worldmodels_fast.experiments.config import save_config
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.report.records import RunRecords, environment_line

RUNS = Path(__file__).parents[2] / "benchmarks" / "results" / "runs"
"""Records of finished runs; their config.json has no sections `dream` and `game` yet."""

EVOLVED_IN_THE_GAME = (
    "car-racing-quick",
    "car-racing-untrained-m",
    "car-racing-z-hidden",
    "car-racing-z-only",
)


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.iterdir()))
def test_the_runs_of_earlier_versions(name, tmp_path):
    records = RunRecords(RUNS / name)
    in_game = name in EVOLVED_IN_THE_GAME
    assert records.evolved_in == ("game" if in_game else "dream")
    assert records.predicts_done == name.startswith("take-cover")
    assert records.predicts_reward == (name == "car-racing-dream")
    assert records.compares_rewards == (name == "car-racing-dream")
    car_racing = name.startswith("car-racing")
    assert records.environment == ("car-racing" if car_racing else "take-cover")
    assert records.max_steps[0] == (1000 if car_racing else 2100)
    assert records.score == ("reward" if car_racing else "steps survived")
    assert records.figures("evolve")["generations"] == len(records.history)
    assert {"agent", "random"} <= records.evaluations.keys()
    # The form of today, with these settings in their new places, says the same.
    config = json.loads((RUNS / name / "config.json").read_text(encoding="utf-8"))
    evolve = config["evolve"]
    config["evolve_in"] = evolve.pop("where")
    config["dream"] = {key: evolve.pop(key) for key in ("temperature", "max_steps")}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    today = RunRecords(tmp_path)
    for attribute in ("evolved_in", "predicts_done", "predicts_reward", "max_steps"):
        assert getattr(today, attribute) == getattr(records, attribute), attribute
    temperature = records.section("dream")["temperature"]
    assert today.section("dream")["temperature"] == temperature > 0


@pytest.mark.parametrize(
    ("recipe", "evolved_in", "done", "reward"),
    [
        ("take-cover-smoke", "dream", True, False),
        ("car-racing-quick", "game", False, False),
        ("car-racing-dream", "dream", False, True),
    ],
)
def test_a_new_run_says_what_its_configuration_says(tmp_path, recipe, evolved_in, done, reward):
    config = make_recipe(recipe)
    config = dataclasses.replace(config, env_kwargs={**config.env_kwargs, "max_steps": 77})
    save_config(config, tmp_path / "config.json")
    records = RunRecords(tmp_path)
    assert records.evolved_in == evolved_in
    assert (records.predicts_done, records.predicts_reward) == (done, reward)
    assert records.max_steps[0] == 77
    assert records.environment == config.environment
    assert records.section("vae")["steps"] == config.vae.steps


def test_an_empty_folder(tmp_path):
    records = RunRecords(tmp_path)
    for name in ("config", "stages", "history", "vae_log", "mdn_rnn_log", "fidelity"):
        assert not getattr(records, name), name
    for name in ("config_text", "world", "quality", "temperatures", "spec", "reward_variance"):
        assert getattr(records, name) is None, name
    assert (records.evaluations, records.sweep, records.environment) == ({}, [], "")
    assert (records.evolved_in, records.score) == ("dream", "steps survived")
    assert records.figures("evolve") == {} == records.section("dream")


def test_a_demo_has_a_world_and_no_configuration(tmp_path):
    small_world(predicts_done=False, environment="car-racing").save(tmp_path / "world")
    records = RunRecords(tmp_path)
    assert records.environment == "car-racing"
    assert not records.predicts_done


def test_a_stage_that_is_half_done_has_no_record(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "evolve.begun.json").write_text('{"stage": "evolve"}', encoding="utf-8")
    assert RunRecords(tmp_path).stages == {}


def test_a_file_is_read_once(tmp_path):
    (tmp_path / "config.json").write_text('{"environment": "car-racing"}', encoding="utf-8")
    (tmp_path / "history.jsonl").write_text('{"generation": 0}\n', encoding="utf-8")
    records = RunRecords(tmp_path)
    assert (records.environment, len(records.history)) == ("car-racing", 1)
    for path in list(tmp_path.iterdir()):
        path.unlink()
    assert (records.environment, len(records.history)) == ("car-racing", 1)


@pytest.mark.parametrize(
    ("file", "attribute"),
    [
        ("config.json", "config"),
        ("world/config.json", "world"),
        ("stages/evolve.json", "stages"),
        ("history.jsonl", "history"),
        ("vae.log.jsonl", "vae_log"),
        ("mdn_rnn.log.jsonl", "mdn_rnn_log"),
        ("fidelity.json", "fidelity"),
        ("quality.json", "quality"),
        ("evaluation.json", "evaluations"),
        ("temperatures.json", "temperatures"),
    ],
)
@pytest.mark.parametrize("text", ["[1]\n", "null\n", '{"half\n'])
def test_a_damaged_file_is_named(tmp_path, file, attribute, text):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path}"):
        getattr(RunRecords(tmp_path), attribute)


def test_the_rows_of_the_temperature_table_are_runs_in_order(tmp_path):
    for tau in ("1.15", "0.5", "10"):
        (tmp_path / "sweep" / f"tau-{tau}").mkdir(parents=True)
    names = [row.folder.name for row in RunRecords(tmp_path).sweep]
    assert names == ["tau-0.5", "tau-1.15", "tau-10"]


def test_the_line_of_an_environment():
    settings = {
        "env_id": "Game-v0",
        "environment": {"skill": 4, "render_mode": None},
        "seed": 3,
        "versions": {"vizdoom": "1.3.2"},
    }
    assert environment_line(settings) == "Game-v0 (skill 4), seed 3; vizdoom 1.3.2"

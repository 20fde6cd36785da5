"""Configurations, records and states of earlier versions, of runs that were really made."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
from small_runs import TOY, finish, small_config, with_evolve, with_section, write_small_run

from worldmodels_fast import envs
from worldmodels_fast.cli import main as cli
from worldmodels_fast.experiments.config import load_config
from worldmodels_fast.experiments.pipeline import ENGINE, STAGES, adopt, open_run, run_stage
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.migration import MOVED, migrate_config, migrate_identity, renamed_option

RUNS = sorted((Path(__file__).parents[1] / "benchmarks" / "results" / "runs").glob("*"))
BEFORE = pytest.mark.parametrize("made", RUNS, ids=lambda path: path.name)
"""Runs of the version before sections `dream` and `game`; their files lie in the repository."""


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


def was(raw, name):
    """A setting's value in a configuration of the earlier form."""
    former = next((old for old, names in MOVED.items() if name in names), name)
    section, _, field = former.partition(".")
    return raw[section][field] if field else raw[section]


@BEFORE
def test_configurations_are_read(made):
    raw = json.loads((made / "config.json").read_text(encoding="utf-8"))
    assert {"where", "temperature", "device"} <= set(raw["evolve"])
    assert "death" in raw
    config = load_config(made / "config.json")
    assert config.evolve_in == raw["evolve"]["where"]
    for section, fields in (
        ("dream", ("temperature", "max_steps", "done_threshold", "done_temperature", "calibrated")),
        ("dream", ("precision", "device")),
        ("game", ("patience", "vae_precision", "device", "workers")),
        ("evolve", ("population", "generations", "sigma0", "cma_options")),
    ):
        for field in fields:
            assert getattr(getattr(config, section), field) == was(raw, f"{section}.{field}")
    longest = raw["evolve"]["max_steps"]
    assert config.game.max_steps == (None if longest == 2100 else longest)
    again = json.loads(json.dumps(dataclasses.asdict(config)))
    assert migrate_config(again) == again
    assert migrate_config(raw)["dream"] == again["dream"]


@BEFORE
def test_records_are_those_of_their_configuration(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    config = Run.load(folder).config
    run = Run(folder, config)
    done = [name for name in STAGES if run.record(name) is not None and name != "report"]
    assert {"evolve", "evaluate"} <= set(done)
    assert [ENGINE._differences(name, run.record(name), run, None) for name in done] == [
        [] for name in done
    ]
    if "train-vae" in done:  # of an ablation, only what it did itself is in the repository
        open_run(folder, config)
        for name in done:
            run_stage(name, run)  # it is finished: does nothing
    with pytest.raises(ValueError, match=r"evolve is finished .*--dream.temperature: .*, now 1.7"):
        open_run(folder, with_section(config, "dream", temperature=1.7))
    if run.record("train-rnn") is not None:
        with pytest.raises(ValueError, match=r"train-rnn is finished .*--rnn.epochs"):
            open_run(folder, with_section(config, "rnn", epochs=99))


@pytest.mark.parametrize("name", ["fidelity", "quality"])
def test_what_an_earlier_record_does_not_hold_is_that_of_its_configuration(name, tmp_path):
    """Today's stages declare it; the version before recorded `evolve.max_steps` for `evolve`."""
    made = RUNS[[run.name for run in RUNS].index("take-cover-quick")]
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    for later in ("evolve", "evaluate"):
        (folder / "stages" / f"{later}.json").unlink()
    config = Run.load(folder).config
    other = with_section(config, "dream", max_steps=500)
    with pytest.raises(ValueError, match=rf"{name} is finished .*--dream.max-steps: 2100, now 500"):
        open_run(folder, other)
    base, fresh = Run.load(folder), Run(tmp_path / "fresh", other)
    assert not {"fidelity", "quality"} & set(adopt(fresh, base))
    # Its configuration is not there any more: nobody knows, and the result stays.
    (folder / "config.json").unlink()
    open_run(folder, other)


def test_settings_that_a_record_of_before_does_not_know_are_at_their_defaults(tmp_path, toy):
    run = write_small_run(tmp_path, small_config())
    path = tmp_path / "stages" / "train-rnn.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["format"]
    rnn = {k.removeprefix("rnn."): v for k, v in record["settings"].items() if k[:4] == "rnn."}
    del rnn["predicts_reward"], rnn["reward_limit"]  # from before M could predict rewards
    plain = {k: v for k, v in record["settings"].items() if "." not in k}
    path.write_text(json.dumps({**record, "settings": {**plain, "rnn": rnn}}), encoding="utf-8")
    open_run(tmp_path, run.config)
    with pytest.raises(ValueError, match=r"--rnn.predicts-reward: False, now True"):
        open_run(tmp_path, with_section(run.config, "rnn", predicts_reward=True))


def formerly(config):
    """`evolve` and `death` of a configuration as the version before wrote them."""
    dream, game = config.dream, config.game
    evolve = {
        **dataclasses.asdict(config.evolve),
        "where": config.evolve_in,
        "temperature": dream.temperature,
        "max_steps": dream.max_steps if config.evolve_in == "dream" else game.max_steps or 2100,
        "patience": game.patience,
        "precision": dream.precision,
        "vae_precision": game.vae_precision,
        "device": dream.device,
        "workers": game.workers,
    }
    death = {
        "threshold": dream.done_threshold,
        "temperature": dream.done_temperature,
        "calibrated": dream.calibrated,
    }
    return evolve, death


def put_back(run):
    """Turn a run that is half done with `evolve` into what the version before would have left."""
    evolve, death = formerly(run.config)
    controller = dataclasses.asdict(run.config.controller)
    path = run.folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    del raw["evolve_in"], raw["dream"], raw["game"]
    path.write_text(json.dumps({**raw, "evolve": evolve, "death": death}), encoding="utf-8")
    left_out = ("device", "workers")
    settings = {
        **{name: raw[name] for name in ("environment", "env_kwargs", "seed")},
        "evolve": {name: value for name, value in evolve.items() if name not in left_out},
        "death": death,
        "controller": controller,
        "gap": raw["gap"],
    }
    record = run.record("evolve")
    (run.folder / "stages" / "evolve.json").unlink()
    begun = {"stage": "evolve", "settings": settings, "inputs": record["inputs"]}
    (run.folder / "stages" / "evolve.begun.json").write_text(json.dumps(begun), encoding="utf-8")
    path = run.folder / "evolution_state.pickle"
    state = pickle.loads(path.read_bytes())
    gone = ("generations", "max_minutes", "workers", "rollouts", "rollout_schedule")
    state["identity"] = {
        "n_params": state["identity"]["n_params"],
        "seed": run.config.seed,
        **{name: value for name, value in evolve.items() if name not in gone},
    }
    assert {"where", "temperature", "max_steps"} <= set(state["identity"])
    path.write_bytes(pickle.dumps(state))


@pytest.mark.parametrize("place", ["dream", pytest.param("game", marks=pytest.mark.slow)])
def test_an_evolution_that_was_begun_before_goes_on_bit_for_bit(tmp_path, toy, place):
    config = dataclasses.replace(small_config(), sweep=make_recipe("take-cover-quick").sweep)
    if place == "game":
        config = dataclasses.replace(config, evolve_in="game")
        config = with_section(config, "game", max_steps=20, workers=1)
        config = with_section(config, "dream", max_steps=20)  # it was one setting
    whole = write_small_run(tmp_path / "whole", config)
    run_stage("evolve", whole)
    cut = write_small_run(tmp_path / "cut", with_evolve(config, generations=2))
    run_stage("evolve", cut)
    put_back(cut)
    for other, option in (
        (with_section(config, place, **OTHER[place]), f"--{place}.{next(iter(OTHER[place]))}"),
        (with_section(config, "controller", bias=True), "--controller.bias"),
        (with_section(config, "dream", done_threshold=1.0), "--dream.done-threshold"),
    ):
        option = option.replace("_", "-")
        with pytest.raises(ValueError, match=rf"evolve is half done .*{option}: .*, now"):
            open_run(cut.folder, other)
    run_stage("evolve", open_run(cut.folder, config))
    for name in ("controller.safetensors", "means.safetensors", "world/controller.safetensors"):
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    # The state alone, its record deleted, still knows what it is of.
    for name in ("evolve", "fidelity", "quality"):
        (cut.folder / "stages" / f"{name}.json").unlink(missing_ok=True)
    other = with_section(with_evolve(config, generations=9), place, **OTHER[place])
    with pytest.raises(ValueError, match=rf"{place}.{next(iter(OTHER[place]))}: .*, now"):
        run_stage("evolve", Run(cut.folder, other))


OTHER = {"dream": {"temperature": 0.7}, "game": {"max_steps": 30}}


def test_a_state_of_before_is_refused_under_other_settings(tmp_path, toy):
    config = with_evolve(small_config(), generations=2)
    run = write_small_run(tmp_path, config)
    run_stage("evolve", run)
    put_back(run)
    (tmp_path / "stages" / "evolve.begun.json").unlink()
    for settings in ({"temperature": 0.7}, {"max_steps": 40}, {"precision": "bf16"}):
        (name,) = settings
        with pytest.raises(ValueError, match=rf"other settings \(dream.{name}: .*, now"):
            run_stage("evolve", Run(tmp_path, with_section(config, "dream", **settings)))
    finish(run, "evolve")


def test_identities_of_states():
    before = {"n_params": 5, "sigma0": 0.1, "where": "game", "max_steps": 2100, "patience": 3}
    today = migrate_identity(before)
    assert today == {
        "n_params": 5,
        "sigma0": 0.1,
        "evolve_in": "game",
        "dream.max_steps": 2100,
        "game.max_steps": None,
        "game.patience": 3,
    }
    assert migrate_identity(today) == today


def test_options_that_have_another_name_now(capsys, tmp_path):
    command = ["run", "take-cover-smoke", "--folder", str(tmp_path / "new")]
    for old, new in (
        ("--evolve.temperature", "--dream.temperature"),
        ("--evolve.where=game", "--evolve-in"),
        ("--evolve.max_steps", "--dream.max-steps or --game.max-steps"),
        ("--death.calibrated", "--dream.calibrated"),
    ):
        assert cli.main([*command, old, "1"]) == 2
        assert capsys.readouterr().err == f"error: {old.partition('=')[0]}: it is {new} now\n"
    assert not (tmp_path / "new").exists()
    assert renamed_option("--evolve.generations") is None
    assert renamed_option("evolve.temperature") is None


def test_a_bare_value_in_place_of_a_configuration(tmp_path):
    for text, words in (
        ("null", "expected a JSON object, got null; delete the file"),
        ("[1]", "expected a JSON object, got list; delete the file"),
        ('{"recipe": "x", "evolve": 3}', "not a configuration .*repair the file"),
        ('{"recipe": "x", "evolve": {"wher": "game"}}', "unknown settings .*repair the file"),
    ):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"config.json: .*{words}"):
            load_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"recipe": "x", "vae": {"batch": 0}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json: --vae.batch: expected at least 1, got 0"):
        load_config(tmp_path / "config.json")

"""What a run's folder remembers, with stages that do nothing; and the real ones, all in a row."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
import torch
from small_episodes import made_up_latents

from worldmodels_fast import MDNRNN, VAE, World, cli, data, load_pretrained, stages
from worldmodels_fast.recipes import make_recipe
from worldmodels_fast.stages import STAGES, Run, Stage, run_all, run_stage

SMOKE = make_recipe("take-cover-smoke")


def changed(section, **settings):
    """The smoke recipe with other settings in one section."""
    if section is None:
        return dataclasses.replace(SMOKE, **settings)
    part = dataclasses.replace(getattr(SMOKE, section), **settings)
    return dataclasses.replace(SMOKE, **{section: part})


@pytest.fixture
def toy_stages(monkeypatch):
    """Stages `collect`, `train-vae` and `encode` that write one file each; the list says which."""
    done = []

    def toy(name, fails=()):
        def function(run):
            done.append(name)
            for file in STAGES[name].writes:
                (run.folder / file).touch()
            if name in failing:
                raise KeyboardInterrupt
            return {"figure": 1.5}

        return function

    failing = set()
    kept = {
        name: dataclasses.replace(STAGES[name], function=toy(name))
        for name in ("collect", "train-vae", "encode")
    }
    for name in list(STAGES):
        monkeypatch.delitem(STAGES, name)
    STAGES.update(kept)
    yield done, failing
    STAGES.clear()


def test_stages_run_once(tmp_path, toy_stages, capsys):
    done, _ = toy_stages
    folder = tmp_path / "a" / "b"
    run = Run.open(folder, SMOKE)
    assert Run.load(folder) == run
    run_all(run)
    assert done == ["collect", "train-vae", "encode"]
    record = run.record("train-vae")
    assert record["figures"] == {"figure": 1.5}
    assert record["settings"]["vae"]["steps"] == SMOKE.vae.steps
    assert record["settings"]["seed"] == SMOKE.seed
    assert record["seconds"] >= 0
    assert sorted(p.name for p in (folder / "stages").iterdir()) == [
        "collect.json",
        "encode.json",
        "train-vae.json",
    ]
    run_all(Run.open(folder, SMOKE))
    assert len(done) == 3
    assert capsys.readouterr().out.count("finished before") == 3


def test_changed_settings_are_an_error_that_changes_nothing(tmp_path, toy_stages):
    run_all(Run.open(tmp_path, SMOKE))
    for config, difference in (
        (changed("vae", steps=7), "vae.steps: 150, now 7"),
        (changed("collect", policies=("still",)), r"collect.policies: \[.*\], now \['still'\]"),
        (changed(None, seed=2), "seed: 1, now 2"),
        (changed(None, env_kwargs={"skill": 5}), "env_kwargs.skill: 4, now 5"),
    ):
        with pytest.raises(ValueError, match=f"with other settings .*{difference}"):
            Run.open(tmp_path, config)
        with pytest.raises(ValueError, match=difference):
            run_all(Run(tmp_path, config))
    assert Run.load(tmp_path).config == SMOKE
    # These change no result, and those of a stage to come no finished one.
    run_all(Run.open(tmp_path, changed("collect", workers=7)))
    Run.open(tmp_path, changed("rnn", epochs=99))


def test_what_to_delete_is_said_and_enough(tmp_path, toy_stages):
    done, _ = toy_stages
    run_all(Run.open(tmp_path, SMOKE))
    other = changed("vae", steps=7)
    delete = r"delete stages/train-vae.json vae.checkpoint vae.safetensors in there"
    with pytest.raises(ValueError, match=delete):
        Run.open(tmp_path, other)
    for name in ("stages/train-vae.json", "vae.checkpoint", "vae.safetensors"):
        (tmp_path / name).unlink()
    # What was made with the old V is not silently taken for the new one's.
    with pytest.raises(ValueError, match=r"encode is finished .*from an earlier train-vae"):
        Run.open(tmp_path, other)
    for name in ("stages/encode.json", "latents"):
        (tmp_path / name).unlink()
    done.clear()
    run_all(Run.open(tmp_path, other))
    assert done == ["train-vae", "encode"]


def test_a_half_done_stage_keeps_its_settings(tmp_path, toy_stages):
    done, failing = toy_stages
    failing.add("train-vae")
    with pytest.raises(KeyboardInterrupt):
        run_all(Run.open(tmp_path, SMOKE))
    assert Run.load(tmp_path).record("train-vae") is None
    with pytest.raises(ValueError, match=r"train-vae is half done .*vae.steps: 150, now 7"):
        Run.open(tmp_path, changed("vae", steps=7))
    failing.clear()
    run_all(Run.open(tmp_path, SMOKE))
    assert done == ["collect", "train-vae", "train-vae", "encode"]
    # One that was begun and has written nothing binds nobody.
    (tmp_path / "stages" / "encode.json").rename(tmp_path / "stages" / "encode.begun.json")
    (tmp_path / "latents").unlink()
    run_all(Run.open(tmp_path, SMOKE))


def test_records_without_identity_are_taken_as_they_are(tmp_path, toy_stages):
    done, _ = toy_stages
    run = Run.open(tmp_path, SMOKE)
    run_all(run)
    for path in (tmp_path / "stages").iterdir():
        record = json.loads(path.read_text())
        del record["id"], record["inputs"]
        path.write_text(json.dumps(record))
    run_all(Run.open(tmp_path, SMOKE))
    assert len(done) == 3


def test_a_damaged_record_is_named(tmp_path, toy_stages):
    run = Run.open(tmp_path, SMOKE)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "collect.json").write_text("{")
    with pytest.raises(ValueError, match=r"collect.json: not JSON .*delete it"):
        run_all(run)


def test_a_folder_of_another_recipe(tmp_path):
    Run.open(tmp_path, SMOKE)
    with pytest.raises(ValueError, match="is a run of take-cover-smoke, not of take-cover-quick"):
        Run.open(tmp_path, make_recipe("take-cover-quick"))
    with pytest.raises(ValueError, match="no run in here"):
        Run.load(tmp_path / "nowhere")


def test_stages_name_one_another_rightly():
    names = list(STAGES)
    for i, stage in enumerate(STAGES.values()):
        assert isinstance(stage, Stage)
        assert set(stage.reads) <= set(names[:i])
        assert all(hasattr(SMOKE, section) for section in stage.settings)
        assert stage.function.__doc__
    with pytest.raises(ValueError, match=r"stage: expected one of collect, .*got 'colect'"):
        run_stage("colect", Run(None, SMOKE))


def test_damaged_weights_are_named(tmp_path):
    run = Run.open(tmp_path, SMOKE)
    (tmp_path / "vae.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"vae.safetensors: cannot be read .*`train-vae` again"):
        run.load_vae()


def test_v_and_m_are_stored_in_fp32(tmp_path):
    run = Run.open(tmp_path, changed("vae", latent_dim=3))
    run = Run(tmp_path, dataclasses.replace(run.config, rnn=dataclasses.replace(SMOKE.rnn)))
    torch.manual_seed(0)
    vae, rnn = VAE(3), MDNRNN(3, 1, SMOKE.rnn.hidden_dim, predicts_done=True)
    stages._save_weights(vae, tmp_path / "vae.safetensors")
    stages._save_weights(rnn, tmp_path / "mdn_rnn.safetensors")
    for saved, loaded in ((vae, run.load_vae()), (rnn, run.load_mdn_rnn())):
        assert not loaded.training
        for name, tensor in saved.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    controller = run.new_controller()
    assert controller.n_params == 3 + 2 * SMOKE.rnn.hidden_dim


def test_first_latents_are_those_of_training_episodes(tmp_path):
    run = Run.open(tmp_path, SMOKE)
    with pytest.raises(ValueError, match="no latents; run the stage `encode` first"):
        run.first_latents()
    for shard in range(3):
        data.write_latents(run.latents, shard, made_up_latents([4, 3], seed=shard))
    mu, logvar = run.first_latents()
    assert mu.shape == logvar.shape == (4, 3)  # the third shard is held out
    assert mu[:, 1].tolist() == [0, 0, 0, 0]  # made-up latents count their steps


# --- all of it --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # whatever libraries say in a run, it is no failure
def test_the_smoke_recipe_from_end_to_end(tmp_path, capsys):
    folder = tmp_path / "smoke"
    command = ["run", "take-cover-smoke", "--folder", str(folder)]
    began = time.monotonic()
    assert cli.main(command) == 0
    seconds = time.monotonic() - began
    out = capsys.readouterr().out
    print(out, f"\nthe smoke recipe took {seconds:.0f} s")
    assert "Steps survived in the real game (take-cover, skill 4" in out

    records = {name: json.loads((folder / f"stages/{name}.json").read_text()) for name in STAGES}
    assert records["collect"]["figures"]["frames_kept"] > 40 * 100
    assert records["evolve"]["figures"]["generations"] == SMOKE.evolve.generations
    evaluation = json.loads((folder / "evaluation.json").read_text())
    for name in ("agent", "random"):
        assert len(evaluation[name]["episodes"]) == 4
        assert evaluation[name]["settings"]["environment"]["skill"] == 4
    rows = json.loads((folder / "fidelity.json").read_text())["rows"]
    assert [row["player"] for row in rows] == list(SMOKE.fidelity.policies)
    world = load_pretrained(folder / "world")
    assert isinstance(world, World)
    assert "take-cover" in world.card
    population = np.zeros((2, world.controller.n_params), np.float32)
    assert world.dream().evaluate(population, rollouts=2, seed=0).returns.shape == (2, 2)
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("In the real game", "The dream beside the game", "Training V", "Training M"):
        assert heading in page
    assert not list(folder.rglob("*unfinished*"))

    # Again: all is finished, nothing is done but the report.
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("finished before") == len(STAGES) - 1
    for name, record in records.items():
        if name != "report":
            assert json.loads((folder / f"stages/{name}.json").read_text()) == record
    # Other settings are an error, and the run is as it was.
    assert cli.main([*command, "--vae.steps", "7"]) == 2
    assert "vae.steps: 150, now 7" in capsys.readouterr().err
    assert cli.main(["evolve", str(folder)]) == 0
    # A stage can be done again alone.
    (folder / "stages/evaluate.json").unlink()
    shutil.rmtree(folder / "game")
    assert cli.main(["evaluate", str(folder)]) == 0
    again = json.loads((folder / "evaluation.json").read_text())
    assert again["agent"]["episodes"] == evaluation["agent"]["episodes"]

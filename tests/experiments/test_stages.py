"""What a run's folder remembers, with stages that do nothing; and the real ones, all in a row."""

import dataclasses
import json
import re
import shutil
import time
from operator import attrgetter

import numpy as np
import pytest
import torch
from small_episodes import made_up_latents
from small_runs import (
    TOY,
    finish,
    small_config,
    with_evolve,
    with_section,
    write_small_run,
)

from worldmodels_fast import MDNRNN, VAE, World, data, envs, load_pretrained, ops
from worldmodels_fast.cli import main as cli
from worldmodels_fast.evolution.cma import load_means
from worldmodels_fast.experiments.config import GapConfig
from worldmodels_fast.experiments.engine import Stage
from worldmodels_fast.experiments.pipeline import (
    ENGINE,
    STAGES,
    adopt,
    compare_run,
    open_run,
    run_all,
    run_stage,
)
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run, save_weights
from worldmodels_fast.rollout.game import Game
from worldmodels_fast.utils.files import write_json
from worldmodels_fast.utils.seeding import derive_seed

SMOKE = make_recipe("take-cover-smoke")


def changed(section, **settings):
    """The smoke recipe with other settings in one section."""
    if section is None:
        return dataclasses.replace(SMOKE, **settings)
    part = dataclasses.replace(getattr(SMOKE, section), **settings)
    return dataclasses.replace(SMOKE, **{section: part})


@pytest.fixture
def toy_stages():
    """Stages `collect`, `train-vae` and `encode` that write one file each; the list says which."""
    done = []

    def toy(name, fails=()):
        def function(run):
            done.append(name)
            for file in STAGES[name].writes + STAGES[name].needs:
                (run.folder / file).touch()
            if name in failing:
                raise KeyboardInterrupt
            return {"figure": 1.5}

        return function

    failing = set()
    real = dict(STAGES)
    kept = {
        name: dataclasses.replace(STAGES[name], function=toy(name))
        for name in ("collect", "train-vae", "encode")
    }
    STAGES.clear()
    STAGES.update(kept)
    yield done, failing
    STAGES.clear()
    STAGES.update(real)


def test_stages_run_once(tmp_path, toy_stages, capsys):
    done, _ = toy_stages
    folder = tmp_path / "a" / "b"
    run = open_run(folder, SMOKE)
    assert Run.load(folder) == run
    run_all(run)
    assert done == ["collect", "train-vae", "encode"]
    record = run.record("train-vae")
    assert record["figures"] == {"figure": 1.5}
    assert record["settings"]["vae.steps"] == SMOKE.vae.steps
    assert record["settings"]["seed"] == SMOKE.seed
    assert record["seconds"] >= 0
    assert record["peak_rss_mb"]["process"] > 10
    assert record["peak_rss_mb"]["with_children"] >= record["peak_rss_mb"]["process"]
    assert sorted(p.name for p in (folder / "stages").iterdir()) == [
        "collect.json",
        "encode.json",
        "train-vae.json",
    ]
    run_all(open_run(folder, SMOKE))
    assert len(done) == 3
    assert capsys.readouterr().out.count("finished before") == 3


def test_changed_settings_are_an_error_that_changes_nothing(tmp_path, toy_stages):
    run_all(open_run(tmp_path, SMOKE))
    for config, difference in (
        (changed("vae", steps=7), "--vae.steps: 150, now 7"),
        (changed("collect", policies=("still",)), r"--collect.policies: \[.*\], now \['still'\]"),
        (changed(None, seed=2), "--seed: 1, now 2"),
        (changed(None, env_kwargs={"skill": 5}), "--env-kwargs.skill: 4, now 5"),
    ):
        with pytest.raises(ValueError, match=f"with other settings .*{difference}"):
            open_run(tmp_path, config)
        with pytest.raises(ValueError, match=difference):
            run_all(Run(tmp_path, config))
    assert Run.load(tmp_path).config == SMOKE
    # These change no result, and those of a stage to come no finished one.
    run_all(open_run(tmp_path, changed("collect", workers=7)))
    open_run(tmp_path, changed("rnn", epochs=99))


def test_what_to_delete_is_said_and_enough(tmp_path, toy_stages):
    done, _ = toy_stages
    run_all(open_run(tmp_path, SMOKE))
    other = changed("vae", steps=7)
    delete = r"delete stages/train-vae.json vae.log.jsonl vae.safetensors vae.checkpoint in there"
    with pytest.raises(ValueError, match=delete):
        open_run(tmp_path, other)
    for name in re.search("delete (.*) in there", delete)[1].split():
        (tmp_path / name).unlink()
    # What was made with the old V is not silently taken for the new one's.
    with pytest.raises(ValueError, match=r"encode is finished .*from an earlier train-vae"):
        open_run(tmp_path, other)
    for name in ("stages/encode.json", "latents"):
        (tmp_path / name).unlink()
    done.clear()
    run_all(open_run(tmp_path, other))
    assert done == ["train-vae", "encode"]


def test_a_half_done_stage_keeps_its_settings(tmp_path, toy_stages):
    done, failing = toy_stages
    failing.add("train-vae")
    with pytest.raises(KeyboardInterrupt):
        run_all(open_run(tmp_path, SMOKE))
    assert Run.load(tmp_path).record("train-vae") is None
    with pytest.raises(ValueError, match=r"train-vae is half done .*vae.steps: 150, now 7"):
        open_run(tmp_path, changed("vae", steps=7))
    failing.clear()
    run_all(open_run(tmp_path, SMOKE))
    assert done == ["collect", "train-vae", "train-vae", "encode"]
    # One that was begun and has written nothing binds nobody.
    (tmp_path / "stages" / "encode.json").rename(tmp_path / "stages" / "encode.begun.json")
    (tmp_path / "latents").unlink()
    run_all(open_run(tmp_path, SMOKE))


def test_records_without_identity_are_taken_as_they_are(tmp_path, toy_stages):
    done, _ = toy_stages
    run = open_run(tmp_path, SMOKE)
    run_all(run)
    for path in (tmp_path / "stages").iterdir():
        record = json.loads(path.read_text(encoding="utf-8"))
        del record["id"], record["inputs"]
        path.write_text(json.dumps(record), encoding="utf-8")
    run_all(open_run(tmp_path, SMOKE))
    assert len(done) == 3


def test_settings_that_a_record_does_not_know_are_at_their_defaults(tmp_path, toy_stages):
    run = open_run(tmp_path, SMOKE)
    run_all(run)
    path = tmp_path / "stages" / "train-vae.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["settings"]["vae.kl_tolerance"]
    path.write_text(json.dumps(record), encoding="utf-8")
    run_all(open_run(tmp_path, SMOKE))
    with pytest.raises(ValueError, match=r"--vae.kl-tolerance: 0.5, now 0.7"):
        open_run(tmp_path, changed("vae", kl_tolerance=0.7))


def test_settings_of_a_further_round_decide_nothing_in_a_first_one(tmp_path, toy_stages):
    done, _ = toy_stages
    run_all(open_run(tmp_path, SMOKE))
    done.clear()
    run_all(open_run(tmp_path, changed("round", episodes=7)))
    assert done == []


def test_a_half_done_stage_knows_what_it_was_begun_from(tmp_path, toy_stages):
    _, failing = toy_stages
    STAGES["encode"] = dataclasses.replace(STAGES["encode"], resumes_blindly=False)
    failing.add("encode")
    run = open_run(tmp_path, SMOKE)
    with pytest.raises(KeyboardInterrupt):
        run_all(run)
    finish(run, "train-vae")  # V is trained anew
    with pytest.raises(ValueError, match=r"encode is half done .*from an earlier train-vae"):
        run_all(run)


def test_a_run_begins_with_what_another_has_finished(tmp_path, toy_stages):
    done, _ = toy_stages
    base = open_run(tmp_path / "base", SMOKE)
    run_all(base)
    done.clear()
    same = open_run(tmp_path / "same", dataclasses.replace(SMOKE, recipe="take-cover-z-only"))
    for _ in range(2):  # once more does nothing
        assert adopt(same, base) == ["collect", "train-vae", "encode"]
    run_all(same)
    assert done == []
    assert same.record("train-vae")["id"] == base.record("train-vae")["id"]
    assert (same.folder / "vae.safetensors").is_file()
    assert not (same.folder / "vae.checkpoint").exists()
    assert (same.folder / "latents").is_symlink()
    assert (same.folder / "latents").resolve() == (base.folder / "latents").resolve()

    other = open_run(tmp_path / "other", changed("vae", steps=7))
    assert adopt(other, base) == ["collect"]
    run_all(other)
    assert done == ["train-vae", "encode"]
    assert adopt(other, base) == ["collect"]  # its own V stays its own

    begun = open_run(tmp_path / "begun", SMOKE)
    write_json(begun.folder / "stages" / "train-vae.begun.json", {})
    assert adopt(begun, base) == ["collect"]  # its own training is going on

    finish(base, "train-vae")
    with pytest.raises(ValueError, match=r"encode is finished in .*from an earlier train-vae"):
        adopt(open_run(tmp_path / "new", SMOKE), base)
    finish(base, "encode")
    with pytest.raises(ValueError, match=r"same: its train-vae is that of .*base, where it has"):
        adopt(same, base)
    (base.folder / "stages" / "train-vae.json").unlink()
    with pytest.raises(ValueError, match=r"same: its train-vae is that of .*has been deleted"):
        adopt(same, base)


def test_adopting_deletes_nothing_that_has_no_record(tmp_path, toy_stages):
    base = open_run(tmp_path / "base", SMOKE)
    run_all(base)
    own = open_run(tmp_path / "own", SMOKE)
    (own.folder / "vae.safetensors").write_bytes(b"days of work")
    with pytest.raises(ValueError, match=r"own: vae.safetensors of train-vae are there, without"):
        adopt(own, base)
    assert (own.folder / "vae.safetensors").read_bytes() == b"days of work"
    # What an adoption has left that was killed is replaced.
    write_json(own.folder / "stages" / "train-vae.adopting.json", {"from": str(base.folder)})
    assert "train-vae" in adopt(own, base)
    assert not (own.folder / "stages" / "train-vae.adopting.json").exists()


def test_results_without_an_id_are_adopted_and_again(tmp_path, toy_stages):
    base = open_run(tmp_path / "base", SMOKE)
    run_all(base)
    for path in (base.folder / "stages").iterdir():
        record = json.loads(path.read_text(encoding="utf-8"))
        del record["id"]  # as the first versions wrote them
        write_json(path, {**record, "inputs": dict.fromkeys(record["inputs"])})
    own = open_run(tmp_path / "own", SMOKE)
    assert "collect" in adopt(own, base)
    assert "collect" in adopt(own, base)


def test_a_damaged_record_is_named(tmp_path, toy_stages):
    run = open_run(tmp_path, SMOKE)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "collect.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"collect.json: not JSON .*; delete the file"):
        run_all(run)


def test_a_folder_of_another_recipe(tmp_path):
    open_run(tmp_path, SMOKE)
    with pytest.raises(ValueError, match="is a run of take-cover-smoke, not of take-cover-quick"):
        open_run(tmp_path, make_recipe("take-cover-quick"))
    with pytest.raises(ValueError, match="no run in here"):
        Run.load(tmp_path / "nowhere")


def test_stages_name_one_another_rightly():
    names = list(STAGES)
    for i, stage in enumerate(STAGES.values()):
        assert isinstance(stage, Stage)
        assert set(stage.reads) <= set(names[:i])
        assert all(attrgetter(name)(SMOKE) is not None for name in stage.settings)
        assert set(stage.may_change) <= set(ENGINE.settings_of(names[i], SMOKE))
        assert stage.function.__doc__
    with pytest.raises(ValueError, match=r"stage: expected one of collect, .*got 'colect'"):
        run_stage("colect", Run(None, SMOKE))


def test_damaged_weights_are_named(tmp_path):
    run = open_run(tmp_path, SMOKE)
    (tmp_path / "vae.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"vae.safetensors: damaged.* run `train-vae` again"):
        run.load_vae()


def test_v_and_m_are_stored_in_fp32(tmp_path):
    run = open_run(tmp_path, changed("vae", latent_dim=3))
    run = Run(tmp_path, dataclasses.replace(run.config, rnn=dataclasses.replace(SMOKE.rnn)))
    torch.manual_seed(0)
    vae, rnn = VAE(3), MDNRNN(3, 1, SMOKE.rnn.hidden_dim, predicts_done=True)
    save_weights(vae, tmp_path / "vae.safetensors")
    save_weights(rnn, tmp_path / "mdn_rnn.safetensors")
    for saved, loaded in ((vae, run.load_vae()), (rnn, run.load_mdn_rnn())):
        assert not loaded.training
        for name, tensor in saved.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    controller = run.new_controller()
    assert controller.n_params == 3 + 2 * SMOKE.rnn.hidden_dim


def test_first_latents_are_those_of_training_episodes(tmp_path):
    run = open_run(tmp_path, SMOKE)
    with pytest.raises(ValueError, match="no latents; run the stage `encode` first"):
        run.first_latents()
    for shard in range(3):
        data.write_latents(run.latents, shard, made_up_latents([4, 3], seed=shard))
    mu, logvar = run.first_latents()
    assert mu.shape == logvar.shape == (4, 3)  # the third shard is held out
    assert mu[:, 1].tolist() == [0, 0, 0, 0]  # made-up latents count their steps


# --- evolve and evaluate, on a small random world and a toy game ------------------------------


@pytest.fixture
def toy_game(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


@pytest.mark.slow
def test_the_gap_is_watched_and_changes_nothing(tmp_path, toy_game, capsys):
    plain = write_small_run(tmp_path / "plain", small_config())
    config = dataclasses.replace(plain.config, gap=GapConfig(every=3, episodes=2))
    watched = write_small_run(tmp_path / "watched", config)
    for run in (plain, watched):
        run_stage("evolve", run)
    for name in ("controller.safetensors", "world/controller.safetensors"):
        same = [(run.folder / name).read_bytes() for run in (plain, watched)]
        assert same[0] == same[1]
    history = [
        json.loads(s)
        for s in (watched.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    gaps = [row for row in history if "gap" in row]
    assert [row["generation"] for row in gaps] == [2, 4]  # every third, and the last
    assert "  dream " in capsys.readouterr().out
    means = load_means(watched.folder / "means.safetensors")
    assert sorted(means) == [1, 2, 3, 4]
    assert sorted(load_means(plain.folder / "means.safetensors")) == [1, 3, 4]
    mdn_rnn, controller, _ = watched.player()
    with Game(
        watched.load_vae(), mdn_rnn, controller, TOY.env_id, env_kwargs=config.env_kwargs
    ) as game:
        for row in gaps:
            seed = derive_seed(config.seed, "gap/game")
            real = game.evaluate(means[row["generation"]][None], 2, seed).returns
            assert (row["real_score"], row["real_std"]) == (real.mean(), real.std())
            assert row["gap"] == row["dream_score"] - row["real_score"]
    assert gaps[1]["dream_score"] == gaps[1]["mean_score"]  # scored then, too

    # The final controller is chosen without it; the best by real score is played beside it.
    gaps[0]["real_score"], chosen = 1e6, watched.record("evolve")["figures"]["from_generation"]
    (watched.folder / "history.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in history), encoding="utf-8"
    )
    run_stage("evaluate", watched)
    evaluation = json.loads((watched.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert list(evaluation) == ["agent", "best-by-real", "random"]
    assert evaluation["best-by-real"]["summary"]["max"] < 1e6
    digests = {evaluation[name]["settings"]["world"] for name in ("agent", "best-by-real")}
    assert len(digests) == 2
    seeds = {tuple(e["seed"] for e in evaluation[name]["episodes"]) for name in evaluation}
    assert len(seeds) == 1
    figures = watched.record("evaluate")["figures"]
    assert figures["chosen"]["agent"]["generation"] == chosen
    assert figures["chosen"]["best-by-real"]["generation"] == 2
    rows = json.loads((watched.folder / "fidelity.json").read_text(encoding="utf-8"))["rows"]
    assert [(r["player"], r["kind"], len(r["dream_scores"])) for r in rows] == [
        ("agent", "controller", 8),
        ("best-by-real", "controller", 8),
    ]
    # Where both are one, it is played once.
    gaps[0]["real_score"] = -1e6
    gaps[1]["real_score"] = -1e6
    history[chosen]["real_score"] = 0.0
    (watched.folder / "history.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in history), encoding="utf-8"
    )
    (watched.folder / "stages" / "evaluate.json").unlink()
    run_stage("evaluate", watched)
    evaluation = json.loads((watched.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["best-by-real"] == evaluation["agent"]


@pytest.mark.slow
def test_dream_against_game_with_the_controller(tmp_path, toy_game, capsys):
    run = write_small_run(tmp_path, small_config())
    run_stage("evolve", run)
    compare_run(run)
    rows = json.loads((tmp_path / "fidelity.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["player"], row["kind"]) for row in rows] == [
        ("still", "policy"),
        ("agent", "controller"),
    ]
    out = capsys.readouterr().out
    assert "| still |" in out
    assert "| agent |" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"memory": "untrained"}, {"latent": "mu"}, {"features": ("z",)}]
)
def test_ablations_evolve_and_play(tmp_path, toy_game, settings):
    config = small_config()
    controller = dataclasses.replace(config.controller, **settings)
    config = with_evolve(dataclasses.replace(config, controller=controller), generations=2)
    run = write_small_run(tmp_path, dataclasses.replace(config, gap=GapConfig(2, 1)))
    run_stage("evolve", run)
    run_stage("evaluate", run)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["agent"]["settings"]["latent"] == settings.get("latent", "sample")
    world = World.load(run.world)
    assert world.config["latent"] == settings.get("latent", "sample")
    assert (world.initial_latents[1] < -50).all() == (settings == {"latent": "mu"})
    means = load_means(tmp_path / "means.safetensors")
    assert means[1].shape == (run.new_controller().n_params,)


# --- all of it --------------------------------------------------------------------------------


def test_a_calibrated_death_is_the_one_that_was_fitted_after_ms_training(tmp_path, toy_game):
    config = with_section(with_evolve(small_config(), generations=1), "dream", calibrated=True)
    run = write_small_run(tmp_path, config)
    with pytest.raises(ValueError, match=r"--dream\.calibrated: M has no calibration: .*train-rnn"):
        run_stage("evolve", run)
    path = tmp_path / "stages" / "train-rnn.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["figures"]["death"] = {"none": "done: expected some ends, got 0/9"}
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="no calibration: done: expected some ends"):
        run_stage("evolve", run)
    record["figures"]["death"] = {"threshold": 2.5, "temperature": 1.25}
    path.write_text(json.dumps(record), encoding="utf-8")
    run_stage("evolve", run)
    dream = World.load(run.world).config["dream"]
    assert (dream["done_threshold"], dream["done_temperature"]) == (2.5, 1.25)


@pytest.mark.skipif(not ops.why_no_cuda(), reason="there is a CUDA device")
def test_evolving_on_a_device_that_is_not_there_says_why(tmp_path, toy_game):
    run = write_small_run(tmp_path, with_section(small_config(), "dream", device="cuda"))
    with pytest.raises(ValueError, match="CUDA"):
        run_stage("evolve", run)


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

    records = {
        name: json.loads((folder / f"stages/{name}.json").read_text(encoding="utf-8"))
        for name in STAGES
    }
    assert records["collect"]["figures"]["frames_kept"] > 40 * 100
    assert records["evolve"]["figures"]["generations"] == SMOKE.evolve.generations
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("agent", "random"):
        assert len(evaluation[name]["episodes"]) == 4
        assert evaluation[name]["settings"]["environment"]["skill"] == 4
    rows = json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))["rows"]
    policies = [row["player"] for row in rows if row["kind"] == "policy"]
    assert policies == list(SMOKE.fidelity.policies)
    controllers = {row["player"] for row in rows if row["kind"] == "controller"}
    assert {"agent", "tau 0.5", "tau 1.15"} <= controllers
    assert "best-by-real" in evaluation
    table = json.loads((folder / "temperatures.json").read_text(encoding="utf-8"))
    assert [row["temperature"] for row in table["rows"]] == [0.5, 1.15]
    assert (folder / "figures" / "temperatures.png").is_file()
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
    capsys.readouterr()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("finished before") == len(STAGES) - 1
    for name, record in records.items():
        if name != "report":
            assert (
                json.loads((folder / f"stages/{name}.json").read_text(encoding="utf-8")) == record
            )
    # Other settings are an error, and the run is as it was.
    assert cli.main([*command, "--vae.steps", "7"]) == 2
    assert "vae.steps: 150, now 7" in capsys.readouterr().err
    assert cli.main(["evolve", str(folder)]) == 0
    # A stage can be done again alone.
    (folder / "stages/evaluate.json").unlink()
    shutil.rmtree(folder / "game")
    assert cli.main(["evaluate", str(folder)]) == 0
    again = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert again["agent"]["episodes"] == evaluation["agent"]["episodes"]

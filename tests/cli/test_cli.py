import json
import subprocess
import sys

import pytest
from small_worlds import small_world

from worldmodels_fast.cli import demo, doctor, evaluate, fidelity, stage, usage
from worldmodels_fast.cli import main as cli
from worldmodels_fast.cli import run as cli_run
from worldmodels_fast.experiments.pipeline import STAGES
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe


def main(capsys, *args):
    status = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_help_lists_everything(capsys, args):
    status, out, err = main(capsys, *args)
    assert (status, err) == (0, "")
    for name in ("demo", "run", "bench", "doctor", *STAGES, *RECIPES):
        assert f"  {name} " in out


def test_help_lists_the_stages_in_their_order():
    assert list(usage.STAGES) == list(STAGES)


def test_help_does_not_import_torch():
    """`--help` and `--version` import nothing that only another command needs."""
    code = (
        "import sys; from worldmodels_fast.cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'matplotlib', 'vizdoom', 'cma', 'tyro'} & set(sys.modules)))"
    )
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("\n[]\n"), done.stdout


@pytest.mark.parametrize("command", ["demo", "run", "bench", "doctor", *STAGES])
def test_every_command_has_help(capsys, command):
    status, out, err = main(capsys, command, "--help")
    assert (status, err) == (0, "")
    assert "usage:" in out
    assert len(out) > 30


def test_settings_have_help(capsys):
    status, out, _ = main(capsys, "run", "take-cover-quick", "--help")
    assert status == 0
    for option in ("--folder", "--vae.steps", "--dream.temperature", "--seed", "--env-kwargs"):
        assert option in out


def test_an_unknown_command(capsys):
    status, out, err = main(capsys, "rum", "take-cover-smoke")
    assert (status, out) == (2, "")
    assert "no command 'rum'" in err
    assert "did you mean 'run'? worldmodels-fast --help lists them" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run"], "usage: worldmodels-fast run RECIPE"),
        (["run", "--folder", "x"], "usage: worldmodels-fast run RECIPE"),
        (["run", "take-cover-smok"], "recipe: expected one of take-cover-smoke"),
        (["run", "take-cover-smoke", "--vae.stepz", "3"], "--vae.stepz"),
        (["run", "take-cover-smoke", "--vae.steps", "many"], "many"),
        (["run", "take-cover-smoke", "--environment", "pong"], "'take-cover', got 'pong'"),
        (["collect"], "usage: worldmodels-fast collect FOLDER"),
        (["collect", "new", "take-cover-smok"], "recipe: expected one of take-cover-smoke"),
        (["collect", "new"], "new: no run in here yet; name a recipe"),
        (
            ["collect", "new", "take-cover-smoke", "--collect.episodes", "0"],
            "--collect.episodes: expected",
        ),
        (["demo", "--generation", "3"], "--generation"),
        (["demo", "--world", "take-over"], "'take-over'"),
        (["demo", "--episodes", "0", "--world", "."], "--episodes: expected at least 1, got 0"),
        (["doctor", "now"], "usage: worldmodels-fast doctor"),
        (["run", "take-cover-z-only", "--from", "nowhere"], "nowhere: no run in here"),
        (["run", "take-cover-z-only", "--from=nowhere"], "nowhere: no run in here"),
        (["sweep-temperature"], "usage: worldmodels-fast sweep-temperature FOLDER"),
        (["sweep-temperature", "new"], "new: no run in here yet; name a recipe"),
        (["sweep-temperature", "take-cover-smoke", "--taus", "-1"], "different positive numbers"),
        (["sweep-temperature", "new", "take-cover-smoke", "--taus", "hot"], "hot"),
    ],
)
def test_misuse_is_status_2_and_one_clear_message(capsys, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = main(capsys, *args)
    assert status == 2
    assert out in ("", "collect: 0 episodes\n")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("train-vae", "no episodes; run the stage `collect` first"),
        ("encode", "vae.safetensors: not there yet; run the stage `train-vae` first"),
        ("train-rnn", "no latents; run the stage `encode` first"),
        ("fidelity", "mdn_rnn.safetensors: not there yet; run the stage `train-rnn` first"),
        ("evolve", "vae.safetensors: not there yet; run the stage `train-vae` first"),
        ("evaluate", "run the stage `evolve` first"),
    ],
)
def test_a_stage_without_its_input(capsys, tmp_path, stage, words):
    status, _, err = main(capsys, stage, tmp_path / "run", "take-cover-smoke")
    assert status == 2
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "stages" / f"{stage}.json").exists()
    # Nothing is spoilt by it: the settings may still be others.
    status, _, err = main(capsys, stage, tmp_path / "run", "--seed", "5")
    assert words in err
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["seed"] == 5


def test_a_report_of_a_new_run_holds_its_settings(capsys, tmp_path):
    status, out, _ = main(capsys, "report", tmp_path / "run", "take-cover-smoke")
    assert status == 0
    assert "report.html" in out
    assert "take-cover-smoke" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_settings_reach_the_stage(capsys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(stage, "run_stage", lambda name, run: seen.append((name, run)))
    options = ["--collect.policies", "still", "swing-10", "--vae.final-learning-rate", "1e-6"]
    status, _, _ = main(capsys, "train-vae", tmp_path, "take-cover-smoke", *options, "--seed", "9")
    assert status == 0
    ((name, run),) = seen
    assert name == "train-vae"
    assert run.folder == tmp_path
    assert run.config.collect.policies == ("still", "swing-10")
    assert run.config.vae.final_learning_rate == 1e-6
    assert run.config.vae.steps == make_recipe("take-cover-smoke").vae.steps
    assert run.config.env_kwargs == make_recipe("take-cover-smoke").env_kwargs
    # They are remembered.
    status, _, _ = main(capsys, "encode", tmp_path)
    assert (status, seen[1][1].config) == (0, run.config)
    status, _, err = main(capsys, "encode", tmp_path, "take-cover-quick")
    assert status == 2
    assert "is a run of take-cover-smoke, not of take-cover-quick" in err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ValueError("bad thing"), 2, "error: bad thing"),
        (FileNotFoundError("no such shard"), 2, "error: no such shard"),
        (RuntimeError("worker died"), 1, "failed: worker died"),
        (FloatingPointError("V's loss"), 1, "failed: V's loss"),
        (OSError("disk full"), 1, "failed: disk full"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
    ],
)
def test_exit_statuses(capsys, tmp_path, monkeypatch, error, status, words):
    def fail(name, run):
        raise error

    monkeypatch.setattr(stage, "run_stage", fail)
    got, _, err = main(capsys, "collect", tmp_path, "take-cover-smoke")
    assert got == status
    assert words in err


def test_a_workers_traceback_is_shown(capsys, tmp_path, monkeypatch):
    def fail(name, run):
        error = RuntimeError("task 3 failed")
        error.add_note("in the worker:\nTraceback ...")
        raise error

    monkeypatch.setattr(stage, "run_stage", fail)
    _, _, err = main(capsys, "collect", tmp_path, "take-cover-smoke")
    assert err == "failed: task 3 failed\nin the worker:\nTraceback ...\n"


def test_doctor(capsys, monkeypatch):
    status, out, _ = main(capsys, "doctor")
    assert status == 0
    for words in ("ok  torch: ", "ok  kernels: ", "ok  kernels agree with torch: ", "ok  Doom: "):
        assert words in out

    def broken():
        raise RuntimeError("no [libfoo] here")

    monkeypatch.setattr(doctor, "_doom", broken)
    status, out, _ = main(capsys, "doctor")
    assert status == 1
    assert "no  Doom: RuntimeError: no [libfoo] here" in out


@pytest.mark.slow
def test_the_demo(capsys, tmp_path):
    world = small_world(
        environment="take-cover",
        env_kwargs={"skill": 4, "max_steps": 100},
        dream={"max_steps": 50},
    )
    world.save(tmp_path / "world")
    folder = tmp_path / "demo"
    options = ["--generations", 2, "--episodes", 1, "--folder", folder]
    for _ in range(2):  # a second demo replaces the first
        status, out, err = main(capsys, "demo", "--world", tmp_path / "world", *options)
        assert status == 0, err
        for words in (
            "parameters, all zero, is evolved",
            "plays the real game",
            "agent ",
            "random ",
            "skill 4",
            "report.html",
        ):
            assert words in out
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert len(evaluation["agent"]["episodes"]) == len(evaluation["random"]["episodes"]) == 1
    assert len((folder / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The dream beside the game" in page


def test_a_demo_in_no_environment(tmp_path):
    small_world().save(tmp_path / "world")
    with pytest.raises(ValueError, match=r"environment: .* got None"):
        demo.demo(demo.DemoConfig(world=str(tmp_path / "world"), folder=tmp_path / "demo"))
    assert not (tmp_path / "demo").exists()


def test_a_demo_in_a_dream_whose_members_all_score_the_same(capsys):
    status, out, err = main(capsys, "demo", "--world", "car-racing", "--folder", "never")
    assert (status, out) == (2, "")
    assert "--world: expected a world whose M predicts an end or a reward" in err


@pytest.mark.slow
def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "worldmodels_fast", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: worldmodels-fast COMMAND")


def test_stages_are_the_runs_order():
    assert list(STAGES) == [
        "collect",
        "train-vae",
        "encode",
        "train-rnn",
        "fidelity",
        "quality",
        "evolve",
        "evaluate",
        "sweep-temperature",
        "report",
    ]


def test_the_version(capsys):
    status, out, _ = main(capsys, "--version")
    assert status == 0
    assert out.startswith("worldmodels-fast ")


def test_a_run_in_a_relative_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--collect.episodes", "2", "--collect.shard-episodes", "1"]
    status, _, err = main(capsys, "collect", "runs/here", "take-cover-smoke", *options)
    assert (status, err) == (0, "")
    assert len(list((tmp_path / "runs/here/episodes").iterdir())) == 2


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--dream.temperature", "-1"], "--dream.temperature: expected a finite number above 0"),
        (["--collect.policies", "dance"], "--collect.policies: expected one of uniform"),
        (["--env-kwargs.resolution", "1x1"], "--env-kwargs: take-cover refuses them: resolution"),
        (["--controller.features", "x"], "--controller.features: expected a non-empty choice"),
    ],
)
def test_what_would_fail_in_a_later_stage_fails_before_the_first(capsys, tmp_path, option, words):
    folder = tmp_path / "run"
    status, _, err = main(capsys, "run", "take-cover-smoke", "--folder", folder, *option)
    assert status == 2
    assert words in err
    assert not folder.exists()


def test_dream_fidelity_is_the_comparison(capsys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluate, "compare_run", lambda run: seen.append(run.folder))
    monkeypatch.setattr(
        fidelity, "compare_world", lambda world, config: seen.append((world, config))
    )
    command = ["evaluate", tmp_path / "run", "take-cover-smoke", "--dream-fidelity"]
    assert main(capsys, *command)[0] == 0
    options = ["--dream-fidelity", "--real-episodes", "3"]
    assert main(capsys, "evaluate", "take-cover", *options)[0] == 0
    folder, (world, config) = seen
    assert folder == tmp_path / "run"
    assert (world, config.real_episodes) == ("take-cover", 3)
    # It is no option of other stages.
    status, _, err = main(capsys, "evolve", tmp_path / "run", "--dream-fidelity")
    assert status == 2
    assert "--dream-fidelity" in err


def test_an_ablation_takes_the_settings_of_the_run_that_it_is_from(capsys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli_run, "run_all", seen.append)
    base = tmp_path / "base"
    command = ["run", "take-cover-smoke", "--folder", base, "--seed", 9]
    assert main(capsys, *command)[0] == 0
    run = ["run", "take-cover-z-only", "--folder", tmp_path / "z", "--from", base]
    status, out, _ = main(capsys, *run, "--evaluate.episodes", 7)
    assert status == 0
    assert "nothing that would be the same here" in out  # nothing is finished in there yet
    config = seen[1].config
    assert (config.recipe, config.seed, config.vae.steps) == ("take-cover-z-only", 9, 150)
    assert (config.controller.features, config.evaluate.episodes) == (("z",), 7)


def test_a_mistyped_world_is_told_the_worlds(capsys):
    status, _, err = main(capsys, "evaluate", "take-cove")
    assert status == 2
    assert "did you mean 'take-cover'? name a recipe" in err
    assert "or name a world (car-racing, take-cover)" in err

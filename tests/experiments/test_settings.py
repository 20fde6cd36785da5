"""Every section of settings checks itself, and names the option as it is typed."""

import ast
import dataclasses
import math
import types
import typing
from pathlib import Path

import pytest
from small_episodes import made_up_latents, write_made_up_episodes

import worldmodels_fast
from worldmodels_fast import data
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.cli import main as cli
from worldmodels_fast.cli.demo import DemoConfig, demo
from worldmodels_fast.cli.evaluate import ScoreConfig, score_world
from worldmodels_fast.cli.fidelity import compare_world
from worldmodels_fast.cli.quality import QualityOptions, measure_world
from worldmodels_fast.data.collect import CollectConfig, collect
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evaluation.config import EvaluateConfig
from worldmodels_fast.evaluation.fidelity.compare import compare_with_game
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.measure import measure
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.experiments.config import (
    ControllerConfig,
    GapConfig,
    RoundConfig,
    RunConfig,
    SweepConfig,
)
from worldmodels_fast.experiments.pipeline import open_run
from worldmodels_fast.rollout.config import GameConfig
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.training.mdn_rnn import train_mdn_rnn
from worldmodels_fast.training.vae import train_vae
from worldmodels_fast.utils.settings import option_of

SECTIONS = {
    field.name: type(getattr(RunConfig("x"), field.name))
    for field in dataclasses.fields(RunConfig)
    if dataclasses.is_dataclass(getattr(RunConfig("x"), field.name))
}
COMMANDS = (ScoreConfig, DemoConfig, QualityOptions, BenchConfig)


def bad_values(hint):
    """Values that no setting of this type may have."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else ()
    if hint is bool or bool in kinds:
        return ()
    if hint is int or int in kinds:
        return (-1, 2.5, math.nan)
    if hint is float or float in kinds:
        return (math.nan, math.inf)
    if typing.get_origin(hint) is typing.Literal:
        return ("nonsense",)
    return ()


def all_bad():
    for kind, prefix in (
        *((section, f"--{name}.") for name, section in SECTIONS.items()),
        *((command, "--") for command in COMMANDS),
    ):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            for value in bad_values(hints[field.name]):
                yield pytest.param(kind, prefix, field.name, value)


def test_the_sections():
    assert set(SECTIONS.values()) == {
        CollectConfig,
        RoundConfig,
        VAEConfig,
        RNNConfig,
        ControllerConfig,
        EvolveConfig,
        DreamConfig,
        GameConfig,
        FidelityConfig,
        QualityConfig,
        EvaluateConfig,
        GapConfig,
        SweepConfig,
    }
    assert len(list(all_bad())) > 150


@pytest.mark.parametrize(("kind", "prefix", "name", "value"), list(all_bad()))
def test_a_value_that_no_setting_of_its_type_may_have(kind, prefix, name, value):
    defaults = {"seed": 0, "out": Path()} if kind is ScoreConfig else {}
    settings = kind(**{**defaults, name: value})
    with pytest.raises((ValueError, TypeError)) as error:
        settings.check()
    assert str(error.value).startswith(f"{option_of(prefix, name)}: expected ")
    assert str(error.value).endswith(f"got {value!r}")
    kind(**defaults).check()
    with pytest.raises((ValueError, TypeError), match=option_of("--other.", name)):
        settings.check("--other.")


@pytest.mark.parametrize(
    ("section", "name", "values"),
    [
        ("collect", "episodes", (0,)),
        ("collect", "shard_episodes", (0,)),
        ("collect", "workers", (0,)),
        ("collect", "policies", ((), ("dance",), ("still", "swing-0"))),
        ("round", "episodes", (0,)),
        ("round", "sigma", (-1.0,)),
        ("round", "spread", (0.5,)),
        ("vae", "latent_dim", (0,)),
        ("vae", "steps", (0,)),
        ("vae", "batch", (0,)),
        ("vae", "checkpoint_every", (0,)),
        ("vae", "learning_rate", (0.0, -1e-4)),
        ("vae", "final_learning_rate", (0.0, -1e-4)),
        ("vae", "kl_tolerance", (-0.5,)),
        ("vae", "reconstruction_weight", (-1.0,)),
        ("vae", "focus", (-1.0,)),
        ("rnn", "hidden_dim", (0,)),
        ("rnn", "n_mixtures", (0,)),
        ("rnn", "epochs", (0,)),
        ("rnn", "batch", (0,)),
        ("rnn", "chunk", (0,)),
        ("rnn", "checkpoint_every", (0,)),
        ("rnn", "learning_rate", (0.0, -1.0)),
        ("rnn", "gradient_clip", (0.0,)),
        ("rnn", "done_weight", (0.0,)),
        ("rnn", "reward_weight", (0.0,)),
        ("rnn", "reward_limit", (0.0,)),
        ("controller", "features", ((), ("x",), ("z", "z"))),
        ("evolve", "population", (0, 3)),
        ("evolve", "generations", (0,)),
        ("evolve", "rollout_schedule", (((5, 2), (3, 4)), ((0, 0),))),
        ("evolve", "sigma0", (0.0,)),
        ("evolve", "max_minutes", (0.0,)),
        ("evolve", "cma_options", ({"popsize": 9},)),
        ("dream", "temperature", (0.0, -1.0)),
        ("dream", "max_steps", (0,)),
        ("dream", "done_temperature", (-1.0,)),
        ("dream", "precision", ("fp8",)),
        ("dream", "device", ("gpu", "cuda:x")),
        ("game", "max_steps", (0,)),
        ("game", "patience", (-1,)),
        ("game", "device", ("tpu",)),
        ("game", "workers", (0,)),
        ("fidelity", "policies", ((), ("dance",))),
        ("fidelity", "real_episodes", (0,)),
        ("fidelity", "warn_factor", (0.9, 0.5)),
        ("quality", "windows", (0,)),
        ("evaluate", "episodes", (0,)),
        ("evaluate", "random_episodes", (0,)),
        ("evaluate", "workers", (0,)),
        ("gap", "episodes", (0,)),
        ("sweep", "temperatures", ((0.0,), (1.0, 1.0), (math.nan,), (math.inf,))),
        ("sweep", "dream_rollouts", (0,)),
        ("sweep", "episodes", (0,)),
        ("sweep", "generations", (0,)),
        ("sweep", "rollouts", (0,)),
    ],
)
def test_a_run_is_refused_before_it_begins(section, name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option_of(f'--{section}.', name)}: expected "):
            RunConfig("x", **{section: SECTIONS[section](**{name: value})})


def test_settings_of_a_run_itself():
    for settings, words in (
        ({"environment": "pong"}, r"--environment: expected .*'take-cover'.*, got 'pong'"),
        ({"seed": -1}, "--seed: expected at least 0, got -1"),
        ({"evolve_in": "nowhere"}, "--evolve-in: expected 'dream' or 'game', got 'nowhere'"),
    ):
        with pytest.raises(ValueError, match=words):
            RunConfig("x", **settings)
    with pytest.raises(ValueError, match="at least 2 parameters"):
        RunConfig(
            "x",
            vae=VAEConfig(latent_dim=1),
            controller=ControllerConfig(features=("z",)),
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--vae.batch 0", "--vae.batch: expected at least 1, got 0"),
        ("--vae.checkpoint-every 0", "--vae.checkpoint-every: expected at least 1, got 0"),
        ("--rnn.chunk -3", "--rnn.chunk: expected at least 1, got -3"),
        ("--rnn.epochs 0", "--rnn.epochs: expected at least 1, got 0"),
        ("--vae.learning-rate nan", "--vae.learning-rate: expected a finite number above 0, got"),
        ("--dream.precision fp8", "--dream.precision: expected "),
        ("--game.workers 0", "--game.workers: expected at least 1, got 0"),
    ],
)
def test_options_of_a_run(capsys, tmp_path, options, words):
    folder = tmp_path / "run"
    command = ["run", "take-cover-smoke", "--folder", str(folder), *options.split()]
    assert cli.main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1
    assert not folder.exists()


def test_options_of_cma_are_known_before_anything_starts(tmp_path):
    config = RunConfig("x", evolve=EvolveConfig(cma_options={"CMA_diagonl": True}))
    with pytest.raises(ValueError, match=r"--evolve.cma-options: expected .*, got 'CMA_diagonl'"):
        open_run(tmp_path / "new", config)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("demo --generations 0", "--generations: expected at least 1, got 0"),
        ("demo --max-minutes nan", "--max-minutes: expected a finite number above 0, got nan"),
        ("evaluate take-cover --episodes 0", "--episodes: expected at least 1, got 0"),
        ("evaluate take-cover --workers 0", "--workers: expected at least 1, got 0"),
        ("fidelity take-cover --real-episodes 0", "--real-episodes: expected at least 1, got 0"),
        ("fidelity take-cover --policies dance", "--policies: expected one of uniform"),
        ("quality take-cover --episodes 0", "--episodes: expected at least 1, got 0"),
        ("quality take-cover --measure.windows 0", "--measure.windows: expected at least 1, got 0"),
        ("bench --threads 0", "--threads: expected at least 1, got 0"),
    ],
)
def test_options_of_commands(capsys, tmp_path, monkeypatch, command, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_functions_check_their_settings_first(tmp_path):
    write_made_up_episodes(tmp_path / "episodes", [[9], [9]])
    data.write_latents(tmp_path / "latents", 0, made_up_latents([9]))
    checkpoint = tmp_path / "checkpoint"
    calls = {
        "--vae.batch": lambda: train_vae(
            tmp_path / "episodes", checkpoint, VAEConfig(batch=0), seed=0
        ),
        "--rnn.chunk": lambda: train_mdn_rnn(
            tmp_path / "latents", checkpoint, RNNConfig(chunk=0), seed=0
        ),
        "--collect.episodes": lambda: collect(
            tmp_path / "new", "take-cover", CollectConfig(episodes=0), seed=0
        ),
        "--fidelity.dream-episodes": lambda: compare_with_game(
            None, "take-cover", FidelityConfig(dream_episodes=0), seed=0
        ),
        "--quality.samples": lambda: measure(
            None, None, QualityConfig(samples=0), done_weight=1.0, policies=("still",), seed=0
        ),
        "--real-episodes": lambda: compare_world("nowhere", FidelityConfig(real_episodes=0)),
        "--episodes": lambda: score_world("nowhere", ScoreConfig(episodes=0)),
        "--measure.frames": lambda: measure_world(
            "nowhere", QualityOptions(measure=QualityConfig(frames=0))
        ),
        "--generations": lambda: demo(DemoConfig(world="nowhere", generations=0)),
    }
    for option, call in calls.items():
        with pytest.raises(ValueError, match=rf"^{option}: expected at least 1, got 0"):
            call()
    assert not checkpoint.exists()
    assert not (tmp_path / "new").exists()


def test_the_default_temperature_is_written_once():
    """Beside the paper's own tables, which have it among others."""
    root = Path(worldmodels_fast.__file__).parent
    places = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == 1.15
    }
    assert places == {"dream/config.py", "experiments/config.py", "report/temperatures.py"}
    assert DreamConfig.temperature == Dream.__init__.__defaults__[0] == 1.15

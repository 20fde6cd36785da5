"""A stage's identity: every setting that it reads, found by recording what it reads."""

import dataclasses
import functools
import json

import pytest
from recorded_settings import recording
from small_runs import TOY, finish, small_config, with_section

from worldmodels_fast import envs
from worldmodels_fast.data import collect as collection
from worldmodels_fast.data.collect import CollectConfig
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.experiments.config import GapConfig, RoundConfig, RunConfig, SweepConfig
from worldmodels_fast.experiments.engine import NOT_OF_THE_RESULT, SETTINGS_OF_ALL, _flat
from worldmodels_fast.experiments.pipeline import ENGINE, STAGES, adopt, open_run, run_stage
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.rollout.config import GameConfig
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.utils.settings import option_of

NO_RESULT_CHANGES = {
    "recipe": "a name",
    "fidelity.warn_factor": "of a warning",
    "dream.temperature of sweep-temperature": "a row's, one of sweep.temperatures",
}
"""Settings that may be read without being declared, beside `NOT_OF_THE_RESULT`, and why."""


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


def declared(name, config):
    """The settings of a stage's identity: its own, and those of the stages that it reads."""
    found = set(ENGINE.settings_of(name, config))
    for before in STAGES[name].reads:
        found |= declared(before, config)
    return found


def undeclared(name, config, reads):
    """Settings that a stage has read, that may change its result, and that it does not declare."""
    return {
        key
        for key in reads - declared(name, config)
        if key.rpartition(".")[2] not in NOT_OF_THE_RESULT
        and key not in NO_RESULT_CHANGES
        and f"{key} of {name}" not in NO_RESULT_CHANGES
    }


# --- recorded -----------------------------------------------------------------------------------


def in_dream():
    return dataclasses.replace(
        small_config(),
        collect=CollectConfig(
            episodes=6, policies=("uniform", "left"), min_steps=2, shard_episodes=2
        ),
        vae=VAEConfig(latent_dim=4, steps=2, batch=4, checkpoint_every=1, precision="fp32"),
        rnn=RNNConfig(
            hidden_dim=8, n_mixtures=3, epochs=1, batch=2, chunk=5, precision="fp32", device="cpu"
        ),
        quality=QualityConfig(
            episodes=2, windows=4, warm_up=1, horizon=1, samples=2, frames=8, dreams=2
        ),
        controller=dataclasses.replace(
            small_config().controller, memory="untrained", search="features"
        ),
        gap=GapConfig(every=2, episodes=1),
        sweep=SweepConfig(temperatures=(0.5,), dream_rollouts=2, episodes=1),
        dream=dataclasses.replace(small_config().dream, calibrated=True),
    )


def in_game():
    config = with_section(in_dream(), "dream", calibrated=False)
    return dataclasses.replace(
        config,
        evolve_in="game",
        game=GameConfig(max_steps=20, workers=1),
        gap=GapConfig(),
        sweep=SweepConfig(),
    )


def record_all(folder, config):
    """Run every stage; return what each has read."""
    open_run(folder, config)
    found = {}
    for name in STAGES:
        if name in ("report",) or not STAGES[name].wanted(config):
            continue
        found[name] = reads = set()
        run_stage(name, Run(folder, recording(config, reads)))
        if name == "train-rnn":  # an M this small cannot be calibrated
            path = folder / "stages" / "train-rnn.json"
            record = json.loads(path.read_text(encoding="utf-8"))
            record["figures"]["death"] = {"threshold": 0.5, "temperature": 1.0}
            path.write_text(json.dumps(record), encoding="utf-8")
    return found


@pytest.fixture
def in_this_process(monkeypatch):
    """Episodes are collected in this process, the only one that knows the toy game."""

    def run_tasks(function, tasks, *, workers):
        return [(task, function(task)) for task in tasks]

    monkeypatch.setattr(collection, "run_tasks", run_tasks)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_stage_declares_every_setting_that_it_reads(tmp_path, in_this_process):
    read_by = {}
    for name, config in (("dream", in_dream()), ("game", in_game())):
        read_by[name] = record_all(tmp_path / name, config), config
    further = dataclasses.replace(
        in_dream(),
        recipe="take-cover-second-round",
        round=RoundConfig(base=str(tmp_path / "dream"), episodes=2, spread=2.0),
        rnn=dataclasses.replace(in_dream().rnn, predicts_reward=True),
        sweep=SweepConfig(),
    )
    read_by["round"] = record_all(tmp_path / "round", further), further
    wrong = {
        (kind, name): found
        for kind, (stages, config) in read_by.items()
        for name, reads in stages.items()
        if (found := undeclared(name, config, reads))
    }
    assert wrong == {}
    # The recording sees what is known to be read.
    dream, game, further = (read_by[name][0] for name in ("dream", "game", "round"))
    assert {"vae.steps", "vae.focus", "seed"} <= dream["train-vae"]
    assert {"dream.max_steps", "dream.calibrated", "controller.latent"} <= dream["fidelity"]
    assert {"dream.max_steps", "controller.latent", "rnn.done_weight"} <= dream["quality"]
    assert {"dream.temperature", "dream.precision", "gap.every"} <= dream["evolve"]
    assert {"game.max_steps", "game.patience", "game.vae_precision"} <= game["evolve"]
    assert "dream.temperature" not in dream["fidelity"] | dream["quality"]
    assert {"round.sigma", "round.spread"} <= further["collect"]
    assert "rnn.predicts_reward" in further["encode"]
    assert "fidelity.dream_episodes" in dream["evaluate"] & dream["sweep-temperature"]


def test_the_recording_tells_a_read_from_a_copy_and_a_check():
    reads = set()
    config = recording(small_config(), reads)
    dataclasses.asdict(config)
    config.check()
    other = dataclasses.replace(config, vae=dataclasses.replace(config.vae, steps=3))
    assert reads == set()
    assert (other.vae.steps, other.seed, other.rnn.epochs) == (3, 1, 400)
    assert reads == {"vae.steps", "seed", "rnn.epochs"}


# --- changed ------------------------------------------------------------------------------------

OTHER = {
    "environment": "car-racing",
    "env_kwargs": {"longest": 30},
    "collect.policies": ["still"],
    "round.base": "elsewhere",
    "vae.precision": "fp32",
    "vae.device": "cpu",
    "rnn.precision": "fp32",
    "rnn.device": "cpu",
    "rnn.latent": "mu",
    "rnn.reward_limit": 2.0,
    "controller.features": ["z"],
    "controller.latent": "mu",
    "controller.memory": "untrained",
    "controller.search": "features",
    "evolve_in": "game",
    "evolve.rollout_schedule": [[1, 3]],
    "evolve.max_minutes": 5.0,
    "evolve.cma_options": {"CMA_diagonal": True},
    "dream.precision": "bf16",
    "dream.device": "cuda",
    "game.max_steps": 17,
    "game.vae_precision": "bf16",
    "game.device": "cuda",
    "fidelity.policies": ["left"],
    "evaluate.vae_precision": "bf16",
    "sweep.temperatures": [0.7],
    "sweep.generations": 3,
    "sweep.rollouts": 3,
}
"""Another value of each setting whose type does not suggest one."""


def changed(config, name):
    """The configuration with another value of one setting."""
    value = functools.reduce(getattr, name.split("."), config)
    if name in OTHER:
        other = OTHER[name]
        other = tuple(map(tuple, other)) if name == "evolve.rollout_schedule" else other
        other = tuple(other) if isinstance(other, list) else other
    elif name.endswith("workers"):
        other = 3
    elif isinstance(value, bool):
        other = not value
    else:
        assert isinstance(value, int | float), name
        other = value + 1
    section, _, field = name.rpartition(".")
    if section:
        return with_section(config, section, **{field: other})
    return dataclasses.replace(config, **{field: other})


def base_config(kind):
    """Without the toy's own settings, and with an M that predicts ends and rewards."""
    config = dataclasses.replace(
        small_config(), env_kwargs={}, sweep=SweepConfig(), gap=GapConfig()
    )
    config = with_section(config, "rnn", predicts_reward=True)
    if kind == "game":
        config = dataclasses.replace(config, evolve_in="game")
    if kind == "round":
        config = dataclasses.replace(config, round=RoundConfig(base="somewhere"))
    return config


REFUSED = {"game": {"gap.every", "sweep.temperatures"}}
"""Settings that have no other value there."""

ALL_SETTINGS = tuple(name for name in _flat(RunConfig("x")) if name != "recipe")


@pytest.mark.parametrize("kind", ["dream", "game", "round"])
def test_every_setting_that_a_stage_declares_makes_its_result_stale(tmp_path, kind):
    config = base_config(kind)
    base = open_run(tmp_path / "base", config)
    for name, stage in STAGES.items():
        for file in stage.writes:
            path = base.folder / file
            path.parent.mkdir(exist_ok=True)
            path.write_text('{"rows": []}', encoding="utf-8")
        finish(base, name)
    stale_by = {}
    for setting in ALL_SETTINGS:
        if setting in REFUSED.get(kind, ()):
            continue
        other = changed(config, setting)
        stale_by[setting] = stale = {
            name
            for name in STAGES
            if name != "report"
            and ENGINE.settings_of(name, other) != ENGINE.settings_of(name, config)
        }
        option = option_of("--", setting)
        for name in set(STAGES) - {"report"}:
            if name not in stale:
                run_stage(name, Run(base.folder, other))  # does nothing
                continue
            with pytest.raises(ValueError, match=rf"{name} is finished .*{option}[.:]"):
                run_stage(name, Run(base.folder, other))
        if stale:
            with pytest.raises(ValueError, match=rf"{option}[.:]") as error:
                open_run(base.folder, other)
            assert all(f"{name} is finished" in str(error.value) for name in stale)
        else:
            open_run(base.folder, other)
            open_run(base.folder, config)
        fresh = Run(tmp_path / setting, other)
        adopted = set(adopt(fresh, base))
        assert adopted & stale == set()
        if not stale:
            assert adopted == set(STAGES) - {"report"}
    everything = {name for name in STAGES if name != "report"}
    assert all(stale_by[setting] == everything for setting in SETTINGS_OF_ALL)
    assert {s for s in stale_by if s.rpartition(".")[2] in NOT_OF_THE_RESULT} <= {
        s for s, stale in stale_by.items() if not stale
    }
    dreams = {"fidelity", "quality", "evolve", "sweep-temperature"}
    assert stale_by["dream.max_steps"] == stale_by["dream.done_threshold"] == dreams
    assert stale_by["controller.latent"] == dreams
    assert stale_by["dream.temperature"] == {"evolve"}
    assert stale_by["vae.steps"] == {"train-vae"}
    assert stale_by["game.patience"] == ({"evolve"} if kind == "game" else set())
    assert stale_by["rnn.predicts_reward"] == {"train-rnn"} | (
        {"encode"} if kind == "round" else set()
    )
    assert stale_by["round.sigma"] == ({"collect"} if kind == "round" else set())

import dataclasses
import json

import pytest

from worldmodels_fast import envs
from worldmodels_fast.evolution import EvolveConfig
from worldmodels_fast.recipes import (
    ABLATIONS,
    PAPER_TEMPERATURES,
    RECIPES,
    ControllerConfig,
    GapConfig,
    RunConfig,
    SweepConfig,
    load_config,
    make_recipe,
    save_config,
)


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes(name, tmp_path):
    config = make_recipe(name)
    assert config.recipe == name
    assert config.environment in envs.ENVIRONMENTS
    assert config.env_kwargs["skill"] == 4  # with every score
    config.evolve.check(1088)
    save_config(config, tmp_path / "new" / "config.json")
    assert load_config(tmp_path / "new" / "config.json") == config
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["config.json"]


def test_the_papers_numbers():
    paper = make_recipe("take-cover-paper")
    assert (paper.collect.episodes, paper.collect.policies) == (10_000, ("held-random",))
    assert (paper.vae.latent_dim, paper.vae.batch, paper.vae.learning_rate) == (64, 100, 1e-4)
    assert (paper.rnn.hidden_dim, paper.rnn.epochs, paper.rnn.chunk) == (512, 400, 500)
    assert (paper.evolve.population, paper.evolve.rollouts) == (64, 16)
    assert (paper.evolve.temperature, paper.evolve.eval_rollouts) == (1.15, 1024)
    assert (paper.controller.features, paper.controller.bias) == (("z", "c", "h"), False)
    assert paper.sweep.temperatures == PAPER_TEMPERATURES == (0.1, 0.5, 1.0, 1.15, 1.3)
    assert (paper.sweep.episodes, paper.sweep.generations) == (100, None)


def differences(one, other):
    """Names of the settings, by section, in which two configurations differ."""
    found = set()
    for section, values in dataclasses.asdict(one).items():
        others = dataclasses.asdict(other)[section]
        if isinstance(values, dict):
            found |= {f"{section}.{key}" for key in values if values[key] != others[key]}
        elif values != others:
            found.add(section)
    return found


ABLATED = {
    "take-cover-z-only": {"controller.features"},
    "take-cover-untrained-m": {"controller.memory"},
    "take-cover-mu": {"controller.latent", "rnn.latent"},
    "take-cover-fp32": {"vae.precision", "rnn.precision", "evolve.precision"},
}


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_an_ablation_changes_one_thing(name):
    quick = make_recipe("take-cover-quick")
    assert differences(make_recipe(name), quick) == {"recipe"} | ABLATED[name]
    # Of another run, with settings of its own.
    base = dataclasses.replace(quick, recipe="take-cover-smoke", seed=7)
    ablation = make_recipe(name, base)
    assert differences(ablation, base) == {"recipe"} | ABLATED[name]
    assert (ablation.recipe, ablation.seed) == (name, 7)


def test_other_recipes_are_not_of_a_base():
    base = dataclasses.replace(make_recipe("take-cover-quick"), seed=7)
    assert make_recipe("take-cover-smoke", base) == make_recipe("take-cover-smoke")


def test_an_unknown_recipe():
    with pytest.raises(ValueError, match=r"recipe: expected one of take-cover-smoke, .*'smoke'"):
        make_recipe("smoke")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"recipe": "x", "vae": {"stepz": 3}}',
        '{"recipe": "x", "vae": 3}',
        '{"seed": 3}',
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config.json: not a configuration of this version"):
        load_config(path)


def test_settings_of_a_later_version_take_their_defaults(tmp_path):
    values = dataclasses.asdict(make_recipe("take-cover-quick"))
    del values["rnn"]["gradient_clip"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_config(tmp_path / "config.json") == make_recipe("take-cover-quick")


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"environment: expected one of .*take-cover.*got 'pong'"):
        RunConfig("x", environment="pong")
    with pytest.raises(ValueError, match="seed: expected a number from 0, got -1"):
        RunConfig("x", seed=-1)
    with pytest.raises(ValueError, match=r"evolve.precision: expected one of fp32, .* got 'fp8'"):
        RunConfig("x", evolve=EvolveConfig(precision="fp8"))
    with pytest.raises(ValueError, match=r"controller.latent: .* sample, mu, got 'mean'"):
        RunConfig("x", controller=ControllerConfig(latent="mean"))
    with pytest.raises(ValueError, match=r"controller.memory: .* trained, untrained, got 'no'"):
        RunConfig("x", controller=ControllerConfig(memory="no"))
    for gap in (GapConfig(every=-1), GapConfig(episodes=0)):
        with pytest.raises(ValueError, match=r"gap: expected `every` from 0 .* got"):
            RunConfig("x", gap=gap)
    for taus in ((0.0,), (1.0, 1.0), (float("nan"),)):
        with pytest.raises(ValueError, match=r"sweep.temperatures: expected different positive"):
            RunConfig("x", sweep=SweepConfig(temperatures=taus))
    for name in ("dream_rollouts", "episodes", "generations", "rollouts"):
        with pytest.raises(ValueError, match=rf"sweep.{name}: expected at least 1, got 0"):
            RunConfig("x", sweep=SweepConfig(**{name: 0}))

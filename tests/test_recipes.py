import dataclasses
import json

import pytest

from worldmodels_fast import envs
from worldmodels_fast.evolution import EvolveConfig
from worldmodels_fast.recipes import RECIPES, RunConfig, load_config, make_recipe, save_config


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
    with pytest.raises(ValueError, match="environment: expected one of take-cover, got 'pong'"):
        RunConfig("x", environment="pong")
    with pytest.raises(ValueError, match="seed: expected a number from 0, got -1"):
        RunConfig("x", seed=-1)
    with pytest.raises(ValueError, match=r"evolve.precision: expected one of fp32, .* got 'fp8'"):
        RunConfig("x", evolve=EvolveConfig(precision="fp8"))

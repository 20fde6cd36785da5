import dataclasses
import json

import pytest

from worldmodels_fast import MDNRNN, VAE, envs
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.experiments.config import (
    PAPER_TEMPERATURES,
    GapConfig,
    SweepConfig,
    load_config,
    save_config,
)
from worldmodels_fast.experiments.recipes.registry import ABLATIONS, RECIPES, make_recipe


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes(name, tmp_path):
    config = make_recipe(name)
    assert config.recipe == name
    assert config.environment in envs.ENVIRONMENTS
    if config.environment == "take-cover":
        assert config.env_kwargs["skill"] == 4  # with every score
    config.check()
    save_config(config, tmp_path / "new" / "config.json")
    assert load_config(tmp_path / "new" / "config.json") == config
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["config.json"]


def test_the_papers_numbers():
    paper = make_recipe("take-cover-paper")
    assert (paper.collect.episodes, paper.collect.policies) == (10_000, ("held-random",))
    assert (paper.vae.latent_dim, paper.vae.batch, paper.vae.learning_rate) == (64, 100, 1e-4)
    assert (paper.rnn.hidden_dim, paper.rnn.epochs, paper.rnn.chunk) == (512, 400, 500)
    assert (paper.evolve.population, paper.evolve.rollouts) == (64, 16)
    assert (paper.evolve_in, paper.dream.temperature, paper.evolve.eval_rollouts) == (
        "dream",
        1.15,
        1024,
    )
    assert (paper.controller.features, paper.controller.bias) == (("z", "c", "h"), False)
    assert paper.sweep.temperatures == PAPER_TEMPERATURES == (0.1, 0.5, 1.0, 1.15, 1.3)
    assert (paper.sweep.episodes, paper.sweep.generations) == (100, None)


def test_the_papers_numbers_for_car_racing():
    paper = make_recipe("car-racing-paper")
    assert paper.env_kwargs == {}
    assert (paper.collect.episodes, paper.collect.policies) == (10_000, ("random-linear",))
    assert (paper.vae.latent_dim, paper.rnn.hidden_dim, paper.rnn.n_mixtures) == (32, 256, 5)
    assert not paper.rnn.predicts_done
    assert (paper.rnn.batch, paper.rnn.chunk, paper.rnn.epochs) == (100, 999, 40)
    evolve = paper.evolve
    assert (paper.evolve_in, evolve.population, evolve.rollouts) == ("game", 64, 16)
    assert (evolve.generations, evolve.eval_every, evolve.eval_rollouts) == (1800, 25, 1024)
    assert (evolve.rollout_schedule, paper.game.patience, paper.game.max_steps) == ((), 0, 1000)
    assert paper.game.vae_precision == paper.evaluate.vae_precision == "fp32"
    assert (paper.evaluate.episodes, paper.evaluate.unmodified_episodes) == (100, 100)


def test_car_racings_parts_have_the_papers_sizes():
    paper = make_recipe("car-racing-paper")
    spec = paper.controller_spec()
    assert spec.n_params == 867
    assert (spec.low, spec.high) == ((-1, 0, 0), (1, 1, 1))
    assert make_recipe("car-racing-z-hidden", paper).controller_spec().n_params == 1443
    assert make_recipe("car-racing-z-only", paper).controller_spec().n_params == 99
    vae = VAE(paper.vae.latent_dim)
    mdn_rnn = MDNRNN(32, 3, paper.rnn.hidden_dim, paper.rnn.n_mixtures, paper.rnn.predicts_done)
    assert sum(p.numel() for p in vae.parameters()) == 4_348_547
    assert sum(p.numel() for p in mdn_rnn.parameters()) == 422_368


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
    "take-cover-fp32": {"vae.precision", "rnn.precision", "dream.precision"},
    "car-racing-z-only": {"controller.features", "evolve.sigma0"},
    "car-racing-z-hidden": {"controller.features", "controller.hidden_units", "evolve.sigma0"},
    "car-racing-untrained-m": {"controller.memory"},
}


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_an_ablation_changes_one_thing(name):
    game = "car-racing" if name.startswith("car-racing") else "take-cover"
    quick = make_recipe(f"{game}-quick")
    assert differences(make_recipe(name), quick) == {"recipe"} | ABLATED[name]
    # Of another run, with settings of its own.
    base = dataclasses.replace(quick, recipe=f"{game}-smoke", seed=7)
    ablation = make_recipe(name, base)
    assert differences(ablation, base) == {"recipe"} | ABLATED[name]
    assert (ablation.recipe, ablation.seed) == (name, 7)


def test_where_car_racings_search_begins():
    paper = make_recipe("car-racing-paper")
    assert (paper.controller.search, paper.evolve.sigma0) == ("plain", 0.1)
    for name in ("car-racing-quick", "car-racing-smoke"):
        config = make_recipe(name)
        assert (config.controller.search, config.evolve.sigma0) == ("features", 0.03)
        assert (config.controller.features, config.controller.bias) == (("z", "h"), True)
    # Of the paper's run, an ablation searches as that does.
    plain = dataclasses.replace(paper, evolve=dataclasses.replace(paper.evolve, sigma0=0.2))
    for name in ("car-racing-z-only", "car-racing-z-hidden"):
        assert make_recipe(name, plain).evolve == plain.evolve


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
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json: (not a conf|not JSON|expected a JSON)"):
        load_config(path)


def test_settings_of_a_later_version_take_their_defaults(tmp_path):
    values = dataclasses.asdict(make_recipe("take-cover-quick"))
    del values["rnn"]["gradient_clip"]
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert load_config(tmp_path / "config.json") == make_recipe("take-cover-quick")


def test_where_c_is_evolved_must_make_sense():
    car = make_recipe("car-racing-quick")
    with pytest.raises(ValueError, match=r"--evolve-in: expected 'game', since M predicts no"):
        dataclasses.replace(car, evolve_in="dream")
    for settings in ({"gap": GapConfig(every=1)}, {"sweep": SweepConfig(temperatures=(1.0,))}):
        with pytest.raises(ValueError, match=r"C is evolved in the game \(--evolve-in\)"):
            dataclasses.replace(car, **settings)
    with pytest.raises(ValueError, match=r"--dream.calibrated: .* M predicts no end"):
        dataclasses.replace(car, dream=DreamConfig(calibrated=True))

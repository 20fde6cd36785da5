"""A further round: an agent's episodes beside those of the first, V as it was, M going on."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from small_episodes import made_up_episode
from small_runs import TOY, small_config, write_small_run

from worldmodels_fast import data, envs
from worldmodels_fast.cli import main as cli
from worldmodels_fast.cli import run as cli_run
from worldmodels_fast.data.collect import CollectConfig
from worldmodels_fast.experiments.config import RoundConfig
from worldmodels_fast.experiments.pipeline import open_run, run_stage
from worldmodels_fast.experiments.recipes import registry
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


@pytest.fixture
def base(tmp_path):
    """A finished first round: three shards of two episodes, V, M, and an evolved C."""
    config = dataclasses.replace(
        small_config(), collect=CollectConfig(episodes=6, shard_episodes=2, min_steps=5)
    )
    run = write_small_run(tmp_path / "base", config)
    for shard in range(3):
        episodes = [made_up_episode(7, seed=10 * shard + i) for i in range(2)]
        data.write_episodes(run.episodes, shard, episodes, TOY.env_id)
    run_stage("evolve", run)
    return run


def second_round(first, folder, **changes):
    rnn = dataclasses.replace(first.config.rnn, epochs=1, batch=2, chunk=5, precision="fp32")
    settings = {"base": str(first.folder), "episodes": 3, **changes}
    config = dataclasses.replace(
        first.config, recipe="take-cover-second-round", round=RoundConfig(**settings), rnn=rnn
    )
    return open_run(folder, config)


@pytest.mark.slow
def test_a_second_round_goes_on_from_the_first(base, tmp_path):
    run = second_round(base, tmp_path / "second")
    for name in ("collect", "train-vae", "encode", "train-rnn"):
        run_stage(name, run)
    assert data.finished_shards(run.episodes) == [0, 1, 2, 3, 4]  # 3 episodes fill two shards
    assert [(run.episodes / f"shard-0000{i}").is_symlink() for i in range(5)] == [True] * 3 + [
        False
    ] * 2
    played = list(data.read_episodes(run.episodes, 3))
    assert all(5 <= len(episode) <= 40 for episode in played)  # the toy game ends then
    assert not np.array_equal(
        played[0].actions[:5], played[1].actions[:5]
    )  # each with noise of its own
    assert run.record("collect")["figures"]["shards_taken"] == 3
    assert run.record("collect")["inputs"] == {"base": base.record("evolve")["id"]}
    # V is the first round's, M begins as the first round's and has moved on.
    for name, weight in base.load_vae().state_dict().items():
        assert torch.equal(weight, run.load_vae().state_dict()[name])
    assert data.finished_shards(run.latents, ".safetensors") == [0, 1, 2, 3, 4]
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(
            base.load_mdn_rnn().parameters(), run.load_mdn_rnn().parameters(), strict=True
        )
    ]
    assert 0 < max(moved) < 0.1  # fresh weights would be farther away

    before = {p.name: p.stat().st_mtime_ns for p in run.episodes.iterdir()}
    (run.folder / "stages" / "collect.json").unlink()  # as if it had been killed at the end
    (run.episodes / "shard-00000").unlink()
    run_stage("collect", run)
    assert {p.name for p in run.episodes.iterdir()} == set(before)
    assert (run.episodes / "shard-00004").stat().st_mtime_ns == before["shard-00004"]


def test_what_a_round_goes_on_from_must_fit(base, tmp_path):
    with pytest.raises(ValueError, match=r"round.base: .*nowhere: no run in here.*--from RUN"):
        run_stage("collect", second_round(base, tmp_path / "a", base=str(tmp_path / "nowhere")))
    config = base.config
    for change, message in (
        ({"env_kwargs": {}}, "has env_kwargs {'pays_actions': True}, not {}"),
        ({"vae": dataclasses.replace(config.vae, latent_dim=5)}, "other sizes: latent_dim"),
    ):
        other = dataclasses.replace(
            config, recipe="take-cover-second-round", round=RoundConfig(str(base.folder)), **change
        )
        with pytest.raises(ValueError, match=message):
            run_stage("collect", open_run(tmp_path / message[:5].strip(), other))
    (base.world / "config.json").unlink()
    with pytest.raises(ValueError, match="has no finished world; run its stages first"):
        run_stage("collect", second_round(base, tmp_path / "b"))


@pytest.mark.parametrize(
    "change", [{"episodes": 0}, {"sigma": -1.0}, {"sigma": float("nan")}, {"spread": 0.5}]
)
def test_bad_settings_of_a_round_are_named(change):
    with pytest.raises(ValueError, match=rf"--round.{next(iter(change))}: expected .* got"):
        dataclasses.replace(make_recipe("take-cover-quick"), round=RoundConfig(**change))


def test_a_base_that_has_been_done_anew_is_noticed(base, tmp_path):
    run = second_round(base, tmp_path / "second")
    path = run.folder / "stages"
    path.mkdir(exist_ok=True)
    record = {"stage": "collect", "id": "1", "settings": {}, "inputs": {"base": "an older one"}}
    (path / "collect.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match=r"collect is finished .*from an earlier base"):
        open_run(run.folder, run.config)


def test_the_command_line_names_the_base(base, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(cli_run, "run_all", ran.append)
    monkeypatch.setitem(
        registry.ROUNDS,
        "take-cover-second-round",
        lambda config: dataclasses.replace(
            config, recipe="take-cover-second-round", round=RoundConfig("runs/x", episodes=4)
        ),
    )
    monkeypatch.setitem(
        registry.OF_ANOTHER_RUN,
        "take-cover-second-round",
        registry.ROUNDS["take-cover-second-round"],
    )
    folder = tmp_path / "second"
    status = cli.main(
        ["run", "take-cover-second-round", "--from", str(base.folder), "--folder", str(folder)]
    )
    assert status == 0
    assert ran[0].config.round == RoundConfig(str(base.folder), episodes=4)
    assert Run.load(folder).base() == base

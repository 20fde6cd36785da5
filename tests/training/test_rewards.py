"""M that predicts rewards: the store, the training, what dream and game are compared by."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from small_episodes import made_up_episode, made_up_latents, write_made_up_episodes
from small_runs import TOY, finish, small_config, write_small_run
from small_worlds import small_mdn_rnn, small_world

from worldmodels_fast import MDNRNN, VAE, data, envs
from worldmodels_fast.cli import main as cli
from worldmodels_fast.cli.fidelity import compare_world
from worldmodels_fast.data.collect import CollectConfig, ShardTask, collect_shard
from worldmodels_fast.dream.config import DreamConfig
from worldmodels_fast.evaluation.fidelity.compare import controller_row, print_fidelity
from worldmodels_fast.evaluation.fidelity.file import read_fidelity, write_fidelity
from worldmodels_fast.evaluation.fidelity.row import FidelityRow, disagreements, fidelity_table
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.measure import measure
from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.experiments.config import GapConfig, RoundConfig, SweepConfig, save_config
from worldmodels_fast.experiments.pipeline import STAGES, open_run, run_stage
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run, save_weights
from worldmodels_fast.report.model_card import write_card
from worldmodels_fast.report.page import write_report
from worldmodels_fast.training.config import RNNConfig
from worldmodels_fast.training.encode import encode_episodes
from worldmodels_fast.training.mdn_rnn import (
    go_on_from,
    mdn_rnn_loss,
    reward_variance,
    train_mdn_rnn,
)
from worldmodels_fast.training.sequences import sequence_chunks
from worldmodels_fast.utils.files import read_json_lines


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


def with_rewards(latents, rewards):
    return dataclasses.replace(latents, rewards=np.asarray(rewards, np.float32))


# --- the store --------------------------------------------------------------------------------


def test_encoding_keeps_rewards(tmp_path):
    episodes = [made_up_episode(4, 0), made_up_episode(6, 1)]
    rewards = [np.arange(4, dtype=np.float32), -np.arange(6, dtype=np.float32)]
    episodes = [dataclasses.replace(e, rewards=r) for e, r in zip(episodes, rewards, strict=True)]
    data.write_episodes(tmp_path / "episodes", 0, episodes, TOY.env_id)
    encode_episodes(tmp_path / "episodes", tmp_path / "latents", VAE(3))
    latents = data.read_latents(tmp_path / "latents", [0])
    np.testing.assert_array_equal(latents.rewards, np.concatenate(rewards))
    assert latents.rewards.dtype == np.float32


def test_stores_of_earlier_versions_are_read(tmp_path):
    data.write_latents(tmp_path, 0, made_up_latents([4, 3]))
    data.write_latents(tmp_path, 1, with_rewards(made_up_latents([5]), np.arange(5)))
    assert data.read_latents(tmp_path, [0]).rewards is None
    np.testing.assert_array_equal(data.read_latents(tmp_path, [1]).rewards, np.arange(5))
    both = data.read_latents(tmp_path, [0, 1])
    assert both.rewards is None
    assert both.mu.shape == (12, 3)


def test_rewards_are_added_to_a_store_and_not_to_what_it_links(tmp_path):
    write_made_up_episodes(tmp_path / "episodes", [[4, 3]])
    old = made_up_latents([4, 3])
    data.write_latents(tmp_path / "old", 0, old)
    before = data.shard_path(tmp_path / "old", 0, ".safetensors").read_bytes()
    link = data.shard_path(tmp_path / "new", 0, ".safetensors")
    link.parent.mkdir()
    link.symlink_to(data.shard_path(tmp_path / "old", 0, ".safetensors"))
    data.add_rewards(tmp_path / "new", 0, tmp_path / "episodes")
    assert not link.is_symlink()
    new = data.read_latents(tmp_path / "new", [0])
    np.testing.assert_array_equal(new.rewards, np.ones(7))
    for name in ("mu", "logvar", "actions", "lengths", "terminated"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
    assert data.shard_path(tmp_path / "old", 0, ".safetensors").read_bytes() == before
    written = link.stat().st_mtime_ns
    data.add_rewards(tmp_path / "new", 0, tmp_path / "episodes")  # there they are
    assert link.stat().st_mtime_ns == written

    data.write_latents(tmp_path / "other", 0, made_up_latents([3, 4]))
    with pytest.raises(ValueError, match=r"are not those of .*encode them again"):
        data.add_rewards(tmp_path / "other", 0, tmp_path / "episodes")


def test_a_store_without_rewards_says_what_to_do(tmp_path):
    data.write_latents(tmp_path, 0, made_up_latents([40]))
    config = RNNConfig(hidden_dim=4, predicts_reward=True, batch=2, epochs=1)
    with pytest.raises(ValueError, match=r"rnn.predicts_reward needs: .*run the stage `encode`"):
        train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", config, seed=0)
    model = MDNRNN(3, 1, 4, n_mixtures=2, predicts_reward=True)
    (chunk, *_) = sequence_chunks(made_up_latents([40]), 2, 5, seed=(0,), sample=False)
    with pytest.raises(ValueError, match="chunk: M predicts rewards"):
        mdn_rnn_loss(model, chunk, None, config)
    with pytest.raises(ValueError, match="no rewards"):
        reward_variance(made_up_latents([4]), config)


# --- the training -----------------------------------------------------------------------------


def test_a_reward_stays_beside_its_action():
    lengths = [5, 9, 4, 12, 7, 6]
    latents = made_up_latents(lengths)  # z holds the episode's number and the step in it
    rewards = np.concatenate([100 * e + np.arange(n) for e, n in enumerate(lengths)])
    latents = with_rewards(latents, rewards)
    for chunk in sequence_chunks(latents, 3, 4, seed=(1,), sample=False):
        expected = 100 * chunk.z[..., 0] + chunk.z[..., 1]
        np.testing.assert_array_equal(chunk.reward, expected)
        rows = np.searchsorted(rewards, expected.numpy())
        np.testing.assert_array_equal(chunk.action, latents.actions[rows])
    plain = made_up_latents(lengths)
    pairs = zip(
        sequence_chunks(latents, 3, 4, seed=(1,), sample=True),
        sequence_chunks(plain, 3, 4, seed=(1,), sample=True),
        strict=True,
    )
    for chunk, other in pairs:  # rewards change nothing else
        assert torch.equal(chunk.z, other.z)
        assert other.reward is None


def test_the_loss_is_the_squared_error_of_every_step():
    torch.manual_seed(0)
    latents = with_rewards(made_up_latents([7, 5, 6, 8]), np.linspace(-20, 3, 26))
    model = MDNRNN(3, 1, 4, n_mixtures=2, predicts_done=True, predicts_reward=True)
    (chunk,) = sequence_chunks(latents, 2, 12, seed=(3,), sample=False)
    config = RNNConfig(predicts_reward=True)
    losses, _ = mdn_rnn_loss(model, chunk, None, config)
    predicted = model(chunk.z, chunk.action, None, chunk.restart).reward
    assert losses.reward.item() == pytest.approx(((predicted - chunk.reward) ** 2).mean().item())
    limited = dataclasses.replace(config, reward_limit=10.0)
    less, _ = mdn_rnn_loss(model, chunk, None, limited)
    error = (predicted - chunk.reward.clamp(-10, 10)) ** 2
    assert less.reward.item() == pytest.approx(error.mean().item())
    assert (less.z, less.done) == (losses.z, losses.done)
    clipped = np.clip(latents.rewards, -10, 10)
    assert reward_variance(latents, limited) == pytest.approx(clipped.var())
    without, _ = mdn_rnn_loss(
        MDNRNN(3, 1, 4, n_mixtures=2, predicts_done=True), chunk, None, RNNConfig()
    )
    assert without.reward.item() == 0


TOY_CONFIG = RNNConfig(
    hidden_dim=8,
    n_mixtures=1,
    predicts_done=False,
    predicts_reward=True,
    epochs=6,
    reward_weight=1.0,
    batch=20,
    chunk=10,
    learning_rate=2e-2,
    final_learning_rate=1e-3,
    latent="mu",
    precision="fp32",
    checkpoint_every=1000,
)


def toy_problem(early=0):
    """A spike of 3 in half of the steps whose action and z allow it; `early` shifts the rewards."""
    rng = np.random.default_rng(9)
    n = 4_000
    latents = made_up_latents([100] * (n // 100), 2, std=0.0)
    latents.mu[:] = rng.normal(size=(n, 2))
    open_ = (latents.mu[:, 0] > 0) & (latents.actions[:, 0] > 0)
    rewards = np.where(open_ & (rng.random(n) < 0.5), 3.0, 0.0) - 0.1
    return with_rewards(latents, np.roll(rewards, -early))


def test_m_learns_the_mean_of_sparse_rewards(tmp_path):
    latents = toy_problem()
    data.write_latents(tmp_path, 0, latents)
    model = train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", TOY_CONFIG, seed=0)
    rows = read_json_lines(tmp_path / "m.log.jsonl")
    assert {"reward_loss", "held_out_reward_loss"} <= rows[-1].keys()
    variance = reward_variance(latents, TOY_CONFIG)
    luck = 0.25 * 2.25  # a quarter of the steps, p (1 - p) 3^2
    assert 0.8 * luck < rows[-1]["held_out_reward_loss"] < luck + 0.35 * (variance - luck)
    z = torch.tensor([[[2.0, 0.0]], [[2.0, 0.0]], [[-2.0, 0.0]]])
    action = torch.tensor([[[0.8]], [[-0.8]], [[0.8]]])
    with torch.no_grad():
        reward = model(z, action).reward[:, 0]
    assert reward[0].item() == pytest.approx(1.4, abs=0.5)
    assert reward[1:].tolist() == pytest.approx([-0.1, -0.1], abs=0.4)


def test_rewards_that_came_too_early_would_be_noticed(tmp_path):
    # That of the next action, which M does not see yet: it cannot be learnt.
    latents = toy_problem(early=1)
    data.write_latents(tmp_path, 0, latents)
    train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", TOY_CONFIG, seed=0)
    loss = read_json_lines(tmp_path / "m.log.jsonl")[-1]["held_out_reward_loss"]
    assert loss > 0.85 * reward_variance(latents, TOY_CONFIG)


def test_from_the_game_to_m_a_reward_is_that_of_its_action(tmp_path, toy):
    kwargs = {"pays_actions": True}
    task = ShardTask(tmp_path / "episodes", 0, 4, "toy", kwargs, ("uniform",), 5, seed=1)
    collect_shard(task)
    encode_episodes(tmp_path / "episodes", tmp_path / "latents", VAE(2))
    latents = data.read_latents(tmp_path / "latents", [0])
    np.testing.assert_array_equal(latents.rewards, latents.actions[:, 0])
    for chunk in sequence_chunks(latents, 2, 6, seed=(0,), sample=True):
        np.testing.assert_array_equal(chunk.reward, chunk.action[..., 0])


class Killed(Exception):
    pass


def test_training_goes_on_as_if_it_had_not_been_killed(tmp_path):
    data.write_latents(tmp_path, 0, toy_problem())
    config = dataclasses.replace(TOY_CONFIG, epochs=2, checkpoint_every=3)
    whole = train_mdn_rnn(tmp_path, tmp_path / "a.checkpoint", config, seed=2)

    def stop(step, metrics):
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        train_mdn_rnn(tmp_path, tmp_path / "b.checkpoint", config, seed=2, on_step=stop)
    again = train_mdn_rnn(tmp_path, tmp_path / "b.checkpoint", config, seed=2)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    logs = [read_json_lines(tmp_path / f"{name}.log.jsonl") for name in "ab"]
    held_out = [[row["held_out_reward_loss"] for row in log] for log in logs]
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize("predicts_done", [False, True])
def test_m_goes_on_from_one_that_predicts_no_reward(predicts_done):
    start = small_mdn_rnn(predicts_done)
    model = MDNRNN(4, 1, 8, 3, predicts_done, predicts_reward=True)
    go_on_from(model, start)
    rng = np.random.default_rng(0)
    z, action = (torch.tensor(rng.normal(size=(6, 2, n)), dtype=torch.float32) for n in (4, 1))
    with torch.no_grad():
        ours, theirs = model(z, action), start(z, action)
    for name in ("logmix", "mu", "logstd", "h", "c"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    if predicts_done:
        torch.testing.assert_close(ours.done_logit, theirs.done_logit)
    assert not ours.reward.any()
    other = MDNRNN(4, 1, 8, 3, predicts_done, predicts_reward=True)
    go_on_from(other, model)
    assert torch.equal(other.head.weight, model.head.weight)
    with pytest.raises(ValueError, match="hidden_dim"):
        go_on_from(MDNRNN(4, 1, 9, 3, predicts_done, predicts_reward=True), start)
    with pytest.raises(ValueError, match="predicts_reward"):
        go_on_from(MDNRNN(4, 1, 8, 3, predicts_done), model)


# --- recipes ----------------------------------------------------------------------------------


def test_a_dream_needs_ends_or_rewards():
    car = make_recipe("car-racing-quick")
    with pytest.raises(ValueError, match=r"predicts no end .* and no reward \(--rnn.predicts-rew"):
        dataclasses.replace(car, evolve_in="dream")
    rnn = dataclasses.replace(car.rnn, predicts_reward=True)
    config = dataclasses.replace(car, evolve_in="dream", rnn=rnn, gap=GapConfig(every=5))
    assert [name for name, stage in STAGES.items() if stage.wanted(config)] == [
        name for name in STAGES if name != "sweep-temperature"
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"reward_weight": 0.0},
        {"reward_weight": float("nan")},
        {"reward_limit": 0.0},
        {"reward_limit": float("nan")},
    ],
)
def test_bad_settings_are_named(settings):
    car = make_recipe("car-racing-quick")
    option = f"--rnn.{next(iter(settings))}".replace("_", "-")
    with pytest.raises(ValueError, match=f"{option}: expected a finite number above 0, got"):
        dataclasses.replace(car, rnn=dataclasses.replace(car.rnn, **settings))


def test_the_car_dreams_recipe():
    config = make_recipe("car-racing-dream")
    base = make_recipe("car-racing-quick")
    assert config.round.base == "runs/car-racing-quick"
    assert (config.collect, config.vae, config.evaluate) == (base.collect, base.vae, base.evaluate)
    assert config.rnn.predicts_reward
    assert not config.rnn.predicts_done
    evolve, dream = config.evolve, config.dream
    assert (config.evolve_in, dream.temperature, dream.max_steps) == ("dream", 1.0, 1000)
    assert (evolve.population, evolve.rollouts, dream.precision) == (64, 16, "auto")
    assert (config.controller.features, config.controller.search) == (("z", "h"), "features")
    assert config.gap.every == 10
    # Some of the agent's episodes are held out.
    shards = -(-base.collect.episodes // 25) + -(-config.round.episodes // 25)
    assert data.split_held_out(range(shards))[1] == [19, 39]
    smaller = make_recipe("car-racing-dream", make_recipe("car-racing-smoke"))
    assert smaller.round.base == "runs/car-racing-smoke"
    assert smaller.env_kwargs == {"max_steps": 200}


# --- dream against game -----------------------------------------------------------------------


def paying_mdn_rnn(reward=0.5, predicts_done=False):
    """An M whose every step pays the same."""
    model = MDNRNN(4, 1, 8, 3, predicts_done, predicts_reward=True)
    go_on_from(model, small_mdn_rnn(predicts_done))
    with torch.no_grad():
        model.head.bias[int(predicts_done)] = reward
    return model.requires_grad_(False)


def paying_world(reward=0.5, predicts_done=False, **config):
    world = small_world(predicts_done, **config)
    return dataclasses.replace(world, mdn_rnn=paying_mdn_rnn(reward, predicts_done))


def test_returns_of_fixed_policies_in_the_dream():
    dream = paying_world().dream(max_steps=12)
    np.testing.assert_allclose(dream.play_policy("uniform", 5, seed=1)[0], 6.0, rtol=1e-5)
    np.testing.assert_allclose(dream.play_policy("left", 3, seed=1, steps=20)[0], 10.0, rtol=1e-5)
    deadly = paying_world(predicts_done=True).dream(max_steps=60)
    lengths = deadly.survival_of("uniform", 30, seed=2)
    assert lengths.min() < 60
    returns = deadly.play_policy("uniform", 30, seed=2)[0]
    np.testing.assert_allclose(returns, 0.5 * lengths, rtol=1e-5)


def test_rewards_are_compared_by_their_difference():
    rows = [
        FidelityRow.compare("fine", [-20, -40], [-25, -30], measure="reward"),
        FidelityRow.compare("generous", [-20, -40], [300, 400], measure="reward"),
        FidelityRow.compare("stingy", [800, 900], [300, 350], "controller", "reward"),
    ]
    assert [row.difference for row in rows] == [2.5, 380, -525]
    assert all(row.ratio is None for row in rows)
    assert rows[1].difference_low <= 380 <= rows[1].difference_high
    table = fidelity_table(rows)
    assert "dream - game |" in table
    assert "+380 [" in table
    assert [row.player for row in disagreements(rows)] == ["generous", "stingy"]


def test_rows_of_rewards_are_told(tmp_path, capsys):
    rows = [
        FidelityRow.compare("still", [-95.0, -94.0], [40.0, 50.0], measure="reward"),
        FidelityRow.compare("agent", [810.0, 850.0], [900.0, 910.0], "controller", "reward"),
    ]
    write_fidelity(tmp_path / "fidelity.json", rows)
    assert read_fidelity(tmp_path / "fidelity.json") == rows
    print_fidelity(rows, 1.5)
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: `still` is paid 45 in the dream and -94 in the game" in out
    assert "`agent` is paid" not in out

    config = make_recipe("car-racing-dream")
    save_config(config, tmp_path / "config.json")
    paying_world().save(tmp_path / "world")
    log = {"step": 5, "epoch": 1, "z_loss": 1.1, "held_out_z_loss": 1.2, "done_loss": 0.0}
    log |= {"held_out_done_loss": 0.0, "reward_loss": 0.25, "held_out_reward_loss": 0.375}
    (tmp_path / "mdn_rnn.log.jsonl").write_text(json.dumps(log) + "\n", encoding="utf-8")
    (tmp_path / "stages").mkdir()
    record = {"figures": {"held_out_reward_variance": 0.5}}
    (tmp_path / "stages" / "train-rnn.json").write_text(json.dumps(record), encoding="utf-8")
    card = write_card(tmp_path).read_text(encoding="utf-8")
    for words in (
        "M predicts the dream's rewards, which the paper's does not.",
        "reward loss 0.25, held out reward loss 0.375",
        "limited to +- 10: its loss is the squared error; the held-out rewards' mean alone has 0.5",
        "Does the dream pay what the game pays?",
    ):
        assert words in card
    assert "done loss" not in card
    assert "as deadly" not in card
    (tmp_path / "world" / "config.json").unlink()  # no game is played for the report
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for words in ("Does the dream pay what", "M, the reward of a step", "mean alone has 0.5"):
        assert words in page
    assert "tic by tic" not in page
    assert "end of an episode" not in page


@pytest.mark.slow
def test_a_worlds_dream_is_compared_by_rewards(tmp_path, toy):
    world = paying_world(2.0, environment="toy", dream={"max_steps": 7}, seed=1)
    world.save(tmp_path / "world")
    config = dataclasses.replace(
        small_config().fidelity, policies=("still", "left"), real_episodes=2, dream_episodes=4
    )
    rows = compare_world(str(tmp_path / "world"), config)
    assert [(row.player, row.kind, row.measure) for row in rows] == [
        ("still", "policy", "reward"),
        ("left", "policy", "reward"),
        ("agent", "controller", "reward"),
    ]
    for row in rows:  # the toy pays 2 a step and lasts for 40 at most, and so does its dream
        assert row.dream.mean == pytest.approx(80, rel=1e-3)
        assert row.game.mean <= 80
    with pytest.raises(ValueError, match="environment"):
        controller_row("agent", paying_world(), [], 4, seed=0)


def test_the_dreams_rewards_are_measured(tmp_path):
    world = paying_world(0.5, environment="car-racing")
    write_made_up_episodes(tmp_path / "episodes", [[260, 150]])
    encode_episodes(tmp_path / "episodes", tmp_path / "latents", world.vae)
    held_out = HeldOut(tmp_path / "episodes", tmp_path / "latents", [0], 2)
    held_out.rewards[::10] = 20.0
    config = QualityConfig(windows=4, warm_up=5, horizon=5, samples=2, frames=9, dreams=3)
    settings = {"done_weight": 10.0, "policies": ("left",), "seed": 0}
    result = measure(world, held_out, config, **settings, reward_limit=6.0)["rewards"]
    assert result["mean"] == pytest.approx(1.5)
    assert result["predicted_mean"] == pytest.approx(0.5, rel=1e-5)
    assert result["variance"] == pytest.approx(0.1 * 0.9 * 25)
    assert result["squared_error"] == pytest.approx(result["variance"] + 1, rel=1e-4)
    assert (result["windows"], result["correlation"]) == (3, None)  # its guesses are all the same
    held_out.rewards = None
    assert "rewards" not in measure(world, held_out, config, **settings)


# --- a run ------------------------------------------------------------------------------------


def small_base(folder):
    """A finished run in the toy game, whose M and latents know no rewards."""
    config = dataclasses.replace(
        small_config(),
        rnn=RNNConfig(hidden_dim=8, n_mixtures=3, predicts_done=False),
        collect=CollectConfig(episodes=6, shard_episodes=2, min_steps=5),
        evolve_in="game",
        evolve=EvolveConfig(),
        sweep=SweepConfig(),
    )
    run = write_small_run(folder, config)
    save_weights(small_mdn_rnn(predicts_done=False), folder / "mdn_rnn.safetensors")
    world = small_world(False, environment="toy", env_kwargs=config.env_kwargs)
    world.save(run.world)
    for shard in range(3):
        write = dataclasses.replace
        episodes = [
            write(e, rewards=e.actions[:, 0])
            for e in (made_up_episode(7, seed=10 * shard + i) for i in range(2))
        ]
        data.write_episodes(run.episodes, shard, episodes, TOY.env_id)
        latents = made_up_latents([7, 7], 4, seed=shard)
        actions = np.concatenate([e.actions for e in episodes])
        data.write_latents(run.latents, shard, dataclasses.replace(latents, actions=actions))
    finish(run, "evolve")
    return run


def small_round(base, folder):
    rnn = dataclasses.replace(
        base.config.rnn, predicts_reward=True, epochs=2, batch=2, chunk=5, precision="fp32"
    )
    config = dataclasses.replace(
        base.config,
        recipe="car-racing-dream",
        round=RoundConfig(str(base.folder), episodes=2),
        rnn=rnn,
        evolve_in="dream",
        evolve=dataclasses.replace(small_config().evolve, generations=4),
        dream=DreamConfig(temperature=1.0, max_steps=30),
        gap=GapConfig(every=2, episodes=2),
    )
    return open_run(folder, config)


@pytest.mark.slow
def test_a_round_learns_rewards_on_top(tmp_path, toy):
    base = small_base(tmp_path / "base")
    before = {p.name: p.read_bytes() for p in base.latents.iterdir()}
    run = small_round(base, tmp_path / "round")
    for name in ("collect", "train-vae", "encode", "train-rnn", "fidelity", "evolve", "evaluate"):
        run_stage(name, run)
    assert {p.name: p.read_bytes() for p in base.latents.iterdir()} == before
    shards = data.finished_shards(run.latents, ".safetensors")
    assert shards == [0, 1, 2, 3]
    latents = data.read_latents(run.latents, shards)
    np.testing.assert_array_equal(latents.rewards, latents.actions[:, 0])  # what the agent did, too
    figures = run.record("train-rnn")["figures"]
    assert figures["held_out_reward_variance"] > 0
    assert figures["held_out_reward_loss"] > 0
    rows = read_fidelity(run.folder / "fidelity.json")
    assert {row.measure for row in rows} == {"reward"}
    assert {"still", "agent"} <= {row.player for row in rows}
    history = [
        json.loads(s)
        for s in (run.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [("gap" in row) for row in history] == [False, True, False, True]
    assert len({row["max"] for row in history}) > 1
    assert "score_in_the_dream" in run.record("evolve")["figures"]

    plain = dataclasses.replace(
        run.config,
        round=dataclasses.replace(run.config.round, base=str(run.folder)),
        rnn=dataclasses.replace(run.config.rnn, predicts_reward=False, predicts_done=True),
    )
    with pytest.raises(ValueError, match=r"--round.base: the M of .* predicts rewards"):
        Run(tmp_path / "other", plain).base()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # whatever libraries say in a run, it is no failure
def test_the_car_dreams_recipe_from_end_to_end(tmp_path, capsys):
    car = make_recipe("car-racing-smoke")
    base = dataclasses.replace(
        car,
        env_kwargs={"max_steps": 60},
        collect=CollectConfig(
            episodes=4, policies=("random-linear", "held-random"), min_steps=40, shard_episodes=2
        ),
        vae=dataclasses.replace(car.vae, steps=4, checkpoint_every=4),
        rnn=dataclasses.replace(car.rnn, hidden_dim=16, epochs=1, batch=2, chunk=20),
        evolve=dataclasses.replace(car.evolve, population=4, generations=1, rollout_schedule=()),
        dream=dataclasses.replace(car.dream, max_steps=40),
        game=dataclasses.replace(car.game, max_steps=40, patience=0),
        evaluate=dataclasses.replace(
            car.evaluate, episodes=2, random_episodes=2, unmodified_episodes=1
        ),
        quality=QualityConfig(
            episodes=2, windows=4, warm_up=5, horizon=5, samples=2, frames=8, dreams=2
        ),
    )
    first = open_run(tmp_path / "base", base)
    for name in ("collect", "train-vae", "encode", "train-rnn", "evolve"):
        run_stage(name, first)
    folder = tmp_path / "dream"
    command = ["run", "car-racing-dream", "--from", str(first.folder), "--folder", str(folder)]
    command += ["--round.episodes", "2", "--rnn.epochs", "1", "--fidelity.real-episodes", "2"]
    command += ["--fidelity.dream-episodes", "8", "--fidelity.policies", "uniform", "random-linear"]
    command += ["--evolve.population", "4", "--evolve.generations", "2", "--evolve.rollouts", "2"]
    command += ["--evolve.eval-rollouts", "4", "--dream.max-steps", "50"]
    command += ["--gap.every", "2", "--gap.episodes", "2"]
    assert cli.main(command) == 0, capsys.readouterr()
    out = " ".join(capsys.readouterr().out.split())
    assert "dream - game" in out
    assert "Reward in the real game (car-racing, max_steps 60)" in out
    rows = read_fidelity(folder / "fidelity.json")
    assert [row.player for row in rows] == ["uniform", "random-linear", "agent"]
    assert {row.measure for row in rows} == {"reward"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("Evolution in the dream", "Does the dream pay", "M, the reward of a step"):
        assert words in page
    readme = (folder / "world" / "README.md").read_text(encoding="utf-8")
    assert "M predicts the dream's rewards, which the paper's does not." in readme
    assert "--from runs/base" in readme
    assert json.loads((folder / "world" / "config.json").read_text(encoding="utf-8"))["mdn_rnn"][
        "predicts_reward"
    ]

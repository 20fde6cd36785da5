"""C evolved in the real game: in a toy of it, and CarRacing's whole run."""

import dataclasses
import json
import time

import gymnasium
import numpy as np
import pytest
import torch
from small_runs import TOY, small_config, with_evolve, with_section, write_small_run

from worldmodels_fast import World, envs, load_pretrained
from worldmodels_fast.cli import main as cli
from worldmodels_fast.evaluation.config import EvaluateConfig
from worldmodels_fast.evolution.cma import load_means
from worldmodels_fast.experiments.config import SweepConfig
from worldmodels_fast.experiments.pipeline import STAGES, open_run, run_stage
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.rollout.config import GameConfig
from worldmodels_fast.rollout.game import Game
from worldmodels_fast.utils.seeding import derive_seed

CAR = make_recipe("car-racing-smoke")


@pytest.fixture
def toy_game(monkeypatch):
    monkeypatch.setitem(envs.ENVIRONMENTS, "toy", TOY)


def in_game(**settings):
    """A small run in the toy game, by a schedule of rollouts."""
    settings = {"generations": 4, "rollout_schedule": ((2, 3),), **settings}
    config = dataclasses.replace(small_config(), evolve_in="game", sweep=SweepConfig())
    return with_evolve(with_section(config, "game", max_steps=50, workers=1), **settings)


@pytest.mark.slow
def test_returns_are_the_games_and_a_run_goes_on_bit_for_bit(tmp_path, toy_game):
    config = in_game()
    whole = write_small_run(tmp_path / "whole", config)
    run_stage("evolve", whole)
    history = [
        json.loads(s)
        for s in (whole.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["rollouts"] for row in history] == [2, 2, 3, 3]
    assert "gap" not in history[-1]
    figures = whole.record("evolve")["figures"]
    assert figures["game_steps"] == sum(row["steps"] for row in history)
    assert figures["score_steps"] == sum(row.get("score_steps", 0) for row in history) > 0
    assert figures["core_hours"] > 0
    assert "score_in_the_dream" not in figures
    # What was scored can be played again.
    mdn_rnn, controller, _ = whole.player()
    mean = load_means(whole.folder / "means.safetensors")[1]
    with Game(
        whole.load_vae(), mdn_rnn, controller, TOY.env_id, env_kwargs=config.env_kwargs
    ) as game:
        again = game.evaluate(mean[None], 8, derive_seed(config.seed, "evolve/mean", 1))
    assert history[1]["mean_score"] == again.returns.mean()
    assert history[1]["score_steps"] == again.lengths.sum()

    short = with_section(with_evolve(config, generations=2), "game", workers=2)
    cut = write_small_run(tmp_path / "cut", short)
    run_stage("evolve", cut)
    (cut.folder / "stages" / "evolve.json").unlink()
    run_stage("evolve", open_run(cut.folder, config))
    for name in ("controller.safetensors", "world/controller.safetensors"):
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_only_what_members_are_ranked_by_is_cut_short(tmp_path):
    run = Run(tmp_path, CAR)
    assert run.config.env_kwargs == {"max_steps": 200}
    assert run.members_env_kwargs() == {"max_steps": 150, "patience": 60}
    paper = Run(tmp_path, make_recipe("car-racing-paper"))
    assert paper.members_env_kwargs() == paper.config.env_kwargs == {}


def test_patience_with_a_game_that_knows_none(tmp_path):
    config = make_recipe("take-cover-smoke")
    config = dataclasses.replace(
        config,
        evolve_in="game",
        game=GameConfig(patience=5),
        gap=dataclasses.replace(config.gap, every=0),
        sweep=dataclasses.replace(config.sweep, temperatures=()),
    )
    with pytest.raises(ValueError, match=r"--game.patience: take-cover refuses them: .*patience"):
        open_run(tmp_path, config)


def test_where_m_predicts_no_end_survival_is_not_compared(tmp_path):
    wanted = [name for name, stage in STAGES.items() if stage.wanted(CAR)]
    assert wanted == [
        "collect",
        "train-vae",
        "encode",
        "train-rnn",
        "quality",
        "evolve",
        "evaluate",
        "report",
    ]
    run = open_run(tmp_path, CAR)
    with pytest.raises(ValueError, match="fidelity: M predicts no end of an episode"):
        run_stage("fidelity", run)
    assert run.new_controller().n_params == 867
    controller = run.new_controller().set_flat(np.full(867, -9, np.float32))
    actions = controller(torch.ones(1, 32), torch.ones(1, 256))
    assert actions.tolist() == [[-1, 0, 0]]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # whatever libraries say in a run, it is no failure
def test_car_racings_smoke_recipe_from_end_to_end(tmp_path, capsys):
    folder = tmp_path / "smoke"
    command = ["run", "car-racing-smoke", "--folder", str(folder)]
    began = time.monotonic()
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    print(out, f"\nthe smoke recipe took {time.monotonic() - began:.0f} s")
    assert "Reward in the real game (car-racing, max_steps 200)" in out

    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert list(evaluation) == ["agent", "agent-unmodified", "random"]
    card = envs.ENVIRONMENTS["car-racing"]
    ids = [evaluation[name]["settings"]["env_id"] for name in evaluation]
    assert ids == [card.env_id, card.unmodified_id, card.env_id]
    for name in evaluation:
        assert {"gymnasium", "box2d"} <= set(evaluation[name]["settings"]["versions"])
        assert evaluation[name]["settings"]["environment"]["max_steps"] == 200
    ours, theirs = (evaluation[name]["episodes"] for name in ("agent", "agent-unmodified"))
    assert [e["seed"] for e in theirs] == [e["seed"] for e in ours[:2]]
    assert all(100 < e["steps"] <= 200 for e in theirs)

    history = [
        json.loads(line)
        for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["rollouts"] for row in history] == [1, 1, 2, 2]
    assert all(row["steps"] < 150 * 8 * row["rollouts"] for row in history)  # some were given up
    # Scores are of whole episodes, unless a car leaves the playfield.
    assert [row["generation"] for row in history if "mean_score" in row] == [1, 3]
    assert all(row["score_steps"] > 4 * 150 for row in history if "mean_score" in row)

    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("In the real game", "The dream beside the game", "Evolution in the game"):
        assert f"<h2>{heading}" in page
    assert "the paper: z and h" in page
    assert "its own drawing" in page
    assert "end of an episode" not in page
    readme = (folder / "world" / "README.md").read_text(encoding="utf-8")
    for words in ("in the real game.", "agent-unmodified", "Reward, on seeds", "no end of its own"):
        assert words in readme

    world = load_pretrained(folder / "world")
    assert isinstance(world, World)
    population = np.zeros((2, 867), np.float32)
    lengths = world.dream().evaluate(population, rollouts=2, seed=0).lengths
    assert (lengths == 150).all()
    env = gymnasium.make(card.env_id)
    agent = world.agent(seed=0)
    frame, _ = env.reset(seed=0)
    for _ in range(5):
        action = agent.act(frame)
        assert env.action_space.contains(action)
        frame = env.step(action)[0]
    env.close()
    dreams = gymnasium.make_vec("worldmodels_fast/TakeCoverDream-v0", num_envs=2, world=world)
    assert dreams.single_action_space == env.action_space
    dreams.reset(seed=0)
    dreams.step(dreams.action_space.sample())

    gif = folder / "dreams.gif"
    video = ["video", str(folder), "--out", str(gif), "--tics", "30", "--warm-up", "10"]
    assert cli.main(video) == 0
    assert gif.stat().st_size > 1000
    assert cli.main(["evaluate", str(folder / "world"), "--episodes", "1", "--workers", "1"]) == 0
    assert "agent-unmodified" in capsys.readouterr().out
    assert cli.main(["fidelity", str(folder / "world")]) == 2
    assert "predicts no end" in capsys.readouterr().err

    # An ablation begins with what this run has.
    other = tmp_path / "z-hidden"
    command = ["run", "car-racing-z-hidden", "--folder", str(other), "--from", str(folder)]
    assert cli.main([*command, "--evolve.generations", "2"]) == 0
    assert "collect, train-vae, encode, train-rnn, quality" in capsys.readouterr().out
    assert World.load(other / "world").controller.n_params == 1443


@pytest.mark.slow
def test_an_untrained_memory_in_the_game(tmp_path, toy_game):
    config = in_game(generations=2, rollout_schedule=())
    controller = dataclasses.replace(config.controller, memory="untrained")
    config = dataclasses.replace(
        config, controller=controller, evaluate=EvaluateConfig(2, 2, workers=1)
    )
    run = write_small_run(tmp_path, config)
    run_stage("evolve", run)
    run_stage("evaluate", run)
    assert World.load(run.world).mdn_rnn.hidden_dim == 2 * config.rnn.hidden_dim

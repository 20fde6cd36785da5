import json
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from scipy import stats
from small_worlds import small_world

from worldmodels_fast.evaluation import evaluate as evaluation
from worldmodels_fast.evaluation import open_loop
from worldmodels_fast.evaluation.evaluate import evaluate_agent, evaluate_policies, evaluate_policy
from worldmodels_fast.evaluation.fidelity.compare import fidelity
from worldmodels_fast.evaluation.fidelity.row import FidelityRow, disagreements, fidelity_table
from worldmodels_fast.evaluation.scores import Evaluation
from worldmodels_fast.evaluation.statistics import summary
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World

TAKE_COVER = "worldmodels_fast/TakeCover-v0"


@pytest.fixture
def toy():
    """The id of a small game, in a module that worker processes can import, too."""
    return "toy_game:Toy-v0"


@pytest.fixture
def in_process(monkeypatch):
    """Policies play in this process, without workers; `.tasks` are those that were played."""

    def run_tasks(function, tasks, *, workers=None):
        for task in reversed(tasks):  # workers finish in any order
            run_tasks.tasks.append(task)
            yield task, function(task)

    run_tasks.tasks = []
    monkeypatch.setattr(evaluation, "run_tasks", run_tasks)
    yield run_tasks
    open_loop._environment.cache_clear()


def test_summary_is_what_it_says():
    scores = np.random.default_rng(0).gamma(3.0, 100.0, 200)
    s = summary(scores)
    assert (s.n, s.min, s.max) == (200, scores.min(), scores.max())
    assert s.mean == pytest.approx(scores.mean())
    assert s.std == pytest.approx(scores.std())
    assert s.median == pytest.approx(np.median(scores))
    expected = stats.bootstrap((scores,), np.mean, method="percentile", rng=1).confidence_interval
    assert s.low == pytest.approx(expected.low, rel=0.01)
    assert s.high == pytest.approx(expected.high, rel=0.01)
    assert summary(scores) == s
    assert str(summary([100.0])) == "100 +- 0 [100, 100]"


@pytest.mark.parametrize(("scores", "message"), [([], "at least one"), ([1, np.nan], "finite")])
def test_summary_names_bad_scores(scores, message):
    with pytest.raises(ValueError, match=message):
        summary(scores)


def test_episodes_depend_on_the_seed_and_their_number_alone(toy, in_process):
    ten = evaluate_policy("uniform", toy, 10, seed=3)
    four = evaluate_policy("uniform", toy, 4, seed=3)
    assert ten.episodes[:4] == four.episodes
    assert [episode.episode for episode in ten.episodes] == list(range(10))
    assert len({episode.seed for episode in ten.episodes}) == 10
    other = evaluate_policy("uniform", toy, 4, seed=4)
    assert not {e.seed for e in four.episodes} & {e.seed for e in other.episodes}
    # Another player under the same seed meets the same games.
    still = evaluate_policy("still", toy, 4, seed=3)
    assert [e.seed for e in still.episodes] == [e.seed for e in four.episodes]
    for episode in ten.episodes:
        assert episode.score == 2.0 * episode.steps
        assert episode.terminated == (episode.steps < 40)


def test_the_agent_plays_as_it_does_by_itself_and_goes_on_where_it_was(toy, tmp_path, monkeypatch):
    world = small_world()
    world.save(tmp_path / "world", dtype="fp32")
    path = tmp_path / "episodes.jsonl"
    arguments = {"seed": 1, "env_kwargs": {"pays_actions": True}, "workers": 2}
    whole = evaluate_agent(tmp_path / "world", toy, 5, **arguments, progress_path=path)
    env = gymnasium.make(toy, pays_actions=True)
    for episode in whole.episodes:
        player_seed = derive_seed(1, "evaluate/player", episode.episode)
        assert episode.seed == derive_seed(1, "evaluate/environment", episode.episode) % 2**31
        agent = world.agent(seed=player_seed)
        frame, _ = env.reset(seed=episode.seed)
        score, steps, over = 0.0, 0, False
        while not over:
            frame, reward, terminated, truncated, _ = env.step(agent.act(frame))
            score, steps, over = score + reward, steps + 1, terminated or truncated
        assert (episode.score, episode.steps) == (score, steps)
        assert episode.terminated == terminated
    # A kill: two episodes are finished, a third is half written.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [json.loads(line)["episode"] for line in lines[1:3]]
    path.write_text("".join(lines[:3]) + lines[3][:9], encoding="utf-8")
    seen = []
    resumed = evaluate_agent(
        world, toy, 5, **arguments, progress_path=path, on_episode=lambda *x: seen.append(x)
    )
    assert resumed == whole
    assert [x[1:] for x in seen] == [(n, 5) for n in (3, 4, 5)]
    assert {x[0].episode for x in seen} == set(range(5)) - set(kept)
    monkeypatch.delattr(World, "game")  # nothing is missing: no worker starts
    assert evaluate_agent(world, toy, 5, **arguments, progress_path=path) == whole
    for change in ({"latent": "mu"}, {"vae_precision": "bf16"}):
        with pytest.raises(ValueError, match="made with other settings"):
            evaluate_agent(world, toy, 5, **arguments, **change, progress_path=path)


def test_the_agent_meets_the_policies_games(toy, in_process):
    agent = evaluate_agent(small_world(), toy, 3, seed=1, latent="mu", vae_precision="bf16")
    assert agent.settings["latent"] == "mu"
    assert agent.settings["vae_precision"] == "bf16"
    still = evaluate_policy("still", toy, 3, seed=1)
    assert [e.seed for e in agent.episodes] == [e.seed for e in still.episodes]


def test_settings_tell_all_that_a_score_depends_on(toy, in_process):
    result = evaluate_policy("left", toy, 1, seed=5, env_kwargs={"longest": 9})
    assert result.settings["player"] == "left"
    assert result.settings["seed"] == 5
    environment = result.settings["environment"]
    assert (environment["longest"], environment["fail_at"]) == (9, None)
    assert {"gymnasium", "vizdoom", "torch", "numpy"} <= result.settings["versions"].keys()
    doom = evaluation._environment_settings(TAKE_COVER, {}, 0)["environment"]
    assert doom["skill"] == 4
    assert doom["resolution"] == "160x120"
    again = Evaluation.from_json(json.loads(json.dumps(result.to_json())))
    assert again == result
    assert result.to_json()["summary"]["n"] == 1


def test_finished_episodes_are_kept_and_not_played_again(toy, in_process, tmp_path):
    path = tmp_path / "kept" / "episodes.jsonl"
    whole = evaluate_policy("uniform", toy, 6, seed=2)
    seen = []
    evaluate_policy(
        "uniform", toy, 6, seed=2, progress_path=path, on_episode=lambda *x: seen.append(x)
    )
    assert [x[1:] for x in seen] == [(n, 6) for n in range(1, 7)]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 7
    # A kill: two episodes are finished, a third is half written.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:9], encoding="utf-8")
    in_process.tasks.clear()
    resumed = evaluate_policy("uniform", toy, 6, seed=2, progress_path=path)
    assert resumed == whole
    assert sorted(task.episode for task in in_process.tasks) == [0, 1, 2, 3]
    # More episodes go on, fewer are cut.
    in_process.tasks.clear()
    assert evaluate_policy("uniform", toy, 8, 2, progress_path=path).episodes[:6] == whole.episodes
    assert evaluate_policy("uniform", toy, 5, 2, progress_path=path).episodes == whole.episodes[:5]
    assert len(in_process.tasks) == 2
    with pytest.raises(ValueError, match="seed: 2, now 3"):
        evaluate_policy("uniform", toy, 6, seed=3, progress_path=path)
    with pytest.raises(ValueError, match="player: 'uniform', now 'left'"):
        evaluate_policy("left", toy, 6, seed=2, progress_path=path)


def test_bad_arguments_are_named(toy):
    with pytest.raises(ValueError, match="policy"):
        evaluate_policy("dance", toy, 1)
    with pytest.raises(ValueError, match="episodes"):
        evaluate_policy("left", toy, 0)
    with pytest.raises(ValueError, match="seed"):
        evaluate_policy("left", toy, 1, seed=-1)
    with pytest.raises(ValueError, match="not a world"):
        evaluate_agent(Path("/nowhere"), toy, 1)


def test_fidelity_compares_dream_and_game(toy, in_process, tmp_path):
    dream = small_world().dream(max_steps=40)
    arguments = {"policies": ("uniform", "left"), "episodes": 5, "dream_episodes": 20, "seed": 1}
    rows = fidelity(dream, toy, **arguments, folder=tmp_path)
    assert [row.player for row in rows] == ["uniform", "left"]
    games = evaluate_policies(["uniform", "left"], toy, 5, seed=1)
    for row in rows:
        assert row.game_scores == [e.steps for e in games[row.player].episodes]
        assert len(row.dream_scores) == 20
        assert row.ratio == pytest.approx(np.mean(row.dream_scores) / np.mean(row.game_scores))
        assert row.ratio_low < row.ratio < row.ratio_high
    # Another dream does not need the game's episodes again.
    in_process.tasks.clear()
    fidelity(small_world(seed=1).dream(max_steps=40), toy, **arguments, folder=tmp_path)
    assert not in_process.tasks
    table = fidelity_table(rows).splitlines()
    assert len(table) == 4
    assert table[2].startswith("| uniform | ")


def test_disagreements_are_the_worst_first():
    rows = [
        FidelityRow.compare("fine", [100, 110], [120, 130]),
        FidelityRow.compare("immortal", [100, 110], [1900, 2100]),
        FidelityRow.compare("deadly", [100, 110], [40, 50]),
    ]
    assert [row.player for row in disagreements(rows)] == ["immortal", "deadly"]
    assert [row.player for row in disagreements(rows, factor=3)] == ["immortal"]


@pytest.mark.slow
def test_a_dead_workers_episode_is_played_again(toy, tmp_path):
    expected = evaluate_policy("uniform", toy, 4, seed=1, workers=1)
    crash = {"crash_once": str(tmp_path / "crashed")}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = evaluate_policy("uniform", toy, 4, seed=1, workers=2, env_kwargs=crash)
    assert result.episodes == expected.episodes
    assert any("worker" in str(warning.message) for warning in caught)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a worker failed")
def test_an_episode_that_always_fails_says_why(toy):
    with pytest.raises(RuntimeError, match="the toy broke"):
        evaluate_policy("still", toy, 1, workers=1, env_kwargs={"fail_at": 1})


@pytest.mark.slow
def test_the_real_game_in_two_workers():
    game = evaluate_policy("left", TAKE_COVER, 3, seed=1, workers=2)
    agent = evaluate_agent(small_world(), TAKE_COVER, 2, seed=1, workers=1)
    assert [e.seed for e in agent.episodes] == [e.seed for e in game.episodes[:2]]
    for result in (game, agent):
        assert result.settings["environment"]["skill"] == 4
        for episode in result.episodes:
            assert 30 < episode.steps <= 2100
            assert episode.score == episode.steps

import dataclasses

import gymnasium
import numpy as np
import pytest

from worldmodels_fast import data, load_pretrained
from worldmodels_fast.data import collect as collection
from worldmodels_fast.data.collect import (
    CollectConfig,
    ShardTask,
    collect,
    collect_shard,
    collect_with_agent,
)
from worldmodels_fast.envs.policies import make_policy

SMALL = CollectConfig(
    episodes=5, policies=("held-random", "right"), min_steps=20, shard_episodes=2, workers=1
)
SHORT = {"max_steps": 60}


def everything(folder):
    return [list(data.read_episodes(folder, shard)) for shard in data.finished_shards(folder)]


def assert_same(a, b):
    for shard_a, shard_b in zip(a, b, strict=True):
        for x, y in zip(shard_a, shard_b, strict=True):
            np.testing.assert_array_equal(x.frames, y.frames)
            np.testing.assert_array_equal(x.actions, y.actions)
            assert (x.seed, x.terminated) == (y.seed, y.terminated)


@pytest.fixture
def in_this_process(monkeypatch):
    """Collects without workers; the list holds the tasks that were done."""
    done = []

    def run_tasks(function, tasks, *, workers=None):
        for task in tasks:
            done.append(task.shard)
            yield task, function(task)

    monkeypatch.setattr(collection, "run_tasks", run_tasks)
    return done


@pytest.mark.slow
def test_shards_do_not_depend_on_the_workers(tmp_path):
    for workers in (1, 2):
        config = dataclasses.replace(SMALL, workers=workers)
        collect(tmp_path / str(workers), "take-cover", config, seed=3, env_kwargs=SHORT)
    one, two = (everything(tmp_path / str(workers)) for workers in (1, 2))
    assert [len(shard) for shard in one] == [2, 2, 1]
    assert_same(one, two)


def test_collection_resumes(tmp_path, in_this_process):
    reports = []
    collect(
        tmp_path / "a",
        "take-cover",
        SMALL,
        seed=3,
        env_kwargs=SHORT,
        on_shard=lambda *figures: reports.append(figures),
    )
    assert in_this_process == [0, 1, 2]
    whole = everything(tmp_path / "a")
    assert [episodes for episodes, _, _ in reports] == [2, 2, 1]
    for (_, seen, kept), shard in zip(reports, whole, strict=True):
        assert kept == sum(map(len, shard)) <= seen
    assert len({episode.seed for shard in whole for episode in shard}) == 5
    # Killed with the second shard half written:
    episodes = tmp_path / "a"
    second = data.shard_path(episodes, 1)
    second.rename(second.with_name("shard-00001.4711.unfinished"))
    in_this_process.clear()
    collect(episodes, "take-cover", SMALL, seed=3, env_kwargs=SHORT)
    assert in_this_process == [1]
    assert_same(everything(episodes), whole)
    assert sorted(p.name for p in episodes.iterdir()) == [f"shard-0000{i}" for i in range(3)]
    # Another seed, other games.
    collect(
        tmp_path / "b",
        "take-cover",
        dataclasses.replace(SMALL, episodes=2),
        seed=4,
        env_kwargs=SHORT,
    )
    assert everything(tmp_path / "b")[0][0].seed != whole[0][0].seed


def test_a_record_is_the_frame_before_the_action(tmp_path, in_this_process):
    collect(tmp_path, "take-cover", SMALL, seed=3, env_kwargs=SHORT)
    (episode, second), *_ = everything(tmp_path)
    assert len(episode) > 20
    assert episode.rewards.tolist() == [1.0] * len(episode)
    env = gymnasium.make("worldmodels_fast/TakeCover-v0", **SHORT)
    try:
        frame, _ = env.reset(seed=episode.seed)
        for t, action in enumerate(episode.actions):
            np.testing.assert_array_equal(frame, episode.frames[t])
            frame, _, terminated, truncated, _ = env.step(action)
        assert terminated == episode.terminated
        assert terminated or truncated
    finally:
        env.close()
    # Policies take turns.
    assert len(np.unique(episode.actions)) > 3
    assert np.unique(second.actions).tolist() == [1.0]


class Toy(gymnasium.Env):
    """Episodes of 1, 2, 3 ... steps."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    length = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length += 1
        self.t = 0
        return np.zeros((64, 64, 3), np.uint8), {}

    def step(self, action):
        self.t += 1
        frame = np.full((64, 64, 3), self.t, np.uint8)
        return frame, 0.5, self.t >= self.length, False, {}


def test_short_episodes_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gymnasium, "make", lambda env_id, **settings: Toy(**settings))
    task = ShardTask(tmp_path, 0, 3, "take-cover", {}, ("still",), 4, seed=0)
    assert collect_shard(task) == (1 + 2 + 3 + 4 + 5 + 6 + 7, 5 + 6 + 7)
    (episodes,) = everything(tmp_path)
    assert [len(episode) for episode in episodes] == [5, 6, 7]
    assert all(episode.terminated for episode in episodes)
    assert episodes[0].frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_an_environment_without_end_is_cut():
    rng = np.random.default_rng(0)
    toy = Toy()
    toy.length = 100
    episode = collection.play_episode(toy, make_policy("still"), 10, 7, rng)
    assert len(episode) == 10
    assert episode.terminated is False
    assert episode.seed == 7
    assert episode.rewards.tolist() == [0.5] * 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "--collect.episodes: expected at least 1, got 0"),
        ({"shard_episodes": 0}, "--collect.shard-episodes: expected at least 1, got 0"),
        (
            {"policies": ("held-random", "clever")},
            "--collect.policies: expected one of .*, got 'clever'",
        ),
        ({"policies": ()}, "--collect.policies: expected the name of at least one"),
        ({"min_steps": 60}, "--collect.min-steps: expected fewer than 60, .* got 60"),
        ({"workers": 0}, "--collect.workers: expected at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(tmp_path, change, message):
    config = dataclasses.replace(SMALL, **change)
    with pytest.raises(ValueError, match=message):
        collect(tmp_path, "take-cover", config, seed=0, env_kwargs=SHORT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_agents_episodes_can_be_played_again_from_their_actions(tmp_path):
    world = load_pretrained("take-cover")
    world.config["env_kwargs"] |= {"max_steps": 130}
    reports = []

    def collect_two(shards):
        collect_with_agent(
            tmp_path, world, shards, 2, sigma=0.1, seed=3, on_shard=lambda *n: reports.append(n)
        )

    collect_two([5])
    collect_two([5, 6])  # the first one is there
    assert data.finished_shards(tmp_path) == [5, 6]
    episodes = [episode for shard in everything(tmp_path) for episode in shard]
    assert reports == [
        (2, n, n) for n in (sum(map(len, episodes[:2])), sum(map(len, episodes[2:])))
    ]
    assert len({episode.seed for episode in episodes}) == 4
    assert not np.array_equal(episodes[0].actions[:50], episodes[1].actions[:50])
    env = gymnasium.make("worldmodels_fast/TakeCover-v0", **world.config["env_kwargs"])
    for episode in episodes:
        frame, _ = env.reset(seed=episode.seed)
        for seen, action, reward in zip(
            episode.frames, episode.actions, episode.rewards, strict=True
        ):
            np.testing.assert_array_equal(seen, frame)
            frame, real_reward, terminated, _, _ = env.step(action)
            assert reward == real_reward
        assert terminated == episode.terminated
    env.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard_episodes": 0}, "shard_episodes: expected"),
        ({"sigma": -0.1}, "sigma: expected"),
        ({"spread": 0.9}, "spread: expected a number from 1"),
    ],
)
def test_an_agents_bad_settings_are_named(tmp_path, change, message):
    settings = {"shard_episodes": 2, "sigma": 0.1, "seed": 1, **change}
    with pytest.raises(ValueError, match=message):
        collect_with_agent(tmp_path, load_pretrained("take-cover"), [0], **settings)


def test_an_agents_noise_is_as_wide_as_it_is_told(tmp_path):
    world = load_pretrained("take-cover")
    best = world.controller.flat.detach().numpy()

    class Game:
        def __enter__(self):
            return self

        def __exit__(self, *raised):
            pass

        def play(self, members, episodes, on_episode, on_step):
            self.sizes = (members - best).std(1)

    def sizes(**settings):
        game = Game()
        world.game = lambda **kwargs: game
        collect_with_agent(tmp_path, world, range(40), 5, sigma=0.1, seed=1, **settings)
        return game.sizes

    same, spread = sizes(), sizes(spread=10.0)
    np.testing.assert_allclose(same, 0.1, rtol=0.1)
    assert 0.009 < spread.min() < 0.02
    assert 0.07 < spread.max() < 0.11
    assert np.median(spread) == pytest.approx(0.1 / 10**0.5, rel=0.3)

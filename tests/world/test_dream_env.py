"""Dreams as a Gymnasium vector environment; what SyncVectorEnv does is what is expected."""

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from small_worlds import small_world

from worldmodels_fast import ops, reference
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.world.dream_env import DreamVectorEnv


def make(n=6, **settings):
    return DreamVectorEnv(n, world=small_world(), **{"max_steps": 40, **settings})


def test_vector_env_has_gymnasiums_spaces_and_reproducible_seeds():
    env = make()
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    assert env.single_observation_space.shape == (4 + 8,)
    traces = []
    for _ in range(2):
        obs, info = env.reset(seed=4)
        assert obs in env.observation_space
        assert info == {}
        env.action_space.seed(1)
        trace = [obs]
        for _ in range(60):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert obs in env.observation_space
            assert reward.shape == terminated.shape == truncated.shape == (6,)
            trace.append(obs)
        traces.append(np.stack(trace))
    np.testing.assert_array_equal(*traces)
    other, _ = env.reset(seed=5)
    assert (other != traces[0][0]).any()
    env.close()


def test_vector_env_ends_as_the_dream():
    n, steps = 64, 400
    env = make(n, max_steps=30, temperature=1.0)
    env.reset(seed=0)
    lengths = np.zeros(n, int)
    ended = np.zeros(n, bool)
    finished = []
    for _ in range(steps):
        actions = np.full((n, 1), -1.0, np.float32)
        obs, reward, terminated, truncated, _ = env.step(actions)
        np.testing.assert_array_equal(reward, ~ended)  # the step after an end resets
        assert not (terminated | truncated)[ended].any()
        assert not obs[ended, 4:].any()  # a new dream remembers nothing
        lengths = np.where(ended, 0, lengths + 1)
        ended = terminated | truncated
        assert (lengths[truncated] == 30).all()
        assert not (terminated & truncated).any()
        finished += lengths[ended].tolist()
    theirs = small_world().dream(max_steps=30, temperature=1.0).survival_of("left", 2000)
    spread = np.hypot(np.std(finished) / np.sqrt(len(finished)), theirs.std() / np.sqrt(2000))
    assert abs(np.mean(finished) - theirs.mean()) < 5 * spread + 0.3  # the last are cut off


def test_vector_env_gives_the_rewards_that_m_predicts():
    world = small_world(predicts_reward=True)
    env = DreamVectorEnv(8, world=world, max_steps=20)
    obs, _ = env.reset(seed=0)
    ended = np.zeros(8, bool)
    cells, ages = np.zeros((8, 8), np.float32), np.zeros(8)
    some = []
    for _ in range(60):
        actions = np.full((8, 1), 0.5, np.float32)
        z, h = obs[:, :4], obs[:, 4:]
        out = reference.mdn_rnn_step(env.dream.weights, z, actions, h, cells, ages == 0)
        obs, reward, terminated, truncated, _ = env.step(actions)
        assert reward.dtype == np.float64
        np.testing.assert_allclose(reward[~ended], out.reward[~ended], atol=1e-4)
        assert not reward[ended].any()  # the step after an end resets
        cells = np.where(ended[:, None], 0, out.c).astype(np.float32)
        ages = np.where(ended, 0, ages + 1)
        ended = terminated | truncated
        some += reward.tolist()
    assert np.std(some) > 0.01


def test_vector_env_through_gymnasiums_own_door():
    env_id = "SmallDream-v0"
    gymnasium.register(
        env_id,
        vector_entry_point="worldmodels_fast.world.dream_env:DreamVectorEnv",
        kwargs={"world": small_world()},
    )
    try:
        env = gymnasium.make_vec(env_id, num_envs=3)
        assert env.num_envs == 3
        assert env.reset(seed=1)[0].shape == (3, 12)
        env.close()
    finally:
        del gymnasium.registry[env_id]


# --- seeds and masks --------------------------------------------------------------------------


class OneDream(gymnasium.Env):
    """A row of `DreamVectorEnv` as an environment of its own, for SyncVectorEnv."""

    def __init__(self, **settings):
        self.rows = make(1, **settings)
        self.observation_space = self.rows.single_observation_space
        self.action_space = self.rows.single_action_space

    def reset(self, *, seed=None, options=None):
        observations, info = self.rows.reset(seed=None if seed is None else [seed])
        return observations[0], info

    def step(self, action):
        observations, *rest, info = self.rows.step(action[None])
        return observations[0], *(part[0] for part in rest), info


def sync(n, **settings):
    return gymnasium.vector.SyncVectorEnv([lambda: OneDream(**settings)] * n)


def mask_of(n, *rows):
    mask = np.zeros(n, np.bool_)
    mask[list(rows)] = True
    return mask


@pytest.mark.parametrize("seed", [3, [5, 1, 4, 2], [None, 7, None, 2**64 - 1]])
def test_seeds_and_masks_are_those_of_sync_vector_env(seed):
    ours, theirs = (
        RecordEpisodeStatistics(env)
        for env in (make(4, done_temperature=1.0), sync(4, done_temperature=1.0))
    )
    for env in (ours, theirs):
        env.reset(seed=11)
    rng = np.random.default_rng(0)
    own_lengths = np.zeros(4, int)
    finished, ended = 0, np.zeros(4, bool)
    for t in range(150):
        options = [None, None]
        if t % 25 == 7:
            options = [{"reset_mask": mask_of(4, 0, 2)} for _ in range(2)]
        if t % 25 == 7 or t == 90:
            some = seed if t in (7, 90) else None
            pair = [
                env.reset(seed=some, options=option)
                for env, option in zip((ours, theirs), options, strict=True)
            ]
            np.testing.assert_array_equal(pair[0][0], pair[1][0])
            restarted = mask_of(4, 0, 2) if t % 25 == 7 else np.ones(4, bool)
            own_lengths[restarted] = 0
            ended[restarted] = False
        actions = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
        (*a, info), (*b, _) = ours.step(actions), theirs.step(actions)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
        own_lengths = np.where(ended, 0, own_lengths + 1)
        ended = a[2] | a[3]
        if ended.any():  # Gymnasium's own record has the same lengths
            np.testing.assert_array_equal(info["episode"]["l"][ended], own_lengths[ended])
            finished += int(ended.sum())
    assert finished > 10
    assert ours.episode_count == finished


def test_a_mask_restarts_its_rows_alone():
    env, whole = make(5), make(5)
    for each in (env, whole):
        each.reset(seed=1)
    actions = np.full((5, 1), 0.3, np.float32)
    for each in (env, whole):
        each.step(actions)
    before = whole.step(actions)[0]
    env.step(actions)
    obs, _ = env.reset(options={"reset_mask": mask_of(5, 1, 3)})
    np.testing.assert_array_equal(obs[[0, 2, 4]], before[[0, 2, 4]])
    assert not obs[[1, 3], 4:].any()
    assert (obs[[1, 3], :4] != before[[1, 3], :4]).all()
    # The others go on as if nothing had happened.
    np.testing.assert_array_equal(
        env.step(actions)[0][[0, 2, 4]], whole.step(actions)[0][[0, 2, 4]]
    )


def test_a_rows_dreams_are_the_rollouts_of_its_seed():
    """Whatever the other rows do, and through its ends."""
    world = small_world()
    settings = {"temperature": 0.9, "max_steps": 30, "done_temperature": 1.0}
    env = DreamVectorEnv(3, world=world, **settings)
    spec = ops.ControllerSpec(("z", "h"), 4, 8, 1, bias=False)
    native = Dream(world.mdn_rnn, spec, world.initial_latents, **settings)
    params = np.random.default_rng(0).normal(size=(3, spec.n_params)).astype(np.float32)
    seeds = [9, 2**64 - 1, 4]
    obs, _ = env.reset(seed=seeds)
    lengths = [[], [], []]
    now = np.zeros(3, int)
    ended = np.zeros(3, bool)
    while min(len(row) for row in lengths) < 6:
        actions = ops.controller_forward(spec, params, obs[:, :4].copy(), obs[:, 4:].copy())
        obs, _, terminated, truncated, _ = env.step(actions)
        now = np.where(ended, 0, now + 1)
        ended = terminated | truncated
        for row in np.flatnonzero(ended):
            lengths[row].append(int(now[row]))
    for row, seed in enumerate(seeds):
        expected = native.evaluate(params[row : row + 1], 6, seed).lengths[0]
        assert lengths[row][:6] == expected.tolist()
    assert len({length for row in lengths for length in row}) > 4


def test_unseeded_rows_differ_and_go_on():
    env = make(4)
    first, _ = env.reset(seed=[None] * 4)
    assert len(np.unique(first[:, 0])) == 4
    again, _ = env.reset(seed=[None] * 4)
    assert (again[:, :4] != first[:, :4]).all()
    other, _ = make(4).reset()
    assert (other[:, :4] != first[:, :4]).all()
    np.testing.assert_array_equal(env.reset(seed=np.int64(3))[0], env.reset(seed=3)[0])
    np.testing.assert_array_equal(env.reset(seed=[3, 4, 5, 6])[0], env.reset(seed=3)[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": [1, 2]}, ValueError, "seed: expected 3 seeds, one for each row, got 2"),
        ({"seed": -1}, ValueError, "seed: expected 0 <= seed"),
        ({"seed": 2.5}, TypeError, "seed: expected an integer, got 2.5"),
        ({"seed": [1, 2.5, 3]}, TypeError, "seed: expected an integer, got 2.5"),
        ({"seed": "abc"}, TypeError, "seed: expected an integer, got 'abc'"),
        ({"options": {"colour": 1}}, ValueError, "options: expected .*, got 'colour' too"),
        ({"options": {"reset_mask": [True] * 3}}, TypeError, "reset_mask.*, got list"),
        ({"options": {"reset_mask": np.ones(3)}}, TypeError, "reset_mask.*, got float64"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, ValueError, r"reset_mask.*, got \(2,\)"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, ValueError, "at least one True"),
    ],
)
def test_bad_resets_are_named(arguments, error, message):
    env = make(3)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.reset(**arguments)


@pytest.mark.parametrize("limit", [7, np.int64(7)])
def test_the_step_limit_has_gymnasiums_name_too(limit):
    env_id = "SmallDreamOfSevenSteps-v0"
    gymnasium.register(
        env_id,
        vector_entry_point="worldmodels_fast.world.dream_env:DreamVectorEnv",
        kwargs={"world": small_world(predicts_done=False)},
    )
    try:
        env = gymnasium.make_vec(env_id, num_envs=2, max_episode_steps=limit)
    finally:
        del gymnasium.registry[env_id]
    env.reset(seed=0)
    truncated = [env.step(np.zeros((2, 1), np.float32))[3].all() for _ in range(7)]
    assert truncated == [False] * 6 + [True]
    assert make(2, max_episode_steps=40).dream.max_steps == 40
    with pytest.raises(ValueError, match="max_episode_steps: expected the same as max_steps"):
        make(2, max_steps=5, max_episode_steps=6)


@pytest.mark.parametrize("dtype", [np.longdouble, np.float64, np.float16, np.int64, np.bool_])
def test_numbers_of_any_kind_are_actions(dtype):
    env, plain = make(4), make(4)
    for each in (env, plain):
        each.reset(seed=0)
    actions = np.array([[0], [1], [1], [0]])
    np.testing.assert_array_equal(
        env.step(actions.astype(dtype))[0], plain.step(actions.astype(np.float32))[0]
    )


def test_bad_use_is_named():
    env = make(2)
    for call in (
        lambda: env.step(np.zeros((2, 1), np.float32)),
        lambda: env.reset(options={"reset_mask": np.ones(2, bool)}),
    ):
        with pytest.raises(gymnasium.error.ResetNeeded):
            call()
    env.reset()
    for value, said in ((np.nan, "nan"), (np.inf, "inf"), (1e300, r"1e\+300")):
        actions = np.zeros((2, 1))
        actions[1] = value
        message = rf"actions: expected finite numbers \(2, 1\), got {said} in row 1, action 0"
        with pytest.raises(ValueError, match=message):
            env.step(actions)
    with pytest.raises(ValueError, match=r"actions: expected shape \(2, 1\), got \(3, 1\)"):
        env.step(np.zeros((3, 1), np.float32))
    for wrong in (np.full((2, 1), 1j), np.full((2, 1), "a")):
        with pytest.raises(TypeError, match="actions: expected numbers"):
            env.step(wrong)
    with pytest.raises(ValueError, match="num_envs: expected at least 1, got 0"):
        make(0)
    with pytest.raises(TypeError, match="num_envs"):
        make(2.5)


def test_repr_is_one_line_with_sizes():
    assert repr(make(2)).startswith("DreamVectorEnv(num_envs=2, Dream(latent_dim=4, ")
    assert "\n" not in repr(make(2))

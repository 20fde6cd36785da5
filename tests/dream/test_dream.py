import gymnasium
import numpy as np
import pytest
import torch
from small_worlds import small_mdn_rnn, small_world

from worldmodels_fast import ops, reference
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.world.dream_env import DreamVectorEnv


def population(dream, members, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(members, dream.n_params)).astype(np.float32)


def test_evaluate_is_the_kernel_with_this_worlds_settings():
    world = small_world()
    dream = world.dream(temperature=0.8, max_steps=60, done_threshold=0.3)
    members = population(dream, 6)
    result = dream.evaluate(members, rollouts=5, seed=7)
    assert result.returns.shape == result.lengths.shape == (6, 5)
    assert result.returns.dtype == np.float32
    assert result.lengths.dtype == np.int32
    returns, lengths = ops.dream_rollout(
        world.mdn_rnn.weights(),
        world.controller.spec,
        members,
        *world.initial_latents,
        rollouts=5,
        seed=7,
        temperature=0.8,
        max_steps=60,
        done_threshold=0.3,
    )
    np.testing.assert_array_equal(result.returns, returns)
    np.testing.assert_array_equal(result.lengths, lengths)
    assert len(np.unique(lengths)) > 3


def test_torch_in_gives_torch_out():
    dream = small_world().dream(max_steps=30)
    members = population(dream, 3)
    ours = dream.evaluate(members, rollouts=4, seed=1)
    theirs = dream.evaluate(torch.from_numpy(members), rollouts=4, seed=1)
    assert isinstance(ours.returns, np.ndarray)
    assert isinstance(theirs.returns, torch.Tensor)
    np.testing.assert_array_equal(ours.lengths, theirs.lengths.numpy())


def test_threads_and_the_populations_split_change_nothing():
    world = small_world()
    members = population(world.dream(), 7)
    whole = world.dream(max_steps=80, threads=1).evaluate(members, rollouts=6, seed=3)
    dream = world.dream(max_steps=80, threads=2)
    np.testing.assert_array_equal(whole.returns, dream.evaluate(members, 6, 3).returns)
    halves = [dream.evaluate(half, 6, 3).returns for half in (members[:3], members[3:])]
    np.testing.assert_array_equal(whole.returns, np.concatenate(halves))
    assert (whole.returns != dream.evaluate(members, 6, 4).returns).any()


def test_weights_or_modules_specs_or_controllers():
    world = small_world()
    members = population(world.dream(), 2)
    by_module = world.dream(max_steps=20).evaluate(members)
    by_parts = Dream(
        world.mdn_rnn.weights(), world.controller.spec, world.initial_latents, 1.15, 20
    ).evaluate(members)
    np.testing.assert_array_equal(by_module.returns, by_parts.returns)


def test_a_world_without_ends_dreams_to_the_last_step():
    dream = small_world(predicts_done=False).dream(max_steps=17)
    assert (dream.evaluate(population(dream, 2), 3).lengths == 17).all()
    assert (dream.survival_of("uniform", 5) == 17).all()


def test_survival_of_fixed_policies_agrees_with_a_controller_that_does_the_same():
    world = small_world()
    # tanh(-20) is -1: a bias alone is "left".
    left = LinearController(("z",), latent_dim=4, hidden_dim=8, action_dim=1, bias=True)
    flat = np.zeros((1, left.n_params), np.float32)
    flat[0, 0] = -20.0
    dream = Dream(world.mdn_rnn, left, world.initial_latents, 1.0, 400)
    ours = dream.survival_of("left", 800, seed=5)
    theirs = dream.evaluate(flat, 800, seed=6).lengths[0]
    assert ours.dtype == np.int32
    assert ours.min() >= 1
    assert ours.max() <= 400
    spread = np.hypot(ours.std(), theirs.std()) / np.sqrt(800)
    assert abs(ours.mean() - theirs.mean()) < 4 * spread


def test_survival_is_reproducible_and_needs_no_controller():
    world = small_world()
    dream = Dream(world.mdn_rnn, None, world.initial_latents, max_steps=50)
    for policy in ("held-random", "swing-3"):
        first = dream.survival_of(policy, 20, seed=1)
        np.testing.assert_array_equal(first, dream.survival_of(policy, 20, seed=1))
        assert (first != dream.survival_of(policy, 20, seed=2)).any()
    with pytest.raises(ValueError, match="controller: this dream was made without one"):
        dream.evaluate(np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match="policy: expected one of"):
        dream.survival_of("dance")


def test_one_step_is_the_references():
    world = small_world()
    dream = world.dream(temperature=0.7)
    rng = np.random.default_rng(0)
    z, action, h, c = (rng.normal(size=(5, n)).astype(np.float32) for n in (4, 1, 8, 8))
    restart = np.array([1, 0, 0, 1, 0], np.float32)
    ours = dream.step(z, action, h, c, restart, seed=3, t=9)
    out = reference.mdn_rnn_step(dream.weights, z, action, h, c, restart)
    sample = reference.mixture_sample(out.logmix, out.mu, out.logstd, 0.7, seed=3, step=9)
    for got, expected in zip(ours, (sample, out.h, out.c, out.done_logit > 0), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    *same, reward = dream.step_with_reward(z, action, h, c, restart, seed=3, t=9)
    for got, expected in zip(same, ours, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(reward, np.ones(5, np.float32))  # this M predicts none


@pytest.mark.parametrize("done", [False, True])
def test_the_reward_is_the_one_that_m_predicts(done):
    world = small_world(done, predicts_reward=True)
    dream = world.dream()
    rng = np.random.default_rng(0)
    z, action, h, c = (rng.normal(size=(5, n)).astype(np.float32) for n in (4, 1, 8, 8))
    restart = np.array([1, 0, 0, 1, 0], np.float32)
    *_, reward = dream.step_with_reward(z, action, h, c, restart, seed=3, t=9)
    out = reference.mdn_rnn_step(dream.weights, z, action, h, c, restart)
    assert reward.dtype == np.float32
    np.testing.assert_allclose(reward, out.reward, rtol=1e-5, atol=1e-5)


def test_evaluate_adds_up_the_rewards_that_m_predicts():
    world = small_world(predicts_reward=True)
    with torch.no_grad():  # exactly 0.25 for each step
        world.mdn_rnn.head.weight[1] = 0.0
        world.mdn_rnn.head.bias[1] = 0.25
    dream = world.dream(max_steps=60)
    result = dream.evaluate(population(dream, 6), rollouts=5, seed=7)
    np.testing.assert_array_equal(result.returns, 0.25 * result.lengths)
    assert len(np.unique(result.lengths)) > 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_steps": 0}, "max_steps"),
        ({"device": "tpu"}, "device"),
        ({"done_threshold": float("inf")}, "done_threshold"),
        ({"done_temperature": -0.1}, "done_temperature"),
        ({"done_temperature": float("nan")}, "done_temperature"),
        ({"backend": "mmx"}, "mmx"),
        ({"precision": "fp8"}, "fp8"),
        ({"initial_latents": (np.zeros((3, 5)), np.zeros((3, 5)))}, r"\(I, 4\)"),
        ({"initial_latents": (np.zeros((3, 4)), np.zeros((2, 4)))}, "differ in shape"),
        ({"initial_latents": (np.full((3, 4), np.nan), np.zeros((3, 4)))}, "mu: expected finite"),
        (
            {"controller": LinearController(latent_dim=4, hidden_dim=9, action_dim=1)},
            "hidden_dim is 9, but mdn_rnn's is 8",
        ),
    ],
)
def test_bad_arguments_are_named(change, message):
    world = small_world()
    arguments = {
        "mdn_rnn": world.mdn_rnn,
        "controller": world.controller,
        "initial_latents": world.initial_latents,
    }
    with pytest.raises(ValueError, match=message):
        Dream(**{**arguments, **change})


def test_bad_populations_are_named():
    dream = small_world().dream(max_steps=5)
    with pytest.raises(ValueError, match="params"):
        dream.evaluate(np.zeros((2, dream.n_params + 1), np.float32))
    with pytest.raises(TypeError, match="params"):
        dream.evaluate(np.zeros((2, dream.n_params)))
    with pytest.raises(ValueError, match="rollouts"):
        dream.evaluate(population(dream, 2), rollouts=0)


# --- the vector environment -------------------------------------------------------------------


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


def test_vector_env_lives_and_dies_as_the_dream():
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


def test_vector_env_names_bad_use():
    env = make(2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 1), np.float32))
    env.reset()
    with pytest.raises(ValueError, match="actions: expected finite"):
        env.step(np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="num_envs"):
        make(0)


def test_small_dreams_end_at_all_sorts_of_times():
    """What the tests above rely on."""
    lengths = Dream(small_mdn_rnn(), None, small_world().initial_latents).survival_of("left", 200)
    assert 3 < np.median(lengths) < 300
    assert len(np.unique(lengths)) > 10

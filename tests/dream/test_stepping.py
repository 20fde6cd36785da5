"""Dreams stepped by Python are the native ones, step for step."""

import numpy as np
import pytest
from backends import COMBINATIONS
from small_worlds import small_world

from worldmodels_fast import ops, reference
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.dream.stepping import begin, play, state_at, step
from worldmodels_fast.models.controller import LinearController


def random_state(**settings):
    rng = np.random.default_rng(0)
    return state_at(*(rng.normal(size=(5, k)).astype(np.float32) for k in (4, 8, 8)), **settings)


def random_actions(n=5, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 1)).astype(np.float32)


def played(dream, population, rollouts, seed):
    """The returns and lengths of `Dream.evaluate`, by a loop over `step`."""
    members = len(population)
    state = begin(dream, members * rollouts, seed, np.tile(np.arange(rollouts), members))
    params = np.repeat(population, rollouts, axis=0)
    returns = np.zeros(members * rollouts, np.float32)
    lengths = np.zeros(members * rollouts, np.int32)
    alive = np.arange(members * rollouts)
    for _ in range(dream.max_steps):
        actions = ops.controller_forward(
            dream.spec, params[alive], state.z, state.h, state.c, backend=dream.model.backend
        )
        after = step(dream, state, actions)
        returns[alive] += after.reward
        lengths[alive] += 1
        alive, state = alive[~after.done], after.state.rows(~after.done)
        if not alive.size:
            break
    return returns.reshape(members, -1), lengths.reshape(members, -1)


@pytest.mark.parametrize("done_temperature", [0.0, 1.0])
@pytest.mark.parametrize("predicts_reward", [False, True])
@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_a_loop_over_steps_gives_the_native_rollouts(seed, predicts_reward, done_temperature):
    world = small_world(predicts_reward=predicts_reward)
    dream = world.dream(
        temperature=0.9, max_steps=60, done_threshold=0.3, done_temperature=done_temperature
    )
    population = np.random.default_rng(seed).normal(size=(4, dream.n_params)).astype(np.float32)
    native = dream.evaluate(population, rollouts=12, seed=seed)
    returns, lengths = played(dream, population, 12, seed)
    np.testing.assert_array_equal(lengths, native.lengths)
    np.testing.assert_array_equal(returns, native.returns)
    assert len(np.unique(lengths)) > 3


@pytest.mark.parametrize(("backend", "precision"), COMBINATIONS)
def test_so_it_does_on_every_backend(backend, precision):
    dream = small_world().dream(
        max_steps=60, backend=backend, precision=precision, done_temperature=0.5
    )
    population = np.random.default_rng(0).normal(size=(3, dream.n_params)).astype(np.float32)
    native = dream.evaluate(population, rollouts=3, seed=1)
    np.testing.assert_array_equal(played(dream, population, 3, 1)[1], native.lengths)


def test_open_loop_policies_play_the_native_rollouts():
    """A controller of one bias does the same as "left", in the same dreams."""
    world = small_world()
    left = LinearController(("z",), latent_dim=4, hidden_dim=8, action_dim=1, bias=True)
    flat = np.zeros((1, left.n_params), np.float32)
    flat[0, 0] = -20.0  # tanh(-20) is -1
    dream = Dream(world.mdn_rnn, left, world.initial_latents, 1.0, 400, done_temperature=1.0)
    native = dream.evaluate(flat, 50, seed=5)
    returns, lengths = dream.play_policy("left", 50, seed=5)
    np.testing.assert_array_equal(lengths, native.lengths[0])
    np.testing.assert_array_equal(returns, native.returns[0])
    np.testing.assert_array_equal(dream.survival_of("left", 7, seed=5), lengths[:7])
    np.testing.assert_array_equal(
        dream.play_policy("left", 50, seed=5, steps=3)[1], np.minimum(lengths, 3)
    )


@pytest.mark.parametrize("done_temperature", [0.0, 0.7])
def test_one_step_is_the_references(done_temperature):
    dream = small_world(predicts_reward=True).dream(
        temperature=0.7, done_threshold=0.2, done_temperature=done_temperature
    )
    ids = {
        "seed": np.array([3, 3, 4, 4, 4], np.uint64),
        "rollout": np.array([0, 9, 0, 1, 2]),
        "step": np.array([0, 5, 0, 9, 9]),
    }
    state, actions = random_state(**ids), random_actions()
    got = step(dream, state, actions)
    restart = (ids["step"] == 0).astype(float)
    out = reference.mdn_rnn_step(dream.weights, state.z, actions, state.h, state.c, restart)
    drawn = reference.mixture_sample(out.logmix, out.mu, out.logstd, 0.7, **ids)
    ended = reference.done_sample(out.done_logit, 0.2, done_temperature, **ids)
    for ours, theirs in [
        (got.state.z, drawn),
        (got.state.h, out.h),
        (got.state.c, out.c),
        (got.reward, out.reward),
        (got.done_logit, out.done_logit),
    ]:
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got.done, ended)
    np.testing.assert_array_equal(got.state.step, ids["step"] + 1)
    np.testing.assert_array_equal(got.state.seed, ids["seed"])


def test_without_rewards_each_step_gives_one_and_without_ends_none_ends():
    dream = small_world(predicts_done=False).dream()
    after = step(dream, random_state(), random_actions())
    np.testing.assert_array_equal(after.reward, np.ones(5, np.float32))
    assert after.done_logit is None
    assert not after.done.any()


def test_a_rollout_depends_on_its_own_noise_alone():
    dream = small_world().dream(done_temperature=1.0)
    whole = begin(dream, 6, 3)
    np.testing.assert_array_equal(
        whole.z, ops.initial_latents(dream.initial_mu, dream.initial_logvar, 6, seed=3)
    )
    actions = random_actions(6)
    after = step(dream, whole, actions)
    for n in range(6):
        alone = step(dream, begin(dream, 1, 3, np.array([n])), actions[n : n + 1])
        np.testing.assert_array_equal(alone.state.z[0], after.state.z[n])
        np.testing.assert_array_equal(alone.state.h[0], after.state.h[n])
        assert alone.done[0] == after.done[n]


def test_the_loop_drops_rollouts_that_ended_or_not():
    dream = small_world().dream(max_steps=300)
    lengths, returned = np.zeros(30, int), []
    for now in play(dream, begin(dream, 30, 1), lambda state, rows: random_actions(len(state))):
        assert len(now.rows) == len(now.before) == len(now.after.done)
        lengths[now.rows] += 1
        returned += now.rows[now.after.done].tolist()
    assert sorted(returned) == np.flatnonzero(lengths < 300).tolist()
    assert len(np.unique(lengths)) > 5
    steps = list(
        play(
            dream, begin(dream, 30, 1), lambda state, rows: random_actions(30), 9, to_the_end=False
        )
    )
    assert [len(now.rows) for now in steps] == [30] * 9
    assert any(now.after.done.any() for now in steps)


def test_the_mean_of_the_mixture():
    dream = small_world().dream()
    state, actions = random_state(), random_actions()
    mean = step(dream, state, actions, sample=False)
    out = reference.mdn_rnn_step(dream.weights, state.z, actions, state.h, state.c, np.zeros(5))
    weight = np.exp(out.logmix) / np.exp(out.logmix).sum(-1, keepdims=True)
    np.testing.assert_allclose(mean.state.z, (weight * out.mu).sum(-1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="action"):
        step(dream, state, actions[:3])


def test_states_and_bad_numbers_are_named():
    dream = small_world().dream()
    assert repr(begin(dream, 3)) == "DreamState(N=3, Z=4, H=8)"
    assert dream.begin(3, 1).z.tolist() == begin(dream, 3, 1).z.tolist()
    assert dream.step(dream.begin(3), random_actions(3)).done.shape == (3,)
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        begin(dream, 0)
    with pytest.raises(ValueError, match="seed: expected 0 <= seed"):
        begin(dream, 2, -1)
    with pytest.raises(TypeError, match="n: expected an integer"):
        begin(dream, 2.5)

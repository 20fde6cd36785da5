import numpy as np
import pytest
import torch
from small_worlds import small_mdn_rnn, small_world

from worldmodels_fast import ops
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.models.controller import LinearController


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


def test_survival_of_open_loop_policies_agrees_with_a_controller_that_does_the_same():
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
            "mdn_rnn, controller: expected the same hidden_dim, got 8 and 9",
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


def test_integers_of_numpy_are_integers_and_others_are_refused():
    world = small_world()
    dream = world.dream(max_steps=np.int64(9), threads=np.uint8(1), temperature=np.float32(1))
    assert type(dream.max_steps) is int
    assert type(dream.threads) is int
    members = population(dream, 2)
    result = dream.evaluate(members, rollouts=np.int16(3), seed=np.uint64(2**63))
    np.testing.assert_array_equal(result.lengths, dream.evaluate(members, 3, 2**63).lengths)
    lengths = dream.survival_of("left", np.int32(4), np.int64(2))
    np.testing.assert_array_equal(lengths, dream.survival_of("left", 4, 2))
    for change in ({"max_steps": 2.5}, {"max_steps": True}, {"threads": 1.0}, {"temperature": "1"}):
        (name,) = change
        with pytest.raises(TypeError, match=f"{name}: expected"):
            world.dream(**change)
    for arguments in ((2.5,), (2, 1.5), (2, 0, 1.5)):
        with pytest.raises(TypeError, match="expected an integer"):
            dream.play_policy("left", *arguments)
    with pytest.raises(TypeError, match="rollouts: expected an integer"):
        dream.evaluate(members, 2.5)


def test_repr_is_one_line_with_sizes():
    dream = small_world().dream(max_steps=5, backend="generic")
    assert repr(dream) == (
        "Dream(latent_dim=4, action_dim=1, hidden_dim=8, n_mixtures=3, n_params=20, "
        "first_latents=5, temperature=1.15, max_steps=5, done_threshold=0, done_temperature=0, "
        "backend='generic', device='cpu', precision='fp32')"
    )
    assert repr(dream.evaluate(population(dream, 3), 2)) == "DreamResult(P=3, R=2)"
    assert repr(dream.weights) == (
        "MDNRNNWeights(latent_dim=4, action_dim=1, hidden_dim=8, n_mixtures=3, "
        "predicts_done=True, predicts_reward=False)"
    )


def test_small_dreams_end_at_all_sorts_of_times():
    """What the tests above rely on."""
    lengths = Dream(small_mdn_rnn(), None, small_world().initial_latents).survival_of("left", 200)
    assert 3 < np.median(lengths) < 300
    assert len(np.unique(lengths)) > 10

import numpy as np
import pytest

from worldmodels_fast.envs.policies import FIDELITY_POLICIES, POLICY_NAMES, PolicyBatch, make_policy
from worldmodels_fast.envs.squash import CAR_RACING_SQUASH, Squash

NAMES = (*(name for name in POLICY_NAMES if name != "swing-N"), "swing-1", "swing-7")


def holds(actions):
    """Lengths of the runs of equal actions, without the last, which may be cut."""
    changes = np.flatnonzero(np.diff(actions[:, 0])) + 1
    return np.diff(np.concatenate([[0], changes]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("squash", [Squash.plain(1), CAR_RACING_SQUASH])
def test_one_by_one_at_once_and_in_a_batch_are_the_same(name, squash):
    policy = make_policy(name, squash)
    at_once = policy.actions(np.random.default_rng(5), 200)
    assert at_once.shape == (200, squash.action_dim)
    assert at_once.dtype == np.float32
    np.testing.assert_array_equal(at_once, squash.clip(at_once))
    policy.reset(np.random.default_rng(5))
    np.testing.assert_array_equal(at_once, [policy.act() for _ in range(200)])
    batch = PolicyBatch(name, [np.random.default_rng(seed) for seed in (4, 5, 6)], squash)
    in_batch = np.array([batch.act() for _ in range(200)])
    assert in_batch.shape == (200, 3, squash.action_dim)
    np.testing.assert_array_equal(at_once, in_batch[:, 1])


def test_what_they_do():
    rng = np.random.default_rng(0)
    uniform = make_policy("uniform").actions(rng, 5000)
    assert (holds(uniform) == 1).all()
    assert abs(uniform.mean()) < 0.05
    assert uniform.std() == pytest.approx(1 / np.sqrt(3), rel=0.05)
    held = holds(make_policy("held-random").actions(rng, 20_000))
    assert set(held) == set(range(1, 11))
    assert held.mean() == pytest.approx(5.5, rel=0.05)
    for name, value in (("still", 0), ("left", -1), ("right", 1)):
        assert (make_policy(name).actions(rng, 50) == value).all()
    swing = make_policy("swing-3").actions(rng, 9)[:, 0]
    np.testing.assert_array_equal(swing, [-1, -1, -1, 1, 1, 1, -1, -1, -1])
    lingering = make_policy("lingering")
    tics = np.concatenate([holds(lingering.actions(rng, 2000)) for _ in range(30)])
    assert tics.min() == 1
    assert 80 < tics.max() <= 100
    assert 0.4 < tics[tics > 10].sum() / tics.sum() < 0.9


def test_the_random_linear_policy_is_another_one_in_each_episode():
    rng = np.random.default_rng(0)
    policy = make_policy("random-linear", CAR_RACING_SQUASH)
    episodes = np.stack([policy.actions(rng, 100) for _ in range(300)])
    means = episodes.mean(1)  # (episodes, A)
    # Mostly about straight on, at half throttle; but Cauchy numbers are large now and then.
    np.testing.assert_allclose(np.median(means, 0), (0, 0.5, 0), atol=0.1)
    spread = np.abs(means[:, 0])
    assert spread.max() > 20 * np.median(spread)
    assert episodes[:, :, 1].min() >= 0
    assert (episodes.std(1)[:, 0] > 0).all()  # what it sees is noise
    assert 0.3 < (episodes[:, :, 2] == 0).mean() < 0.7  # brakes: clipped, not halved


def test_names():
    assert make_policy("held_random").name == "held-random"
    for name in FIDELITY_POLICIES:
        make_policy(name)
    for name in ("dance", "swing-0", "swing-", "swing-N"):
        with pytest.raises(ValueError, match=f"expected one of uniform, .*got '{name}'"):
            make_policy(name)
    with pytest.raises(RuntimeError, match="before reset"):
        make_policy("still").act()

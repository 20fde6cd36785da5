"""What must hold on the bundled worlds, with their trained weights."""

import json

import gymnasium
import numpy as np
import pytest

import worldmodels_fast as wmf
from worldmodels_fast import ops, reference
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.world import pretrained

FOLDER = pretrained.BUNDLED
SIZES = {  # parameters of V, M and C, and the first latents
    "car-racing": (4_348_547, 422_368, 867, (575, 32)),
    "take-cover": (4_446_915, 1_678_785, 1_088, (1000, 64)),
}
MAX_STEPS = 150  # of the dreams in here: long enough for many to end, short enough for seconds


@pytest.fixture(scope="module", params=sorted(SIZES))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def world(name):
    return wmf.load_pretrained(name)


@pytest.fixture(scope="module")
def take_cover():
    return wmf.load_pretrained("take-cover")


def around(world):
    """A population around the world's controller."""
    rng = np.random.default_rng(0)
    spread = 0.1 * rng.standard_normal((64, world.controller.n_params))
    evolved = world.controller.flat.detach().numpy()
    return (evolved + spread).astype(np.float32)


def make_dream(world, **settings):
    return world.dream(max_steps=MAX_STEPS, **settings)


def test_all_bundled_worlds_are_tested():
    assert sorted(SIZES) == sorted(pretrained.pretrained_names())


def test_it_is_the_papers_world_in_under_15_megabytes(name, world):
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    vae, mdn_rnn, controller, latents = SIZES[name]
    assert count(world.vae) == vae
    assert count(world.mdn_rnn) == mdn_rnn
    assert world.controller.n_params == controller
    assert world.initial_latents[0].shape == latents
    assert sum(file.stat().st_size for file in (FOLDER / name).iterdir()) < 15e6
    assert "## Score in the real game" in world.card


def test_a_generation_is_bitwise_the_same_however_it_is_computed(take_cover):
    world, population = take_cover, around(take_cover)
    assert population.shape == (64, 1088)
    whole = make_dream(world, threads=2).evaluate(population, rollouts=16, seed=0)
    assert whole.returns.shape == whole.lengths.shape == (64, 16)
    assert len(np.unique(whole.lengths)) > 20, "the dreams should end at different times"
    again = make_dream(world, threads=2).evaluate(population, rollouts=16, seed=0)
    single = make_dream(world, threads=1).evaluate(population, rollouts=16, seed=0)
    split = np.concatenate(
        [
            make_dream(world, threads=2).evaluate(part, rollouts=16, seed=0).lengths
            for part in np.split(population, [1, 14, 31])
        ]
    )
    for other in (again.lengths, single.lengths, split):
        np.testing.assert_array_equal(whole.lengths, other)
    np.testing.assert_array_equal(whole.returns, whole.lengths.astype(np.float32))
    other_seed = make_dream(world).evaluate(population[:4], rollouts=16, seed=1)
    assert (other_seed.lengths != whole.lengths[:4]).any()


@pytest.mark.parametrize("backend", ops.available_backends())
def test_a_step_is_the_references_step(world, backend):
    weights = world.mdn_rnn.weights()
    mu, logvar = world.initial_latents
    rng = np.random.default_rng(1)
    n = 13
    z = (mu[:n] + np.exp(logvar[:n] / 2) * rng.standard_normal(mu[:n].shape)).astype(np.float32)
    h, c = np.zeros((2, n, weights.hidden_dim), np.float32)
    model = ops.pack_mdn_rnn(weights, backend=backend)
    for t in range(20):  # trained weights, states that a dream really passes through
        action = rng.uniform(-1, 1, (n, weights.action_dim)).astype(np.float32)
        restart = np.full(n, t == 0, np.float32) if weights.predicts_done else None
        fast = ops.mdn_rnn_step(model, z, action, h, c, restart)
        slow = reference.mdn_rnn_step(weights, z, action, h, c, restart)
        for field, got, expected in zip(fast._fields, fast, slow, strict=True):
            if expected is None:
                assert got is None, field
            else:
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5, err_msg=field)
        h, c = fast.h, fast.c
        z = ops.mixture_sample(fast.logmix, fast.mu, fast.logstd, 1.0, seed=3, step=t)


def test_its_scores_are_those_of_its_weights(name, world):
    evaluation = json.loads((FOLDER / name / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["agent"]["settings"]["world"] == world.digest()
    for player in ("agent", "random"):
        scores = [episode["score"] for episode in evaluation[player]["episodes"]]
        assert len(scores) >= 100
        assert evaluation[player]["summary"]["mean"] == pytest.approx(np.mean(scores))


def test_the_agent_is_evolved_and_not_just_initialised(take_cover):
    world = take_cover
    dream = Dream(world.mdn_rnn, world.controller, world.initial_latents, temperature=1.15)
    own = world.controller.flat.detach().numpy()[None]
    evolved = dream.evaluate(own, rollouts=64, seed=5).returns.mean()
    nothing = dream.evaluate(np.zeros_like(own), rollouts=64, seed=5).returns.mean()
    assert evolved > 2 * nothing


def test_the_driver_drives_in_gymnasiums_own_environment():
    world = wmf.load_pretrained("car-racing")
    environment = gymnasium.make("worldmodels_fast/GymnasiumCarRacing64-v0")
    agent = world.agent(seed=0)
    frame, _ = environment.reset(seed=0)
    score = 0.0
    for _ in range(200):
        frame, reward, terminated, truncated, _ = environment.step(agent.act(frame))
        score += float(reward)
        if terminated or truncated:
            break
    environment.close()
    assert score > 60, "a car that stands still would have -20"

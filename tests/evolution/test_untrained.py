"""One M that dreams with its first half and remembers for C with its second."""

import numpy as np
import pytest
import torch
from small_worlds import small_mdn_rnn

from worldmodels_fast import MDNRNN, Dream, LinearController
from worldmodels_fast.evolution.untrained import beside_untrained, reads_second_half, widen


def test_it_predicts_what_the_trained_one_does():
    trained = small_mdn_rnn(predicts_reward=True)
    state = torch.get_rng_state()
    both = beside_untrained(trained, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    untrained = MDNRNN(4, 1, 8, n_mixtures=3, predicts_done=True, predicts_reward=True)
    z, action = torch.randn(6, 2, 4), torch.rand(6, 2, 1)
    restart = torch.zeros(6, 2)
    restart[0] = 1
    out, expected = both(z, action, restart=restart), trained(z, action, restart=restart)
    for name in ("logmix", "mu", "logstd", "done_logit", "reward"):
        torch.testing.assert_close(getattr(out, name), getattr(expected, name))
    beside = untrained(z, action, restart=restart)
    for name in ("h", "c"):
        halves = torch.cat([getattr(expected, name), getattr(beside, name)], dim=1)
        torch.testing.assert_close(getattr(out, name), halves)


@pytest.mark.parametrize(
    ("features", "bias", "hidden_units"),
    [(("z", "c", "h"), False, 0), (("h",), True, 0), (("c", "z"), True, 5), (("z",), False, 3)],
)
def test_widened_parameters_see_the_second_half_alone(features, bias, hidden_units):
    sizes = {"latent_dim": 4, "action_dim": 2, "bias": bias, "hidden_units": hidden_units}
    plain = LinearController(features, hidden_dim=8, **sizes)
    wide = reads_second_half(plain.spec)
    population = np.random.default_rng(0).normal(size=(3, plain.n_params)).astype(np.float32)
    widened = widen(plain.spec, population)
    assert widened.shape == (3, wide.n_params)
    z, h, c = torch.randn(5, 4), torch.randn(5, 8), torch.randn(5, 8)
    noise = torch.randn(5, 8)
    for own, its in zip(population, widened, strict=True):
        torch.testing.assert_close(
            wide.set_flat(its)(z, torch.cat([noise, h], 1), torch.cat([-noise, c], 1)),
            plain.set_flat(own)(z, h, c),
        )


def test_its_dreams_are_those_of_the_trained_one():
    rng = np.random.default_rng(1)
    trained = small_mdn_rnn()
    latents = tuple(rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    plain = LinearController(("z",), latent_dim=4, hidden_dim=8, action_dim=1)
    population = rng.normal(size=(3, plain.n_params)).astype(np.float32)
    both = Dream(beside_untrained(trained, 0), reads_second_half(plain.spec), latents, max_steps=50)
    alone = Dream(trained, plain, latents, max_steps=50)
    np.testing.assert_array_equal(
        both.evaluate(widen(plain.spec, population), 16, seed=2).lengths,
        alone.evaluate(population, 16, seed=2).lengths,
    )

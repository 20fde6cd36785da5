import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import nn

from worldmodels_fast import MDNRNN, ops, reference
from worldmodels_fast.models.mdn_rnn import MDNRNNOutput, lstm_with_restarts, mixture_nll


def small(predicts_done=True, seed=0, predicts_reward=False):
    torch.manual_seed(seed)
    return MDNRNN(4, 2, 6, 3, predicts_done, predicts_reward)


def inputs(steps, n, model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(steps, n, model.latent_dim, generator=generator)
    action = torch.rand(steps, n, model.action_dim, generator=generator) * 2 - 1
    state = [torch.randn(n, model.hidden_dim, generator=generator) for _ in range(2)]
    return z, action, tuple(state)


@pytest.mark.parametrize(
    ("sizes", "count"), [((32, 3, 256, 5, False), 422_368), ((64, 1, 512, 5, True), 1_678_785)]
)
def test_the_papers_parameter_counts(sizes, count):
    assert sum(p.numel() for p in MDNRNN(*sizes).parameters() if p.requires_grad) == count


def torchs_lstm(model):
    """torch's LSTM with the weights of M's."""
    lstm = nn.LSTM(model.weight_ih.shape[1], model.hidden_dim)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(model.weight_ih)
        lstm.weight_hh_l0.copy_(model.weight_hh)
        lstm.bias_ih_l0.copy_(model.bias)
        lstm.bias_hh_l0.zero_()
    return lstm


def test_the_lstm_is_torchs():
    model = small(predicts_done=False)
    z, action, (h, c) = inputs(7, 3, model)
    lstm = torchs_lstm(model)
    with torch.no_grad():
        hidden, (h_end, c_end) = lstm(torch.cat([z, action], -1), (h[None], c[None]))
        out = model(z, action, (h, c))
    head = model.head(hidden).view(7, 3, 4, 3, 3)
    torch.testing.assert_close(out.logmix, head[..., 0, :])
    torch.testing.assert_close(out.mu, head[..., 1, :])
    torch.testing.assert_close(out.logstd, head[..., 2, :])
    torch.testing.assert_close((out.h, out.c), (h_end[0], c_end[0]))
    assert out.done_logit is None


@pytest.mark.parametrize("predicts_done", [False, True])
def test_the_heads_column_after_the_ends_is_the_reward(predicts_done):
    model = small(predicts_done, predicts_reward=True)
    assert model.head.out_features == 3 * 3 * 4 + predicts_done + 1
    assert model.weight_ih.shape[1] == 4 + 2 + predicts_done  # no reward goes in
    z, action, state = inputs(2, 3, model)
    before = model(z, action, state)
    assert before.reward.shape == (2, 3)
    with torch.no_grad():
        model.head.bias[int(predicts_done)] += 10
    after = model(z, action, state)
    torch.testing.assert_close(after.reward, before.reward + 10)
    for name in ("logmix", "mu", "logstd", "done_logit", "h", "c"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    assert small(predicts_done)(z, action, state).reward is None


def test_the_first_column_of_the_head_is_the_end():
    model = small()
    z, action, state = inputs(2, 3, model)
    before = model(z, action, state)
    with torch.no_grad():
        model.head.bias[0] += 10.0
    after = model(z, action, state)
    torch.testing.assert_close(after.done_logit, before.done_logit + 10)
    torch.testing.assert_close(after.logmix, before.logmix)
    with torch.no_grad():  # the first latent dimension: 3 log-weights, 3 means, 3 log-stds
        model.head.bias[1:4] += 1.0
        model.head.bias[4:7] += 2.0
        model.head.bias[7:10] += 3.0
    rows = model(z, action, state)
    for name, shift in (("logmix", 1), ("mu", 2), ("logstd", 3)):
        difference = getattr(rows, name) - getattr(after, name)
        torch.testing.assert_close(difference[:, :, 0], torch.full((2, 3, 3), float(shift)))
        torch.testing.assert_close(difference[:, :, 1:], torch.zeros(2, 3, 3, 3))


def test_a_restart_forgets_and_is_seen():
    model = small()
    z, action, state = inputs(6, 2, model)
    restart = torch.zeros(6, 2)
    restart[3, 0] = 1
    whole = model(z, action, state, restart)
    # Row 0 from step 3 on is a fresh sequence, whose first step bears the flag; row 1 is not.
    flag = torch.zeros(3, 2)
    flag[0] = 1
    fresh = model(z[3:], action[3:], None, flag)
    torch.testing.assert_close(whole.mu[3:, 0], fresh.mu[:, 0])
    torch.testing.assert_close(whole.h[0], fresh.h[0])
    plain = model(z, action, state)
    torch.testing.assert_close(whole.mu[:, 1], plain.mu[:, 1])
    torch.testing.assert_close(whole.mu[:3], plain.mu[:3])
    assert not torch.allclose(whole.mu[3:, 0], plain.mu[3:, 0])
    without_flag = model(z[3:], action[3:], None, torch.zeros(3, 2))
    assert not torch.allclose(fresh.mu, without_flag.mu)


def test_state_carries_over_chunks():
    model = small()
    z, action, state = inputs(8, 2, model)
    whole = model(z, action, state)
    first = model(z[:5], action[:5], state)
    second = model(z[5:], action[5:], (first.h, first.c))
    torch.testing.assert_close(whole.mu, torch.cat([first.mu, second.mu]))
    torch.testing.assert_close((whole.h, whole.c), (second.h, second.c))


def test_gradients_with_restarts():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    keep = torch.ones(5, 3, 1, dtype=torch.float64)
    keep[0, 1] = keep[2, 0] = keep[4, 2] = 0
    arguments = random(5, 3, 16), random(16, 4), random(3, 4), random(3, 4)
    assert torch.autograd.gradcheck(
        lambda *tensors: lstm_with_restarts(*tensors, keep), arguments, atol=1e-6
    )


def test_gradients_are_torchs():
    model = small(predicts_done=False)
    z, action, (h, c) = inputs(7, 3, model)
    lstm = torchs_lstm(model)
    hidden, _ = lstm(torch.cat([z, action], -1), (h[None], c[None]))
    model.head(hidden).square().sum().backward()
    expected = [lstm.weight_ih_l0.grad, lstm.weight_hh_l0.grad, lstm.bias_ih_l0.grad]
    model.zero_grad()
    out = model(z, action, (h, c))
    sum(part.square().sum() for part in (out.logmix, out.mu, out.logstd)).backward()
    torch.testing.assert_close(
        [model.weight_ih.grad, model.weight_hh.grad, model.bias.grad], expected
    )


def test_second_derivatives_are_an_error():
    model = small()
    z, action, _ = inputs(2, 2, model)
    loss = model(z, action).mu.square().sum()
    (gradient,) = torch.autograd.grad(loss, model.weight_hh, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_bfloat16_products_are_near():
    torch.manual_seed(0)
    model = MDNRNN(16, 1, 64, predicts_done=True)
    z, action, state = inputs(20, 4, model)
    exact = model(z, action, state)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(z, action, state)
    assert rough.mu.dtype == rough.h.dtype == torch.float32
    assert (rough.h - exact.h).abs().max() < 0.03
    assert (rough.h != exact.h).any()


def test_the_nll_is_that_of_a_mixture_of_normals():
    rng = np.random.default_rng(0)
    logmix, mu, logstd = rng.normal(size=(3, 2, 3, 4, 5))
    target = rng.normal(size=(2, 3, 4))
    output = MDNRNNOutput(*map(torch.from_numpy, (logmix, mu, logstd)), None, None, None)
    nll = mixture_nll(output, torch.from_numpy(target))
    assert nll.shape == (2, 3, 4)
    weights = logmix - logsumexp(logmix, axis=-1, keepdims=True)
    density = norm.logpdf(target[..., None], mu, np.exp(logstd))
    np.testing.assert_allclose(nll, -logsumexp(weights + density, axis=-1), rtol=1e-10)
    # Far from every component it is large, not infinite.
    far = mixture_nll(output, torch.full((2, 3, 4), 1e4, dtype=torch.float64))
    assert torch.isfinite(far).all()


@pytest.mark.parametrize("predicts_done", [False, True])
@pytest.mark.parametrize("predicts_reward", [False, True])
def test_the_kernels_take_its_weights(predicts_reward, predicts_done):
    model = small(predicts_done, predicts_reward=predicts_reward)
    z, action, (h, c) = inputs(1, 5, model)
    restart = torch.tensor([1.0, 0, 0, 1, 0])
    # M forgets by itself where a sequence restarts; the step is given the state as it is to be.
    keep = (1 - restart)[:, None]
    with torch.no_grad():
        expected = model(z, action, (h, c), restart[None])
    arrays = [x.contiguous().numpy() for x in (z[0], action[0], h * keep, c * keep)]
    flag = restart.numpy() if predicts_done else None
    weights = model.weights()
    for step in (
        reference.mdn_rnn_step(weights, *arrays, flag),
        ops.mdn_rnn_step(weights, *arrays, flag),
    ):
        for name in ("logmix", "mu", "logstd"):
            np.testing.assert_allclose(getattr(step, name), getattr(expected, name)[0], atol=2e-5)
        np.testing.assert_allclose(step.h, expected.h, atol=2e-5)
        np.testing.assert_allclose(step.c, expected.c, atol=2e-5)
        for name, predicted in (("done_logit", predicts_done), ("reward", predicts_reward)):
            if predicted:
                got, wanted = getattr(step, name), getattr(expected, name)[0]
                np.testing.assert_allclose(got, wanted, atol=2e-5)
            else:
                assert getattr(step, name) is None


def test_weights_there_and_back():
    model, other = small(seed=0), small(seed=1)
    weights = model.weights()
    assert other.load_weights(weights) is other
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), parameter, rtol=0, atol=0)
    with torch.no_grad():
        other.bias.zero_()
    assert weights.bias.any()  # they are copies
    with pytest.raises(ValueError, match=r"predicts_done: this M's is False"):
        small(predicts_done=False).load_weights(weights)
    with pytest.raises(ValueError, match=r"predicts_reward: this M's is True"):
        small(predicts_reward=True).load_weights(weights)


def test_fresh_weights():
    model = small()
    assert model.bias[6:12].tolist() == [1.0] * 6  # the forget gate's
    assert model.bias[:6].tolist() == model.bias[12:18].tolist() == [0.0] * 6
    h, c = model.initial_state(3)
    assert h.shape == c.shape == (3, 6)
    assert not h.any()
    assert h.data_ptr() != c.data_ptr()


def test_bad_input_is_named():
    model = small()
    z, action, _ = inputs(3, 2, model)
    with pytest.raises(ValueError, match=r"z, action: expected \(T, N, 4\) and \(T, N, 2\), got"):
        model(z, action[:, :, :1])
    with pytest.raises(ValueError, match="z, action"):
        model(z[..., :3], action)
    for name in ("latent_dim", "action_dim", "hidden_dim", "n_mixtures"):
        sizes = {"latent_dim": 1, "action_dim": 1, "hidden_dim": 1, "n_mixtures": 1, name: 0}
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            MDNRNN(**sizes)

"""The single ops, as people call them in their own loop: ours and torch eager in one group."""

import numpy as np
import pytest
import torch
from cases import TEMPERATURE, TorchDream, make_case

from worldmodels_fast import ops, reference

SIZES = [1, 64, 1024]


@pytest.fixture(params=["car_racing", "doom"])
def case(request):
    return make_case(request.param)


def step_inputs(case, n):
    w, rng = case.weights, np.random.default_rng(0)
    shapes = [(n, w.latent_dim), (n, w.action_dim), (n, w.hidden_dim), (n, w.hidden_dim)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("who", ["ours", "torch eager"])
def test_mdn_rnn_step(benchmark, case, n, who):
    benchmark.group = f"mdn_rnn_step {case.name} N={n}, 1 thread"
    w = case.weights
    z, action, h, c = step_inputs(case, n)
    expected = reference.mdn_rnn_step(w, z, action, h, c)
    if who == "ours":
        model = ops.pack_mdn_rnn(w)

        def run():
            return ops.mdn_rnn_step(model, z, action, h, c).h
    else:
        torch.set_num_threads(1)
        dream = TorchDream(case, case.params(1), n)
        flag = [torch.zeros(n, 1)] if w.predicts_done else []
        x = torch.cat([*map(torch.from_numpy, (z, action)), *flag, torch.from_numpy(h)], dim=1)
        cell = torch.from_numpy(c)

        @torch.inference_mode()
        def run():
            gates = torch.addmm(dream.lstm_bias, x, dream.lstm_weight)
            i, f, g, o = gates.chunk(4, dim=1)
            c_next = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            h_next = torch.sigmoid(o) * torch.tanh(c_next)
            torch.addmm(dream.head_bias, h_next, dream.head_weight)
            return h_next

    assert np.abs(np.asarray(run()) - expected.h).max() < 1e-5
    benchmark(run)


@pytest.mark.parametrize("n", SIZES)
def test_mixture_sample(benchmark, case, n):
    benchmark.group = f"mixture_sample {case.name} N={n}"
    step = ops.mdn_rnn_step(case.weights, *step_inputs(case, n))
    mixture = (step.logmix, step.mu, step.logstd, TEMPERATURE)
    difference = np.abs(ops.mixture_sample(*mixture) - reference.mixture_sample(*mixture))
    assert (difference > 1e-4).mean() < 1e-3
    benchmark(lambda: ops.mixture_sample(*mixture))


@pytest.mark.parametrize("n", SIZES)
def test_controller_forward(benchmark, case, n):
    benchmark.group = f"controller_forward {case.name} N={n}"
    z, _, h, c = step_inputs(case, n)
    params = case.params(1)
    got = ops.controller_forward(case.spec, params, z, h, c)
    assert np.abs(got - reference.controller_forward(case.spec, params, z, h, c)).max() < 1e-5
    benchmark(lambda: ops.controller_forward(case.spec, params, z, h, c))

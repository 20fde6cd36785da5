"""Weights and logs released by the paper's authors, where a copy of them lies beside the project.

They are looked for in the folder that WMF_PUBLISHED names, or in ../shared/data/ha2018.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels_fast import MDNRNN, LinearController, ops, reference
from worldmodels_fast.envs.squash import CAR_RACING_SQUASH

FOLDER = Path(
    os.environ.get("WMF_PUBLISHED", Path(__file__).parents[3] / "shared" / "data" / "ha2018")
)

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the authors' published weights are not in {FOLDER}"
)


def published(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def car_racing_m():
    """Their M for CarRacing: integers of value * 10,000, TensorFlow's layout."""
    output_w, output_b, kernel, bias = (
        np.array(part, np.float64) / 10_000 for part in published("carracing/rnn.json")
    )
    assert (output_w.shape, output_b.shape) == ((256, 480), (480,))
    assert (kernel.shape, bias.shape) == ((291, 1024), (1024,))
    # Their gates come as i, j, f, o (j is g here), and +1 is added to f's bias when it runs.
    i, g, f, o = np.split(np.concatenate([kernel, bias[None]]), 4, axis=1)
    f[-1] += 1.0
    gates = np.concatenate([i, f, g, o], axis=1).T  # (1024, 35 inputs + 256 hidden + bias)

    def array(values):
        return np.ascontiguousarray(values, np.float32)

    return ops.MDNRNNWeights(
        weight_ih=array(gates[:, :35]),
        weight_hh=array(gates[:, 35:291]),
        bias=array(gates[:, 291]),
        head_weight=array(output_w.T),
        head_bias=array(output_b),
        latent_dim=32,
        action_dim=3,
        hidden_dim=256,
        n_mixtures=5,
        predicts_done=False,
    )


def test_their_m_has_the_papers_size(car_racing_m):
    w = car_racing_m
    parts = (w.weight_ih, w.weight_hh, w.bias, w.head_weight, w.head_bias)
    assert sum(part.size for part in parts) == 422_368


def test_one_step_of_their_m(car_racing_m):
    """Every level, and torch, against float64; trained weights reach further than random ones."""
    rng = np.random.default_rng(0)
    mu, logvar = (np.array(part) / 10_000 for part in published("carracing/initial_z.json"))
    z = (mu + np.exp(logvar / 2) * rng.standard_normal((16, 32))).astype(np.float32)
    model = MDNRNN(32, 3, 256).load_weights(car_racing_m)
    state = {name: np.zeros((16, 256)) for name in ("exact h", "exact c")}
    for _ in range(20):
        action = rng.uniform([-1, 0, 0], 1, (16, 3)).astype(np.float32)
        h, c = (np.ascontiguousarray(x, np.float32) for x in state.values())
        exact = reference.mdn_rnn_step(car_racing_m, z, action, h, c)
        results = [
            ops.mdn_rnn_step(ops.pack_mdn_rnn(car_racing_m, backend=backend), z, action, h, c)
            for backend in ops.available_backends()
        ]
        with torch.no_grad():
            tensors = [torch.from_numpy(x) for x in (z, action, h, c)]
            out = model(tensors[0][None], tensors[1][None], (tensors[2], tensors[3]))
        mixture = (part[0].numpy() for part in (out.logmix, out.mu, out.logstd))
        results.append(ops.MDNRNNStep(*mixture, None, out.h.numpy(), out.c.numpy()))
        for step in results:
            for name in ("logmix", "mu", "logstd", "h", "c"):
                expected = getattr(exact, name)
                error = np.abs(getattr(step, name) - expected).max()
                assert error < 2e-5 * max(1.0, np.abs(expected).max()), name
        state = {"exact h": exact.h, "exact c": exact.c}
        z = reference.mixture_sample(exact.logmix, exact.mu, exact.logstd, 1.0, seed=1)
        z = z.astype(np.float32)
    assert np.abs(state["exact h"]).max() > 0.1


def test_their_m_is_sure_of_itself_in_the_right_order_of_gates(car_racing_m):
    """Its mixtures are narrower by far than with the gates astray: 0.75 against 0.88."""
    mu, _ = (np.array(part, np.float32) / 10_000 for part in published("carracing/initial_z.json"))

    def spread(weights):
        z = mu
        h, c = np.zeros((2, 1, 256), np.float32)
        for _ in range(20):
            step = ops.mdn_rnn_step(weights, z, np.array([[0, 0.5, 0]], np.float32), h, c)
            share = np.exp(step.logmix - step.logmix.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            z, h, c = (share * step.mu).sum(-1), step.h, step.c
        return (share * np.exp(step.logstd)).sum(-1).mean()

    def astray(array):
        i, f, g, o = np.split(array, 4)
        return np.concatenate([i, g, f, o])

    names = ("weight_ih", "weight_hh", "bias")
    wrong = replace(car_racing_m, **{n: astray(getattr(car_racing_m, n)) for n in names})
    assert spread(car_racing_m) < 0.8 < spread(wrong)


def test_their_controllers_have_the_papers_sizes():
    car, car_score = published("carracing/controller.best.json")
    doom, doom_score = published("doom/controller.best.json")
    sizes = {"latent_dim": 32, "hidden_dim": 256, "action_dim": 3}
    for_car = LinearController(("z", "h"), **sizes, bias=True, squash=CAR_RACING_SQUASH)
    for_doom = LinearController(("z", "c", "h"), latent_dim=64, hidden_dim=512, action_dim=1)
    assert (len(car), for_car.n_params) == (867, 867)
    assert (len(doom), for_doom.n_params) == (1088, 1088)
    assert (round(car_score, 2), round(doom_score, 1)) == (900.46, 958.5)
    rng = np.random.default_rng(0)
    for controller, params in ((for_car, car), (for_doom, doom)):
        controller.set_flat(np.array(params, np.float32))
        spec = controller.spec
        z = rng.standard_normal((4, spec.latent_dim)).astype(np.float32)
        h, c = rng.uniform(-1, 1, (2, 4, spec.hidden_dim)).astype(np.float32)
        flat = np.array([params], np.float32)
        action = ops.controller_forward(spec, flat, z, h, c)
        np.testing.assert_allclose(
            action, reference.controller_forward(spec, flat, z, h, c), atol=1e-5
        )
        with torch.no_grad():
            torchs = controller(*map(torch.from_numpy, (z, h, c)))
        np.testing.assert_allclose(action, torchs, atol=1e-5)


def test_their_first_latents():
    for name, shape in (("carracing", (1, 32)), ("doom", (1000, 64))):
        mu, logvar = (np.array(part) / 10_000 for part in published(f"{name}/initial_z.json"))
        assert mu.shape == logvar.shape == shape
        assert np.abs(mu).max() < 10
        assert (logvar < 1).all()

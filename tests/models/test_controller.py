import numpy as np
import pytest
import torch

from worldmodels_fast import ops, reference
from worldmodels_fast.envs.squash import CAR_RACING_SQUASH, Squash
from worldmodels_fast.models.controller import LinearController

CAR_RACING = {"features": ("z", "h"), "latent_dim": 32, "hidden_dim": 256, "action_dim": 3}
TAKE_COVER = {"features": ("z", "c", "h"), "latent_dim": 64, "hidden_dim": 512, "action_dim": 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({**CAR_RACING, "bias": True}, 867),
        (TAKE_COVER, 1088),
        ({**CAR_RACING, "features": ("z",), "bias": True, "hidden_units": 40}, 1443),
        ({**CAR_RACING, "features": ("z",), "bias": True}, 99),
    ],
)
def test_parameter_counts_are_the_papers(settings, expected):
    controller = LinearController(**settings)
    assert controller.n_params == expected
    assert sum(p.numel() for p in controller.parameters()) == expected
    assert controller.spec.n_params == expected


@pytest.mark.parametrize("features", [("z",), ("h", "z"), ("z", "c", "h")])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden_units", [0, 5])
@pytest.mark.parametrize("squash", [None, CAR_RACING_SQUASH])
def test_forward_is_what_the_kernel_and_the_reference_compute(features, bias, hidden_units, squash):
    rng = np.random.default_rng(1)
    controller = LinearController(
        features,
        latent_dim=4,
        hidden_dim=6,
        action_dim=3,
        bias=bias,
        hidden_units=hidden_units,
        squash=squash,
    )
    flat = rng.normal(size=controller.n_params).astype(np.float32)
    controller.set_flat(flat)
    z = rng.normal(size=(7, 4)).astype(np.float32)
    h, c = rng.normal(size=(2, 7, 6)).astype(np.float32)
    ours = controller(*map(torch.from_numpy, (z, h, c))).detach().numpy()
    np.testing.assert_allclose(
        ours, reference.controller_forward(controller.spec, flat[None], z, h, c), atol=1e-6
    )
    np.testing.assert_allclose(
        ours, ops.controller_forward(controller.spec, flat[None], z, h, c), atol=2e-6
    )


def test_car_racing_squash_is_the_papers():
    controller = LinearController(**CAR_RACING, bias=True, squash=CAR_RACING_SQUASH)
    y = np.array([0.3, -0.7, -0.2])
    flat = np.zeros(controller.n_params)
    flat[:3] = y  # the bias comes first
    controller.set_flat(flat)
    steer, gas, brake = controller(torch.zeros(1, 32), torch.zeros(1, 256)).detach().numpy()[0]
    a = np.tanh(y)
    np.testing.assert_allclose([steer, gas, brake], [a[0], (a[1] + 1) / 2, 0], atol=1e-6)


def test_it_starts_at_zero_and_keeps_still():
    controller = LinearController(**TAKE_COVER)
    action = controller(torch.randn(3, 64), torch.randn(3, 512), torch.randn(3, 512))
    assert action.shape == (3, 1)
    assert not action.any()


def test_config_makes_the_same_controller_again():
    controller = LinearController(**CAR_RACING, bias=True, squash=CAR_RACING_SQUASH)
    assert LinearController.from_config(controller.config()).spec == controller.spec


def test_gradients_reach_the_flat_vector():
    controller = LinearController(latent_dim=4, hidden_dim=6, action_dim=1)
    controller(torch.ones(2, 4), torch.ones(2, 6), torch.ones(2, 6)).sum().backward()
    assert controller.flat.grad is not None
    assert controller.flat.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ("z", "q")}, "features"),
        ({"features": ("z", "z")}, "features"),
        ({"features": ()}, "features"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"hidden_units": -1}, "hidden_units"),
        ({"squash": Squash.plain(2)}, "scale"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LinearController(**{**TAKE_COVER, **settings})


def test_bad_parameters_and_inputs_are_named():
    controller = LinearController(latent_dim=4, hidden_dim=6, action_dim=1)
    with pytest.raises(ValueError, match=r"params: expected shape \(16,\)"):
        controller.set_flat(np.zeros(15))
    with pytest.raises(ValueError, match="finite"):
        controller.set_flat(np.full(16, np.nan))
    with pytest.raises(ValueError, match="c: this controller uses it"):
        controller(torch.zeros(1, 4), torch.zeros(1, 6))

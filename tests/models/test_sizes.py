import subprocess
import sys

import pytest
from small_worlds import small_world

from worldmodels_fast import VAE, Dream, LinearController, World, ops
from worldmodels_fast.models.sizes import check_sizes
from worldmodels_fast.rollout.players import Players

WORLD = small_world()
LATENTS = WORLD.initial_latents


def controller(latent_dim=4, hidden_dim=8, action_dim=1):
    return LinearController(latent_dim=latent_dim, hidden_dim=hidden_dim, action_dim=action_dim)


def test_modules_weights_and_specifications():
    for vae in (None, WORLD.vae, WORLD.vae.encoder_weights()):
        for mdn_rnn in (WORLD.mdn_rnn, WORLD.mdn_rnn.weights()):
            check_sizes(vae, mdn_rnn)
            for part in (WORLD.controller, WORLD.controller.spec):
                check_sizes(vae, mdn_rnn, part)
            for part in (controller(hidden_dim=9), controller(hidden_dim=9).spec):
                with pytest.raises(ValueError, match="the same hidden_dim, got 8 and 9"):
                    check_sizes(vae, mdn_rnn, part)
    check_sizes(WORLD.vae, None, ops.ControllerSpec(("z",), 4, 99, 3, bias=True))


WRONG = [
    (
        VAE(5),
        controller(),
        "vae, .*controller: expected the same latent_dim, got 5, 4 and 4",
    ),
    (VAE(4), controller(5), "controller: expected the same latent_dim, got .*4 and 5"),
    (VAE(4), controller(4, 9), "mdn_rnn, controller: expected the same hidden_dim, got 8 and 9"),
    (VAE(4), controller(4, 8, 2), "mdn_rnn, controller: expected the same action_dim, got 1 and 2"),
]


@pytest.mark.parametrize(("vae", "part", "message"), WRONG)
def test_all_say_the_same(vae, part, message):
    with pytest.raises(ValueError, match=message):
        World(vae, WORLD.mdn_rnn, part, LATENTS)
    with pytest.raises(ValueError, match=message):
        Players(vae, WORLD.mdn_rnn, part.spec)
    if vae.latent_dim == 4:
        with pytest.raises(ValueError, match=message):
            Dream(WORLD.mdn_rnn, part, LATENTS)


def test_a_controller_of_memory_needs_m():
    with pytest.raises(ValueError, match="the controller sees c and h, M's memory; expected an M"):
        check_sizes(WORLD.vae, None, WORLD.controller)


def test_torch_is_not_needed():
    code = "import worldmodels_fast.models.sizes, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

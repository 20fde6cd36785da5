"""Small random worlds for the tests of what is built on V, M and C."""

import numpy as np
import torch

from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.world.world import World


def small_mdn_rnn(
    predicts_done: bool = True, seed: int = 0, predicts_reward: bool = False
) -> MDNRNN:
    """Z 4, A 1, H 8, K 3; its dreams last from a few to some hundred steps."""
    torch.manual_seed(seed)
    mdn_rnn = MDNRNN(4, 1, 8, 3, predicts_done, predicts_reward)
    if predicts_done:
        with torch.no_grad():
            mdn_rnn.head.weight[0] *= 10.0
            mdn_rnn.head.bias[0] = -1.0
    return mdn_rnn.requires_grad_(False)


def small_world(
    predicts_done: bool = True, seed: int = 0, predicts_reward: bool = False, **config: object
) -> World:
    """A world around `small_mdn_rnn`, with a random controller."""
    rng = np.random.default_rng(seed)
    mdn_rnn = small_mdn_rnn(predicts_done, seed, predicts_reward)
    vae = VAE(4)
    controller = LinearController(latent_dim=4, hidden_dim=8, action_dim=1)
    controller.set_flat(rng.normal(size=controller.n_params).astype(np.float32))
    latents = tuple(rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    return World(vae, mdn_rnn, controller, (latents[0], latents[1] - 2), "a card\n", config)

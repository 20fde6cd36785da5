"""V, M and C are float32 and on the CPU, whatever torch's defaults are."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_episodes import write_made_up_episodes

from worldmodels_fast import MDNRNN, VAE, LinearController, data, load_pretrained
from worldmodels_fast.models.vae import sample_latent
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.training.encode import encode_episodes
from worldmodels_fast.training.mdn_rnn import train_mdn_rnn
from worldmodels_fast.training.vae import train_vae

DEFAULTS = [torch.bfloat16, torch.float16, torch.float64, "meta"]


@contextlib.contextmanager
def torch_default(default):
    if default == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(default)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def same(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert (x.dtype, x.device.type) == (torch.float32, "cpu"), name
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def made():
    torch.manual_seed(0)
    controller = LinearController(latent_dim=4, hidden_dim=8, action_dim=1)
    return VAE(4), MDNRNN(4, 1, 8, 3, True), controller.set_flat(np.arange(20.0))


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_new_modules(default):
    expected = made()
    with torch_default(default):
        modules = made()
        other = MDNRNN(4, 1, 8, 3, True).load_weights(modules[1].weights())
        flat = LinearController(latent_dim=4, hidden_dim=8, action_dim=1).set_flat(
            modules[2].flat.detach()
        )
        mu = modules[0].encode(torch.zeros(2, 64, 64, 3, dtype=torch.uint8, device="cpu"))[0]
        z = sample_latent(mu, mu, torch.Generator("cpu").manual_seed(0))
        action = modules[2](z, *modules[1].initial_state(2))
        out = modules[1](z[None], action[None])
    for ours, theirs in zip(modules, expected, strict=True):
        same(ours, theirs)
    same(other, expected[1])
    same(flat, expected[2])
    for tensor in (mu, z, action, out.logmix, out.h):
        assert (tensor.dtype, tensor.device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_a_bundled_world_plays_the_same(default):
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def play():
        world = load_pretrained("take-cover")
        agent = world.agent(seed=0)
        agent.reset()
        params = world.controller.flat.detach().numpy()[None].copy()
        return agent.act(frame), world.dream(max_steps=5).evaluate(params, 2).lengths

    expected = play()
    with torch_default(default):
        got = play()
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_training_is_the_same(default, tmp_path):
    episodes = tmp_path / "episodes"
    write_made_up_episodes(episodes, [[20, 25], [22, 30]])
    v_config = VAEConfig(latent_dim=3, steps=2, batch=4, device="cpu", precision="fp32")
    m_config = RNNConfig(epochs=1, chunk=10, batch=2, device="cpu", precision="fp32")

    def train(folder):
        folder.mkdir()
        vae = train_vae(episodes, folder / "v.checkpoint", v_config, seed=1)
        encode_episodes(episodes, folder / "latents", vae, precision="fp32", device="cpu")
        config = replace(m_config, hidden_dim=8, n_mixtures=2)
        mdn_rnn = train_mdn_rnn(folder / "latents", folder / "m.checkpoint", config, seed=1)
        return vae, mdn_rnn, data.read_latents(folder / "latents", [0]).mu

    expected = train(tmp_path / "plain")
    with torch_default(default):
        got = train(tmp_path / "default")
    same(got[0], expected[0])
    same(got[1], expected[1])
    np.testing.assert_array_equal(got[2], expected[2])

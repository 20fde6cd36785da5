"""Training on a device: what can be seen without one, and V and M on a GPU beside the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_episodes import made_up_latents, write_made_up_episodes

from worldmodels_fast import VAE, data
from worldmodels_fast.training.checkpoint import load_checkpoint
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.training.devices import choose_device, products_in_bf16
from worldmodels_fast.training.encode import encode_episodes
from worldmodels_fast.training.mdn_rnn import train_mdn_rnn
from worldmodels_fast.training.sequences import DeviceLatents, sequence_chunks
from worldmodels_fast.training.vae import train_vae
from worldmodels_fast.utils.files import read_json_lines

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA device")

V_CONFIG = VAEConfig(latent_dim=4, steps=6, batch=10, checkpoint_every=3, precision="fp32")
M_CONFIG = RNNConfig(
    hidden_dim=8, n_mixtures=2, epochs=3, batch=4, chunk=5, checkpoint_every=4, precision="fp32"
)


def test_devices_are_chosen():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device: expected 'auto', 'cpu' or 'cuda', got 'tpu'"):
        choose_device("tpu")
    assert VAEConfig().device == RNNConfig().device == "auto"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch has a CUDA device")
def test_a_device_that_is_not_there_is_an_error_that_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"device: torch .* cannot use 'cuda', because (this|it)"):
        choose_device("cuda")
    data.write_latents(tmp_path, 0, made_up_latents([30, 30]))
    with pytest.raises(ValueError, match="cannot use 'cuda'"):
        train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", replace(M_CONFIG, device="cuda"), seed=0)


def stores():
    yield torch.device("cpu")
    if torch.cuda.is_available():
        yield torch.device("cuda", 0)


@pytest.mark.parametrize("sample", [False, True])
def test_chunks_of_latents_that_are_on_the_device_are_the_same(sample):
    latents = made_up_latents([20, 33, 17, 9], std=0.5)
    settings = {"seed": (1, 2), "sample": sample}
    expected = list(sequence_chunks(latents, 3, 7, **settings))
    for device in stores():
        tensors = (torch.from_numpy(x).to(device) for x in (latents.mu, latents.logvar))
        whole = DeviceLatents(device, *tensors, torch.from_numpy(latents.actions).to(device))
        for store in (DeviceLatents(device), whole):
            chunks = list(sequence_chunks(latents, 3, 7, **settings, store=store))
            assert len(chunks) == len(expected)
            for got, e in zip(chunks, expected, strict=True):
                for name in ("z", "action", "restart", "next_z", "has_next", "done", "done_known"):
                    ours, theirs = getattr(got, name), getattr(e, name)
                    assert ours.device == device
                    if not (sample and device.type == "cuda" and name in ("z", "next_z")):
                        assert torch.equal(ours.cpu(), theirs), name


def test_on_the_cpu_nothing_is_stored():
    assert DeviceLatents.of(made_up_latents([20]), torch.device("cpu")) is None


@pytest.mark.gpu
@on_gpu
class TestOnAGpu:
    @pytest.fixture
    def episodes(self, tmp_path):
        folder = tmp_path / "episodes"
        write_made_up_episodes(folder, [[20, 30], [25, 10], [30]])
        return folder

    @pytest.fixture
    def latents(self, tmp_path):
        folder = tmp_path / "latents"
        for shard in range(3):
            data.write_latents(folder, shard, made_up_latents([40, 30, 25], seed=shard, std=0.3))
        return folder

    def test_precision_auto_is_bf16_from_sm_80_on(self):
        device = choose_device("cuda")
        expected = torch.cuda.get_device_capability(device) >= (8, 0)
        assert products_in_bf16("auto", device) is expected

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_v_learns_what_it_learns_on_the_cpu(self, episodes, tmp_path, precision):
        config = replace(V_CONFIG, precision=precision)
        rows = {}
        for device in ("cpu", "cuda"):
            checkpoint = tmp_path / f"{device}.checkpoint"
            model = train_vae(episodes, checkpoint, replace(config, device=device), seed=3)
            assert model.mu.weight.device.type == "cpu"
            rows[device] = read_json_lines(checkpoint.with_suffix(".log.jsonl"))
        for ours, theirs in zip(rows["cuda"], rows["cpu"], strict=True):
            for name in ("reconstruction", "held_out_reconstruction"):
                assert ours[name] == pytest.approx(theirs[name], rel=0.02)  # other noise

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_m_learns_what_it_learns_on_the_cpu(self, latents, tmp_path, precision):
        config = replace(M_CONFIG, precision=precision, latent="mu")
        rows = {}
        for device in ("cpu", "cuda"):
            checkpoint = tmp_path / f"{device}.checkpoint"
            train_mdn_rnn(latents, checkpoint, replace(config, device=device), seed=3)
            rows[device] = read_json_lines(checkpoint.with_suffix(".log.jsonl"))
        tolerance = 1e-3 if precision == "fp32" else 0.05
        for ours, theirs in zip(rows["cuda"], rows["cpu"], strict=True):
            for name in ("z_loss", "done_loss", "held_out_z_loss"):
                assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance)

    def test_checkpoints_go_from_one_device_to_the_other(self, latents, episodes, tmp_path):
        for order in (("cuda", "cpu"), ("cpu", "cuda")):
            checkpoint = tmp_path / f"{order[0]}-m.checkpoint"
            for epochs, device in zip((1, 3), order, strict=True):
                config = replace(M_CONFIG, epochs=epochs, device=device)
                train_mdn_rnn(latents, checkpoint, config, seed=3)
            assert load_checkpoint(checkpoint)["epoch"] == 3
            checkpoint = tmp_path / f"{order[0]}-v.checkpoint"
            for steps, device in zip((3, 6), order, strict=True):
                train_vae(
                    episodes, checkpoint, replace(V_CONFIG, steps=steps, device=device), seed=3
                )
            assert load_checkpoint(checkpoint)["step"] == 6

    def test_frames_are_encoded_as_on_the_cpu(self, episodes, tmp_path):
        torch.manual_seed(0)
        model = VAE(4).eval().requires_grad_(False)
        for device in ("cpu", "cuda"):
            encode_episodes(episodes, tmp_path / device, model, precision="fp32", device=device)
        assert model.mu.weight.device.type == "cpu"  # the caller's own stays where it was
        for shard in range(3):
            ours, theirs = (
                data.read_latents(tmp_path / device, [shard]) for device in ("cuda", "cpu")
            )
            for name in ("mu", "logvar"):
                a, b = (getattr(x, name).astype(np.float32) for x in (ours, theirs))
                assert np.abs(a - b).max() < 5e-3
            assert (ours.lengths == theirs.lengths).all()

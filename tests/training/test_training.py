"""Training V and M on made-up data: resuming, data order, losses, logs."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from damage import damaged
from small_episodes import ENV_ID, made_up_episode, made_up_latents, write_made_up_episodes

from worldmodels_fast import MDNRNN, VAE, data
from worldmodels_fast.training import encode, mdn_rnn, vae
from worldmodels_fast.training.checkpoint import load_checkpoint, save_checkpoint
from worldmodels_fast.training.config import RNNConfig, VAEConfig
from worldmodels_fast.training.devices import products_in_bf16
from worldmodels_fast.training.encode import encode_episodes
from worldmodels_fast.training.mdn_rnn import mdn_rnn_loss, train_mdn_rnn
from worldmodels_fast.training.metrics import MetricsLog
from worldmodels_fast.training.schedule import cosine
from worldmodels_fast.training.sequences import sequence_chunks, steps_in_epoch
from worldmodels_fast.training.vae import train_vae
from worldmodels_fast.utils.files import read_json_lines
from worldmodels_fast.utils.tensors import load_tensors, save_tensors


class Killed(Exception):
    pass


def stop_at(last):
    def on_step(step, metrics):
        if step == last:
            raise Killed

    return on_step


def same_weights(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, msg=name)


# --- pieces -----------------------------------------------------------------------------------


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "v.checkpoint"
    save_checkpoint(path, {"step": 1})

    def too_many_files(self):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(type(path), "read_bytes", too_many_files)
    with pytest.raises(OSError, match="Too many open files"):
        load_checkpoint(path)


def test_learning_rates():
    assert cosine(1.0, 0.1, 0, 10) == pytest.approx(1.0)
    assert cosine(1.0, 0.1, 5, 10) == pytest.approx(0.55)
    assert cosine(1.0, 0.1, 10, 10) == pytest.approx(0.1)
    assert cosine(1.0, 0.1, 12, 10) == pytest.approx(0.1)
    assert cosine(0.5, 0.5, 3, 10) == 0.5


def test_precision_is_chosen():
    assert products_in_bf16("bf16") is True
    assert products_in_bf16("fp32") is False
    assert products_in_bf16("auto") in (True, False)
    with pytest.raises(ValueError, match=r"precision: expected .*got 'fp16'"):
        products_in_bf16("fp16")


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.checkpoint"
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"step": 1})

    def dies(state, file):
        file.write(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(Killed):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "x.checkpoint"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    whole = path.read_bytes()
    for half in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(half)
        with pytest.raises(ValueError, match=r"x.checkpoint: not a checkpoint.*delete it"):
            load_checkpoint(path)


def test_half_a_line_of_a_log_is_left_out(tmp_path):
    path = tmp_path / "x.log.jsonl"
    assert read_json_lines(path) == []
    log = MetricsLog(path, 0)
    for step in (5, 10, 15):
        log.write(step, {"loss": step / 2})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 20, "loss": {"a": 1}')
    assert [row["step"] for row in read_json_lines(path)] == [5, 10, 15]
    # A training that goes on from step 10 does 15 again, and its lines begin where lines begin.
    MetricsLog(path, 10).write(15, {"loss": 0.0})
    assert read_json_lines(path) == [
        {"step": 5, "loss": 2.5},
        {"step": 10, "loss": 5.0},
        {"step": 15, "loss": 0.0},
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["x.log.jsonl"]


# --- V ----------------------------------------------------------------------------------------

V_CONFIG = VAEConfig(
    latent_dim=3, steps=7, batch=4, learning_rate=1e-3, final_learning_rate=1e-4, checkpoint_every=2
)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    write_made_up_episodes(folder, [[6, 4], [7], [9], [8]])
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_v_goes_on_as_if_it_had_not_been_killed(episodes, tmp_path, precision):
    config = replace(V_CONFIG, precision=precision)
    whole = train_vae(episodes, tmp_path / "a.checkpoint", config, seed=5)
    assert not whole.training
    path = tmp_path / "b.checkpoint"
    for step in (3, 6):  # after the checkpoints of 2 and 4 (or 6, just written)
        torch.manual_seed(step)
        with pytest.raises(Killed):
            train_vae(episodes, path, config, seed=5, on_step=stop_at(step))
    same_weights(train_vae(episodes, path, config, seed=5), whole)
    logs = [(tmp_path / f"{name}.log.jsonl").read_text(encoding="utf-8") for name in "ab"]
    assert logs[0] == logs[1]
    assert [row["step"] for row in read_json_lines(tmp_path / "a.log.jsonl")] == [2, 4, 6, 7]
    # Once more: nothing is left to do.
    same_weights(train_vae(episodes, path, config, seed=5), whole)
    other = train_vae(episodes, tmp_path / "c.checkpoint", config, seed=6)
    assert not torch.equal(other.mu.weight, whole.mu.weight)


def test_v_learns(tmp_path):
    for shard in range(2):  # frames of one grey each
        episode = made_up_episode(12, shard)
        greys = np.random.default_rng(shard).integers(0, 256, (12, 1, 1, 1), dtype=np.uint8)
        frames = np.broadcast_to(greys, episode.frames.shape).copy()
        data.write_episodes(tmp_path / "episodes", shard, [replace(episode, frames=frames)], ENV_ID)
    config = replace(V_CONFIG, steps=30, checkpoint_every=10)
    seen = []
    train_vae(
        tmp_path / "episodes",
        tmp_path / "v.checkpoint",
        config,
        seed=0,
        on_step=lambda step, metrics: seen.append((step, dict(metrics))),
    )
    assert [step for step, _ in seen] == list(range(1, 31))
    losses = [row["held_out_reconstruction"] for row in read_json_lines(tmp_path / "v.log.jsonl")]
    assert losses[-1] < losses[0]
    assert seen[-1][1]["kl"] >= 1.5  # the floor of three dimensions


def test_vs_loss_has_the_weights_of_its_settings(episodes, tmp_path):
    def trained(name, **settings):
        config = replace(V_CONFIG, steps=1, precision="fp32", **settings)
        return train_vae(episodes, tmp_path / f"{name}.checkpoint", config, seed=0)

    torch.manual_seed(0)
    untrained = VAE(V_CONFIG.latent_dim)
    blind = trained("blind", reconstruction_weight=0.0, focus=5.0)
    for ours, fresh in zip(blind.decoder.parameters(), untrained.decoder.parameters(), strict=True):
        assert torch.equal(ours, fresh)  # nothing was asked of it
    plain, focused = trained("plain"), trained("focused", focus=1e4)
    assert not torch.equal(plain.decoder[-2].weight, focused.decoder[-2].weight)
    log = read_json_lines(tmp_path / "focused.log.jsonl")
    same = read_json_lines(tmp_path / "plain.log.jsonl")
    assert (
        log[0]["reconstruction"] == same[0]["reconstruction"]
    )  # what is reported stays the paper's


def test_v_never_trains_on_held_out_frames(episodes, tmp_path, monkeypatch):
    frame_batches = data.frame_batches
    trained_on = []

    def spy(folder, shards, *args, **kwargs):
        trained_on.extend(shards)
        return frame_batches(folder, shards, *args, **kwargs)

    monkeypatch.setattr(data, "frame_batches", spy)
    train_vae(episodes, tmp_path / "v.checkpoint", V_CONFIG, seed=5)
    assert trained_on == [0, 1, 2]


def test_v_without_frames(tmp_path, episodes):
    with pytest.raises(ValueError, match=r"no episodes; run the stage `collect` first"):
        train_vae(tmp_path / "nowhere", tmp_path / "v.checkpoint", V_CONFIG, seed=0)
    config = replace(V_CONFIG, batch=1000)
    with pytest.raises(ValueError, match="too few frames for one batch of 1000"):
        train_vae(episodes, tmp_path / "v.checkpoint", config, seed=0)


def test_a_checkpoint_of_another_v_is_named(episodes, tmp_path):
    path = tmp_path / "v.checkpoint"
    train_vae(episodes, path, replace(V_CONFIG, steps=1), seed=0)
    with pytest.raises(ValueError, match=r"v.checkpoint: made by a training with other sizes"):
        train_vae(episodes, path, replace(V_CONFIG, latent_dim=4), seed=0)


def test_a_loss_that_is_not_finite_ends_vs_training(episodes, tmp_path, monkeypatch):
    def loss(*args):
        return torch.tensor(float("nan"), requires_grad=True), torch.tensor(0.0)

    monkeypatch.setattr(vae, "vae_loss", loss)
    with pytest.raises(FloatingPointError, match=r"V's loss is not finite at step 2 .*fp32"):
        train_vae(episodes, tmp_path / "v.checkpoint", V_CONFIG, seed=0)
    assert not (tmp_path / "v.checkpoint").exists()


# --- encode -----------------------------------------------------------------------------------


def test_encoding(episodes, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = VAE(3)
    monkeypatch.setattr(encode, "ENCODE_BATCH", 5)  # episodes are looked at in pieces
    frames = []
    encode_episodes(episodes, tmp_path, model, precision="fp32", on_shard=frames.append)
    assert frames == [10, 7, 9, 8]
    latents = data.read_latents(tmp_path, [0, 1])
    assert latents.lengths.tolist() == [6, 4, 7]
    assert latents.terminated.tolist() == [True] * 3
    assert latents.mu.dtype == latents.logvar.dtype == np.float16
    expected = [e for shard in (0, 1) for e in data.read_episodes(episodes, shard)]
    with torch.no_grad():
        mu, logvar = model.encode(torch.from_numpy(np.concatenate([e.frames for e in expected])))
    np.testing.assert_allclose(latents.mu, mu, atol=1e-3)
    np.testing.assert_allclose(latents.logvar, logvar, atol=1e-3)
    np.testing.assert_array_equal(latents.actions, np.concatenate([e.actions for e in expected]))
    with pytest.raises(ValueError, match="no episodes; run the stage `collect` first"):
        encode_episodes(tmp_path / "nowhere", tmp_path, model)
    # Only what is missing is done again.
    (tmp_path / "shard-00002.safetensors").unlink()
    frames.clear()
    encode_episodes(episodes, tmp_path, model, precision="fp32", on_shard=frames.append)
    assert frames == [9]


# --- M's data ---------------------------------------------------------------------------------


def test_chunks_are_shuffled_episodes_end_to_end():
    latents = made_up_latents([5, 9, 4, 12, 7, 6])  # 43 steps: 3 rows of 14, 4 chunks of 3
    chunks = list(sequence_chunks(latents, 3, 3, seed=(0, 0), sample=False))
    assert len(chunks) == 4
    whole = {
        name: torch.cat([getattr(chunk, name) for chunk in chunks])
        for name in ("z", "action", "restart", "next_z", "has_next", "done", "done_known")
    }
    assert whole["z"].shape == (12, 3, 3)
    assert whole["restart"].shape == (12, 3)
    # Rows go on over chunks, and row b + 1 begins where row b ends.
    line = {name: values.transpose(0, 1).flatten(0, 1) for name, values in whole.items()}
    episode = line["z"][:, 0].int().tolist()
    step = line["z"][:, 1].int().tolist()
    order = list(dict.fromkeys(episode))
    assert order != sorted(order)
    for t in range(36):
        e, s = episode[t], step[t]
        length, terminated = int(latents.lengths[e]), bool(latents.terminated[e])
        at = int(latents.starts[e]) + s
        np.testing.assert_array_equal(line["z"][t], latents.mu[at].astype(np.float32))
        np.testing.assert_array_equal(line["action"][t], latents.actions[at])
        last = s == length - 1
        assert line["restart"][t] == (s == 0)
        assert line["has_next"][t] == (not last)
        assert line["done"][t] == (last and terminated)
        assert line["done_known"][t] == (not last or terminated)
        if not last:
            following = latents.mu[at + 1].astype(np.float32)
            np.testing.assert_array_equal(line["next_z"][t], following)
            if t + 1 < 36:
                assert (episode[t + 1], step[t + 1]) == (e, s + 1)
        elif t + 1 < 36:
            assert step[t + 1] == 0


def test_epochs_are_dealt_anew_and_latents_drawn_anew():
    latents = made_up_latents([5, 9, 4, 12, 7, 6], std=0.5)

    def epoch(*seed, sample=True):
        chunks = sequence_chunks(latents, 3, 3, seed=seed, sample=sample)
        return torch.cat([chunk.z for chunk in chunks])

    torch.testing.assert_close(epoch(1, 0), epoch(1, 0))
    assert not torch.equal(epoch(1, 0), epoch(1, 1))
    assert not torch.equal(epoch(1, 0), epoch(2, 0))
    noise = epoch(1, 0) - epoch(1, 0, sample=False)
    assert noise.std().item() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(("lengths", "batch", "chunk"), [([43], 3, 3), ([10, 10], 4, 100)])
def test_the_number_of_chunks_is_known_beforehand(lengths, batch, chunk):
    latents = made_up_latents(lengths)
    config = RNNConfig(batch=batch, chunk=chunk)
    chunks = list(sequence_chunks(latents, batch, chunk, seed=(0,), sample=False))
    assert len(chunks) == steps_in_epoch(latents, config)


def test_more_sequences_than_steps():
    with pytest.raises(ValueError, match="batch: 20 sequences are more than the 12 steps"):
        next(sequence_chunks(made_up_latents([12]), 20, 5, seed=(0,), sample=False))


# --- M ----------------------------------------------------------------------------------------

M_CONFIG = RNNConfig(
    hidden_dim=6, n_mixtures=2, epochs=3, batch=3, chunk=5, learning_rate=1e-2, checkpoint_every=2
)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    for shard in range(3):
        lengths = [11 + shard, 8, 9, 12 - shard]
        data.write_latents(folder, shard, made_up_latents(lengths, seed=shard, std=0.3))
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_m_goes_on_as_if_it_had_not_been_killed(latents, tmp_path, precision):
    config = replace(M_CONFIG, precision=precision)
    steps = 3 * steps_in_epoch(data.read_latents(latents, [0, 1]), config)
    seen = []
    whole = train_mdn_rnn(
        latents, tmp_path / "a.checkpoint", config, seed=5, on_step=lambda s, m: seen.append(s)
    )
    assert seen == list(range(1, steps + 1))
    path = tmp_path / "b.checkpoint"
    for step in (1, 3, 6, 7, 12):  # before the first checkpoint, inside of epochs and at their ends
        torch.manual_seed(step)
        with pytest.raises(Killed):
            train_mdn_rnn(latents, path, config, seed=5, on_step=stop_at(step))
    same_weights(train_mdn_rnn(latents, path, config, seed=5), whole)
    logs = [read_json_lines(tmp_path / f"{name}.log.jsonl") for name in "ab"]
    assert [row["epoch"] for row in logs[0]] == [1, 2, 3]
    for name in ("step", "epoch", "held_out_z_loss", "held_out_done_loss"):
        assert [row[name] for row in logs[0]] == [row[name] for row in logs[1]]
    same_weights(train_mdn_rnn(latents, path, config, seed=5), whole)  # nothing is left to do


def test_m_learns_a_known_mixture(tmp_path):
    """z' is -1 or 1 (one in four) with a width of 0.1, whatever came before."""
    rng = np.random.default_rng(0)
    n = 12_000
    mu = (np.where(rng.random((n, 1)) < 0.25, 1.0, -1.0) + 0.1 * rng.normal(size=(n, 1))).astype(
        np.float16
    )
    episodes = data.Latents(
        mu=mu,
        logvar=np.full((n, 1), -30, np.float16),
        actions=np.zeros((n, 1), np.float32),
        lengths=np.full(n // 100, 100),
        terminated=np.ones(n // 100, np.bool_),
    )
    data.write_latents(tmp_path, 0, episodes)
    config = RNNConfig(
        hidden_dim=4,
        n_mixtures=2,
        epochs=12,
        batch=20,
        chunk=20,
        learning_rate=3e-2,
        final_learning_rate=1e-4,
        latent="mu",
        done_weight=1.0,
        precision="fp32",
    )
    model = train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", config, seed=0)
    z = torch.from_numpy(mu[:300].astype(np.float32))[:, None]
    with torch.no_grad():
        out = model(z, torch.zeros(300, 1, 1))
    weights, means, stds = (
        getattr(out, name)[100:, 0, 0].mean(0) for name in ("logmix", "mu", "logstd")
    )
    weights = torch.softmax(weights, 0)
    first = int(means.argmin())
    assert means[first].item() == pytest.approx(-1, abs=0.05)
    assert means[1 - first].item() == pytest.approx(1, abs=0.05)
    assert weights[first].item() == pytest.approx(0.75, abs=0.05)
    assert stds.exp().tolist() == pytest.approx([0.1, 0.1], abs=0.03)
    # The entropy of that mixture, and of an end in a hundred steps.
    entropy = np.log(0.1 * np.sqrt(2 * np.pi * np.e)) - 0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    row = read_json_lines(tmp_path / "m.log.jsonl")[-1]
    assert row["held_out_z_loss"] == pytest.approx(entropy, abs=0.05)


def test_the_loss_is_averaged_over_what_is_known():
    torch.manual_seed(0)
    latents = made_up_latents([7, 5, 6, 8])
    model = MDNRNN(3, 1, 4, n_mixtures=2, predicts_done=True)
    (chunk,) = sequence_chunks(latents, 2, 12, seed=(3,), sample=False)
    (z_loss, done_loss, _), (h, c) = mdn_rnn_loss(model, chunk, None, RNNConfig(done_weight=10.0))
    out = model(chunk.z, chunk.action, None, chunk.restart)
    nll, cross_entropy = [], []
    for t in range(12):
        for b in range(2):
            if chunk.has_next[t, b]:
                for d in range(3):
                    weights = torch.log_softmax(out.logmix[t, b, d], 0)
                    normal = torch.distributions.Normal(out.mu[t, b, d], out.logstd[t, b, d].exp())
                    log_p = torch.logsumexp(weights + normal.log_prob(chunk.next_z[t, b, d]), 0)
                    nll.append(-log_p.item())
            if chunk.done_known[t, b]:
                p = torch.sigmoid(out.done_logit[t, b])
                known = 10 * torch.log(p) if chunk.done[t, b] else torch.log(1 - p)
                cross_entropy.append(-known.item())
    assert 0 < chunk.done.sum() < (1 - chunk.has_next).sum()  # some ends were time limits
    assert z_loss.item() == pytest.approx(np.mean(nll), rel=1e-4)
    assert done_loss.item() == pytest.approx(np.mean(cross_entropy), rel=1e-4)
    assert not h.requires_grad
    assert not c.requires_grad


def test_m_without_ends(latents, tmp_path):
    config = replace(M_CONFIG, predicts_done=False, epochs=1)
    model = train_mdn_rnn(latents, tmp_path / "m.checkpoint", config, seed=0)
    assert model.predicts_done is False
    assert read_json_lines(tmp_path / "m.log.jsonl")[-1]["done_loss"] == 0


def test_m_never_trains_on_held_out_episodes(latents, tmp_path, monkeypatch):
    sums = []
    chunks_of = sequence_chunks

    def spy(latents, *args, **kwargs):
        sums.append(int(latents.lengths.sum()))
        return chunks_of(latents, *args, **kwargs)

    monkeypatch.setattr(mdn_rnn, "sequence_chunks", spy)
    config = replace(M_CONFIG, epochs=1)
    train_mdn_rnn(latents, tmp_path / "m.checkpoint", config, seed=0)
    held_out = int(data.read_latents(latents, [2]).lengths.sum())
    assert sums == [int(data.read_latents(latents, [0, 1]).lengths.sum()), held_out]


def test_m_without_latents(latents, tmp_path):
    with pytest.raises(ValueError, match=r"no latents; run the stage `encode` first"):
        train_mdn_rnn(tmp_path / "nowhere", tmp_path / "m.checkpoint", M_CONFIG, seed=0)
    config = replace(M_CONFIG, batch=1000)
    with pytest.raises(ValueError, match="batch: 1000 sequences"):
        train_mdn_rnn(latents, tmp_path / "m.checkpoint", config, seed=0)


def test_a_loss_that_is_not_finite_ends_ms_training(tmp_path):
    data.write_latents(tmp_path, 0, made_up_latents([30, 30]))
    config = replace(M_CONFIG, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"M's loss is not finite at step \d"):
        train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", config, seed=0)


def test_a_shard_with_nan_is_named_before_m_is_trained(tmp_path):
    for shard in range(3):
        data.write_latents(tmp_path, shard, made_up_latents([30, 30]))
    path = data.shard_path(tmp_path, 1, ".safetensors")
    arrays = load_tensors(path, "")
    arrays["mu"][17] = np.nan
    save_tensors(path, arrays)
    with pytest.raises(ValueError, match=r"shard-00001.safetensors: .* mu: .*NaN.*`encode` again"):
        train_mdn_rnn(tmp_path, tmp_path / "m.checkpoint", M_CONFIG, seed=0)


@pytest.mark.parametrize("kind", ["v", "m"])
def test_every_damaged_checkpoint_is_named(kind, episodes, latents, tmp_path):
    path = tmp_path / f"{kind}.checkpoint"

    def train():
        if kind == "v":
            train_vae(episodes, path, V_CONFIG, seed=0)
        else:
            train_mdn_rnn(latents, path, M_CONFIG, seed=0)

    train()
    for _ in damaged(path):
        with pytest.raises(ValueError, match=rf"{kind}.checkpoint: not a checkpoint.*delete it"):
            train()
    whole = load_checkpoint(path)
    for key in whole:
        for value in ([1], None, {}):
            save_checkpoint(path, {**whole, key: value})
            if (key, value) == ("hidden", None):  # as at the end of an epoch
                continue
            with pytest.raises(ValueError, match=rf"{kind}.checkpoint: .*delete it"):
                train()
    save_checkpoint(path, whole)
    log = path.with_suffix(".log.jsonl")
    log.write_text('{"step": 0}\n[1]\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"log.jsonl, line 2: expected a JSON object.*delete"):
        train()
    log.write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"log.jsonl, line 1: expected step.*delete it"):
        train()


def test_logs_are_json(tmp_path, latents):
    train_mdn_rnn(latents, tmp_path / "m.checkpoint", M_CONFIG, seed=0)
    for line in (tmp_path / "m.log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert {"step", "epoch", "z_loss", "done_loss", "held_out_z_loss"} <= row.keys()

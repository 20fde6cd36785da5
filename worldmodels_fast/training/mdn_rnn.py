"""Training of M: the stage `train-rnn`.

A killed training resumes from its last checkpoint with the same weights, optimiser state,
randomness and data order, so it ends as if it had not been killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodels_fast import data
from worldmodels_fast.models.mdn_rnn import MDNRNN, mixture_nll
from worldmodels_fast.training.checkpoint import ADVICE, restore, save_checkpoint
from worldmodels_fast.training.config import RNNConfig
from worldmodels_fast.training.devices import choose_device, products_in_bf16
from worldmodels_fast.training.metrics import Metrics, MetricsLog, OnStep, check_finite
from worldmodels_fast.training.schedule import cosine
from worldmodels_fast.training.sequences import (
    DeviceLatents,
    Sequences,
    sequence_chunks,
    steps_in_epoch,
)
from worldmodels_fast.utils.files import reading


class RNNLosses(NamedTuple):
    """M's losses on a chunk.

    Attributes:
        z: negative log-likelihood in nats, averaged over batch, time and dimension.
        done: cross-entropy with the ends weighted, averaged over steps; 0 where M predicts no end.
        reward: squared error of the reward, averaged over steps; 0 where M predicts none.
    """

    z: Tensor
    done: Tensor
    reward: Tensor


def mdn_rnn_loss(
    model: MDNRNN, chunk: Sequences, state: tuple[Tensor, Tensor] | None, config: RNNConfig
) -> tuple[RNNLosses, tuple[Tensor, Tensor]]:
    """Return the losses and the state after the chunk.

    Raises:
        ValueError: M predicts rewards, and the chunk has none.
    """
    output = model(chunk.z, chunk.action, state, chunk.restart)
    nll = mixture_nll(output, chunk.next_z).mean(-1)
    z_loss = (nll * chunk.has_next).sum() / chunk.has_next.sum().clamp_min(1)
    done_loss = reward_loss = z_loss.new_zeros(())
    if output.done_logit is not None:
        each = F.binary_cross_entropy_with_logits(
            output.done_logit,
            chunk.done,
            pos_weight=chunk.done.new_full((), config.done_weight),
            weight=chunk.done_known,
            reduction="sum",
        )
        done_loss = each / chunk.done_known.sum().clamp_min(1)
    if output.reward is not None:
        if chunk.reward is None:
            raise ValueError("chunk: M predicts rewards, and these sequences have none")
        # Rewards are sparse (a new tile of CarRacing's track), and a return is the sum of their
        # means: only a squared error is least at the mean.
        reward_loss = F.mse_loss(output.reward, limited(chunk.reward, config))
    losses = RNNLosses(z_loss, done_loss, reward_loss)
    return losses, (output.h.detach(), output.c.detach())


def limited(reward: Tensor, config: RNNConfig) -> Tensor:
    """Return rewards as M learns them; see `RNNConfig.reward_limit`."""
    if config.reward_limit is None:
        return reward
    return reward.clamp(-config.reward_limit, config.reward_limit)


def train_mdn_rnn(
    latents: Path,
    checkpoint: Path,
    config: RNNConfig,
    *,
    seed: int,
    start: MDNRNN | None = None,
    on_step: OnStep = lambda step, metrics: None,
) -> MDNRNN:
    """Train M on the latents, resume from `checkpoint` if it is there, and return M.

    Reports (z loss in nats per dimension, done loss, and reward loss where M predicts rewards, on
    training and held-out sequences) are passed to `on_step` and appended to the log, `*.log.jsonl`
    beside the checkpoint.

    Args:
        latents: folder of latent shards.
        checkpoint: file of the training's state, written every `config.checkpoint_every` steps.
        config: see `RNNConfig`.
        seed: the run's seed.
        start: an M of the same sizes whose weights the training starts from; None for random
            ones. If it predicts no reward and this M does, the reward's weights start at 0.
        on_step: called after every step with the metrics known so far.

    Raises:
        ValueError: a setting out of range, no latents, fewer steps than sequences in a batch, a
            store without the rewards that M is to predict, or a damaged shard or checkpoint.
        FloatingPointError: the loss is not finite.
    """
    config.check()
    shards = data.finished_shards(latents, ".safetensors")
    if not shards:
        raise ValueError(f"{latents}: no latents; run the stage `encode` first")
    training_shards, held_out_shards = data.split_held_out(shards)
    training = data.read_latents(latents, training_shards)
    held_out = data.read_latents(latents, held_out_shards)
    if config.predicts_reward and (training.rewards is None or held_out.rewards is None):
        raise ValueError(
            f"{latents}: there are no rewards in here, which rnn.predicts_reward needs: an earlier "
            "version encoded these episodes; delete stages/encode.json and latents in the run's "
            "folder, and run the stage `encode` again"
        )
    seed = seed + config.seed_offset
    torch.manual_seed(seed)
    model = MDNRNN(
        training.mu.shape[1],
        training.actions.shape[1],
        config.hidden_dim,
        config.n_mixtures,
        config.predicts_done,
        config.predicts_reward,
    )
    if start is not None:
        go_on_from(model, start)
    device = choose_device(config.device)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    step = epoch = chunks_done = 0
    hidden: tuple[Tensor, Tensor] | None = None
    saved = restore(checkpoint, model, optimizer)
    if saved is not None:
        with reading(checkpoint, ADVICE):
            step, epoch, chunks_done = (int(saved[k]) for k in ("step", "epoch", "chunks_done"))
            if saved["hidden"] is not None:
                h, c = saved["hidden"]
                hidden = h.to(device), c.to(device)
    log = MetricsLog(checkpoint.with_suffix(".log.jsonl"), step)
    bf16 = products_in_bf16(config.precision, device)
    store = DeviceLatents.of(training, device)
    steps = config.epochs * steps_in_epoch(training, config)
    sample = config.latent == "sample"
    metrics: Metrics = {}
    recent: list[dict[str, float]] = []

    def save() -> None:
        save_checkpoint(
            checkpoint,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "epoch": epoch,
                "chunks_done": chunks_done,
                "hidden": hidden,
            },
        )

    while epoch < config.epochs:
        chunks = sequence_chunks(
            training, config.batch, config.chunk, seed=(seed, epoch), sample=sample, store=store
        )
        for position, chunk in enumerate(chunks):
            if position < chunks_done:
                continue
            for group in optimizer.param_groups:
                group["lr"] = cosine(config.learning_rate, config.final_learning_rate, step, steps)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                losses, hidden = mdn_rnn_loss(model, chunk, hidden, config)
            optimizer.zero_grad()
            loss = losses.z + losses.done
            if config.predicts_reward:
                loss = loss + config.reward_weight * losses.reward
            torch.autograd.backward(loss)
            nn.utils.clip_grad_value_(model.parameters(), config.gradient_clip)
            optimizer.step()
            step += 1
            chunks_done += 1
            recent = [*recent, _reported(losses, config)][-20:]
            metrics |= _means(recent)
            check_finite("M", step, metrics)
            if step % config.checkpoint_every == 0:
                save()
            on_step(step, metrics)
        epoch += 1
        chunks_done = 0
        hidden = None
        metrics |= held_out_rnn_loss(model, held_out, config)
        log.write(step, metrics | {"epoch": float(epoch)})
        save()
    return model.cpu().eval()


def _reported(losses: RNNLosses, config: RNNConfig) -> Metrics:
    metrics = {"z_loss": losses.z.item(), "done_loss": losses.done.item()}
    return metrics | ({"reward_loss": losses.reward.item()} if config.predicts_reward else {})


def _means(rows: Sequence[Metrics]) -> Metrics:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@torch.no_grad()
def go_on_from(model: MDNRNN, start: MDNRNN) -> None:
    """Copy the weights of another M of the same sizes into this one.

    If only this M predicts rewards, it predicts 0 at first, and all else as the other does.

    Raises:
        ValueError: the sizes differ, or only the other M predicts rewards.
    """
    if start.predicts_reward or not model.predicts_reward:
        model.load_weights(start.weights())
        return
    without = MDNRNN(
        model.latent_dim,
        model.action_dim,
        model.hidden_dim,
        model.n_mixtures,
        model.predicts_done,
    ).load_weights(start.weights())
    row = int(model.predicts_done)  # the head's rows: done, reward, mixtures
    for name, parameter in model.named_parameters():
        other = without.get_parameter(name).to(parameter)
        if name.startswith("head."):
            parameter[:row] = other[:row]
            parameter[row] = 0
            parameter[row + 1 :] = other[row:]
        else:
            parameter.copy_(other)


@torch.no_grad()
def held_out_rnn_loss(model: MDNRNN, latents: data.Latents, config: RNNConfig) -> Metrics:
    """Return M's losses on episodes that it was not trained on."""
    batch = min(config.batch, len(latents.lengths))
    seen: list[Metrics] = []
    state = None
    sample = config.latent == "sample"
    store = DeviceLatents.of(latents, model.bias.device)
    for chunk in sequence_chunks(
        latents, batch, config.chunk, seed=(0,), sample=sample, store=store
    ):
        losses, state = mdn_rnn_loss(model, chunk, state, config)
        seen.append(_reported(losses, config))
    return {f"held_out_{name}": value for name, value in _means(seen).items()}


def reward_variance(latents: data.Latents, config: RNNConfig) -> float:
    """Return the squared error that the mean of all rewards would have, as M learns them.

    Raises:
        ValueError: there are no rewards.
    """
    if latents.rewards is None:
        raise ValueError("latents: there are no rewards in here; encode the episodes again")
    return float(limited(torch.from_numpy(latents.rewards).double(), config).var(correction=0))

"""Training of V: the stage `train-vae`.

A killed training resumes from its last checkpoint with the same weights, optimiser state,
randomness and data order, so it ends as if it had not been killed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from worldmodels_fast import data
from worldmodels_fast.models.vae import VAE, as_images, fourth_power_error, sample_latent, vae_loss
from worldmodels_fast.training.checkpoint import ADVICE, restore, save_checkpoint
from worldmodels_fast.training.config import VAEConfig
from worldmodels_fast.training.devices import choose_device, move, products_in_bf16
from worldmodels_fast.training.metrics import Metrics, MetricsLog, OnStep, check_finite
from worldmodels_fast.training.schedule import cosine
from worldmodels_fast.types import Frames
from worldmodels_fast.utils.files import reading


def train_vae(
    episodes: Path,
    checkpoint: Path,
    config: VAEConfig,
    *,
    seed: int,
    on_step: OnStep = lambda step, metrics: None,
) -> VAE:
    """Train V on the frames in `episodes`, resume from `checkpoint` if it is there, and return V.

    Reports (reconstruction and KL of a frame, averaged since the last report, and on held-out
    frames) are passed to `on_step` and appended to the log, `*.log.jsonl` beside the checkpoint.

    Args:
        episodes: folder of episode shards.
        checkpoint: file of the training's state, written every `config.checkpoint_every` steps.
        config: see `VAEConfig`.
        seed: the run's seed.
        on_step: called after every step with the metrics known so far.

    Raises:
        ValueError: a setting out of range, no episodes, too few for one batch, or a damaged shard
            or checkpoint.
        FloatingPointError: the loss is not finite.
    """
    config.check()
    training, held_out = data.split_held_out(data.finished_shards(episodes))
    if not training:
        raise ValueError(f"{episodes}: no episodes; run the stage `collect` first")
    seed = seed + config.seed_offset
    torch.manual_seed(seed)
    device = choose_device(config.device)
    model = VAE(config.latent_dim).to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    step = 0
    state = restore(checkpoint, model, optimizer)
    if state is not None:
        with reading(checkpoint, ADVICE):
            torch.set_rng_state(state["rng"])
            if device.type == "cuda" and "device_rng" in state:
                torch.cuda.set_rng_state(state["device_rng"], device)
            step = int(state["step"])
    log = MetricsLog(checkpoint.with_suffix(".log.jsonl"), step)
    bf16 = products_in_bf16(config.precision, device)
    held_out_frames = data.read_frames(episodes, held_out[0])[::7][:500].copy()
    batches = data.frame_batches(episodes, training, config.batch, seed=seed, first_step=step)
    # Reconstruction and KL since the last report; they stay on the device until the next one.
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    since = 0
    metrics: Metrics = {}
    with contextlib.closing(batches):
        while step < config.steps:
            images = as_images(move(torch.from_numpy(next(batches)), device))
            for group in optimizer.param_groups:
                group["lr"] = cosine(
                    config.learning_rate, config.final_learning_rate, step, config.steps
                )
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                decoded, mu, logvar = model(images)
            reconstruction, kl = vae_loss(images, decoded, mu, logvar, config.kl_tolerance)
            error = reconstruction
            if config.focus:
                error = error + config.focus * fourth_power_error(images, decoded)
            optimizer.zero_grad()
            torch.autograd.backward(config.reconstruction_weight * error + kl)
            optimizer.step()
            step += 1
            since += 1
            sums += torch.stack([reconstruction.detach(), kl.detach()])
            at_checkpoint = step % config.checkpoint_every == 0 or step == config.steps
            if since == 50 or at_checkpoint:
                totals = zip(("reconstruction", "kl"), sums.tolist(), strict=True)
                metrics |= {name: total / since for name, total in totals}
                check_finite("V", step, metrics)
                sums.zero_()
                since = 0
            if at_checkpoint:
                metrics |= _held_out_vae_loss(model, held_out_frames, config)
                log.write(step, metrics)
                rng = {"rng": torch.get_rng_state()}
                if device.type == "cuda":
                    rng["device_rng"] = torch.cuda.get_rng_state(device)
                save_checkpoint(
                    checkpoint,
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        **rng,
                        "step": step,
                    },
                )
            on_step(step, metrics)
    return model.cpu().eval()


@torch.no_grad()
def _held_out_vae_loss(model: VAE, frames: Frames, config: VAEConfig) -> Metrics:
    device = model.mu.weight.device
    images = as_images(move(torch.from_numpy(frames), device))
    # A generator of its own: held-out frames must not change the training.
    mu, logvar = model.encode(images)
    z = sample_latent(mu, logvar, torch.Generator(device).manual_seed(0))
    reconstruction, kl = vae_loss(images, model.decode(z), mu, logvar, config.kl_tolerance)
    return {"held_out_reconstruction": reconstruction.item(), "held_out_kl": kl.item()}

"""Stages `collect`, `train-vae`, `encode` and `train-rnn`: from the game to V and M."""

from __future__ import annotations

import time
from typing import Any

from worldmodels_fast import data
from worldmodels_fast.collection import collect
from worldmodels_fast.progress import StageProgress
from worldmodels_fast.stages.run import Run, save_weights
from worldmodels_fast.training import (
    calibrate_done,
    encode_episodes,
    load_checkpoint,
    steps_in_epoch,
    train_mdn_rnn,
    train_vae,
)


def stage_collect(run: Run) -> dict[str, Any]:
    """Play episodes of the real game under policies that look at nothing."""
    config = run.config.collect
    done = len(data.finished_shards(run.episodes)) * config.shard_episodes
    seen_now = kept_now = 0
    episodes = min(done, config.episodes)
    began = time.monotonic()
    with StageProgress("collect", config.episodes, "episodes", episodes) as progress:

        def on_shard(n: int, seen: int, kept: int) -> None:
            nonlocal episodes, seen_now, kept_now
            episodes, seen_now, kept_now = episodes + n, seen_now + seen, kept_now + kept
            rate = seen_now / (time.monotonic() - began)
            progress.update(episodes, f"{kept_now:,} frames kept, {rate:,.0f} frames/s")

        collect(
            run.episodes,
            run.config.environment,
            config,
            seed=run.config.seed,
            env_kwargs=run.config.env_kwargs,
            on_shard=on_shard,
        )
    seconds = time.monotonic() - began
    frames = sum(data.shard_steps(run.episodes, s) for s in data.finished_shards(run.episodes))
    return {
        "frames_kept": frames,
        "frames_seen": seen_now,  # these two of this run of the stage, were it killed in between
        "frames_per_second": seen_now / seconds,
    }


def stage_train_vae(run: Run) -> dict[str, Any]:
    """Train V on the frames."""
    checkpoint = run.folder / "vae.checkpoint"
    before = load_checkpoint(checkpoint)
    done = before["step"] if before else 0
    last: dict[str, float] = {}
    with StageProgress("train-vae", run.config.vae.steps, "batches", done) as progress:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            progress.update(step, metrics)

        model = train_vae(
            run.episodes, checkpoint, run.config.vae, seed=run.config.seed, on_step=on_step
        )
    save_weights(model, run.folder / "vae.safetensors")
    return last


def stage_encode(run: Run) -> dict[str, Any]:
    """Write V's view of every frame."""
    model = run.load_vae()
    shards = len(data.finished_shards(run.episodes))
    done = len(data.finished_shards(run.latents, ".safetensors"))
    frames = 0
    with StageProgress("encode", shards, "shards", done) as progress:

        def on_shard(n: int) -> None:
            nonlocal frames, done
            frames, done = frames + n, done + 1
            progress.update(done, f"{frames:,} frames")

        encode_episodes(
            run.episodes,
            run.latents,
            model,
            precision=run.config.vae.precision,
            device=run.config.vae.device,
            on_shard=on_shard,
        )
    return {"frames": frames}


def stage_train_rnn(run: Run) -> dict[str, Any]:
    """Train M on the latents."""
    checkpoint = run.folder / "mdn_rnn.checkpoint"
    before = load_checkpoint(checkpoint)
    done = before["step"] if before else 0
    config = run.config.rnn
    training, _ = data.split_held_out(data.finished_shards(run.latents, ".safetensors"))
    total = config.epochs * steps_in_epoch(data.read_latents(run.latents, training), config)
    last: dict[str, float] = {}
    with StageProgress("train-rnn", total, "batches", done) as progress:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            progress.update(step, metrics)

        model = train_mdn_rnn(
            run.latents, checkpoint, config, seed=run.config.seed, on_step=on_step
        )
    save_weights(model, run.folder / "mdn_rnn.safetensors")
    figures: dict[str, Any] = {**last}
    if config.predicts_done:
        try:
            figures["death"] = calibrate_done(model, run.latents, config)._asdict()
        except ValueError as error:  # which matters only to who wants a calibrated death
            figures["death"] = {"none": str(error)}
    return figures

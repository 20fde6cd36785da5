"""Stages `collect`, `train-vae`, `encode` and `train-rnn`: from the game to V and M."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from worldmodels_fast import data
from worldmodels_fast.agent import World
from worldmodels_fast.collection import collect, collect_with_agent
from worldmodels_fast.progress import StageProgress
from worldmodels_fast.stages.run import Run, save_weights
from worldmodels_fast.training import (
    calibrate_done,
    encode_episodes,
    load_checkpoint,
    products_in_bf16,
    reward_variance,
    steps_in_epoch,
    train_mdn_rnn,
    train_vae,
)


def stage_collect(run: Run) -> dict[str, Any]:
    """Play episodes of the real game under policies that look at nothing.

    A further round takes over those of the run that it goes on from; that run's agent plays on.
    """
    config, base = run.config.collect, run.base()
    if base is not None:
        return _collect_with_agent(run, base)
    with _CollectProgress(run, config.episodes, config.shard_episodes) as progress:
        collect(
            run.episodes,
            run.config.environment,
            config,
            seed=run.config.seed,
            env_kwargs=run.config.env_kwargs,
            on_shard=progress.on_shard,
        )
    return progress.figures()


def _collect_with_agent(run: Run, base: Run) -> dict[str, Any]:
    """Link the base's shards, and let its agent play those that follow."""
    if not (base.world / "config.json").is_file():
        raise ValueError(f"round.base: {base.folder} has no finished world; run its stages first")
    taken = _take_shards(base.episodes, run.episodes)
    per_shard, episodes = run.config.collect.shard_episodes, run.config.round.episodes
    shards = range(max(taken) + 1, max(taken) + 1 + -(-episodes // per_shard))
    total = len(taken) * per_shard + len(shards) * per_shard
    with _CollectProgress(run, total, per_shard) as progress:
        collect_with_agent(
            run.episodes,
            World.load(base.world),
            shards,
            per_shard,
            sigma=run.config.round.sigma,
            spread=run.config.round.spread,
            seed=run.config.seed,
            n_params=base.new_controller().n_params,
            to_params=base.player()[2],
            vae_precision="bf16" if products_in_bf16(base.config.vae.precision) else "fp32",
            on_shard=progress.on_shard,
        )
    return {"shards_taken": len(taken), **progress.figures()}


def _take_shards(source: Path, target: Path, suffix: str = "") -> list[int]:
    """Link every shard of another run that `target` lacks; return their numbers."""
    shards = data.finished_shards(source, suffix)
    if not shards:
        raise ValueError(f"round.base: no shards in {source}; finish that run first")
    target.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        link = data.shard_path(target, shard, suffix)
        if not link.exists():
            link.unlink(missing_ok=True)  # a link to what is no longer there
            original = data.shard_path(source, shard, suffix).resolve()
            link.symlink_to(os.path.relpath(original, target.resolve()))
    return shards


class _CollectProgress(StageProgress):
    """Shows a collection's progress, and counts for its record."""

    def __init__(self, run: Run, episodes: int, shard_episodes: int) -> None:
        self._run = run
        done = len(data.finished_shards(run.episodes)) * shard_episodes
        self._episodes = min(done, episodes)
        self._seen = self._kept = 0
        super().__init__("collect", episodes, "episodes", self._episodes)

    def on_shard(self, episodes: int, seen: int, kept: int) -> None:
        """Count a shard that is finished."""
        self._episodes += episodes
        self._seen += seen
        self._kept += kept
        rate = self._seen / (time.monotonic() - self._began)
        self.update(self._episodes, f"{self._kept:,} frames kept, {rate:,.0f} frames/s")

    def figures(self) -> dict[str, Any]:
        """For the record; of this run of the stage alone, were it killed in between, but frames."""
        episodes = self._run.episodes
        frames = sum(data.shard_steps(episodes, s) for s in data.finished_shards(episodes))
        return {
            "frames_kept": frames,
            "frames_seen": self._seen,
            "frames_per_second": self._seen / (time.monotonic() - self._began),
        }


def stage_train_vae(run: Run) -> dict[str, Any]:
    """Train V on the frames; a further round takes over that of the run it goes on from."""
    base = run.base()
    if base is not None:
        save_weights(base.load_vae(), run.folder / "vae.safetensors")
        return {"taken_from": str(base.folder)}
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
    """Write V's view of every frame, and actions and rewards beside it."""
    model = run.load_vae()
    base = run.base()
    if base is not None:
        for shard in _take_shards(base.latents, run.latents, ".safetensors"):
            if run.config.rnn.predicts_reward:  # an earlier version's have none
                data.add_rewards(run.latents, shard, run.episodes)
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
    """Train M on the latents; in a further round it goes on from that of the first."""
    base = run.base()
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
            run.latents,
            checkpoint,
            config,
            seed=run.config.seed,
            start=base.load_mdn_rnn() if base else None,
            on_step=on_step,
        )
    save_weights(model, run.folder / "mdn_rnn.safetensors")
    figures: dict[str, Any] = {**last}
    if config.predicts_reward:
        figures["held_out_reward_variance"] = reward_variance(run.held_out_latents(), config)
    if config.predicts_done:
        try:
            figures["death"] = calibrate_done(model, run.latents, config)._asdict()
        except ValueError as error:  # which matters only to who wants a calibrated death
            figures["death"] = {"none": str(error)}
    return figures

"""The stage `encode`."""

from __future__ import annotations

from typing import Any

from worldmodels_fast import data
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.experiments.stages.shards import take_shards
from worldmodels_fast.training.encode import encode_episodes
from worldmodels_fast.utils.progress import StageProgress


def stage_encode(run: Run) -> dict[str, Any]:
    """Write V's view of every frame, and actions and rewards beside it."""
    model = run.load_vae()
    base = run.base()
    if base is not None:
        for shard in take_shards(base.latents, run.latents, ".safetensors"):
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

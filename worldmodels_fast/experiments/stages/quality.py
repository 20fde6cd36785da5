"""The stage `quality`: the dream measured on held-out episodes."""

from __future__ import annotations

from typing import Any

from worldmodels_fast import data
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.measure import PARTS, measure
from worldmodels_fast.evaluation.quality.tables import headline, summary
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.utils.files import write_json
from worldmodels_fast.utils.progress import StageProgress, console


def stage_quality(run: Run) -> dict[str, Any]:
    """Measure the dream on held-out episodes: V, M's predictions, ends and rewards."""
    config = run.config
    shards = data.finished_shards(run.latents, ".safetensors")
    training, shards = data.split_held_out(shards)
    held_out = HeldOut(run.episodes, run.latents, shards, config.quality.episodes)
    with StageProgress("quality", PARTS, "parts") as progress:
        result = measure(
            run.unevolved_world(temperature=1.0),
            held_out,
            config.quality,
            done_weight=config.rnn.done_weight,
            policies=config.collect.policies,
            seed=config.seed,
            latent=config.rnn.latent,
            reward_limit=config.rnn.reward_limit,
            on_part=lambda name: progress.update(progress.done + 1, name),
        )
    result["held_out"] = not set(shards) & set(training)
    write_json(run.folder / "quality.json", result)
    console.print(summary(result))
    return headline(result)

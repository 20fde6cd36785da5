"""The stage `collect`: episodes of the real game."""

from __future__ import annotations

import time
from typing import Any

from worldmodels_fast import data, ops
from worldmodels_fast.data.collect import collect, collect_with_agent
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.experiments.stages.shards import take_shards
from worldmodels_fast.utils.progress import StageProgress
from worldmodels_fast.world.world import World


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
        raise ValueError(f"--round.base: {base.folder} has no finished world; run its stages first")
    taken = take_shards(base.episodes, run.episodes)
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
            vae_precision=ops.resolve_precision(base.config.vae.precision, "vae_encoder"),
            on_shard=progress.on_shard,
        )
    return {"shards_taken": len(taken), **progress.figures()}


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

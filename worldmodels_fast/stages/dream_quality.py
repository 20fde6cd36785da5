"""Stages `fidelity` and `quality`: is the dream good enough to evolve C in it?"""

from __future__ import annotations

from typing import Any

from worldmodels_fast import data
from worldmodels_fast.dream import Dream
from worldmodels_fast.progress import StageProgress, console
from worldmodels_fast.quality import HeldOut, measure
from worldmodels_fast.quality.measure import PARTS
from worldmodels_fast.quality.tables import headline, summary
from worldmodels_fast.scoring import compare_with_game, write_fidelity
from worldmodels_fast.stages.run import Run, write_json


def stage_fidelity(run: Run) -> dict[str, Any]:
    """Compare what comes of fixed policies in the dream and in the game.

    That is how long they survive; where M predicts rewards, what they are paid.

    Raises:
        ValueError: M predicts neither, and every dream is like any other.
    """
    if not (run.config.rnn.predicts_done or run.config.rnn.predicts_reward):
        raise ValueError(
            "fidelity: M predicts no end of an episode (rnn.predicts_done) and no reward "
            "(rnn.predicts_reward)"
        )
    config = run.config.fidelity
    dream = Dream(
        run.load_mdn_rnn(),
        run.new_controller(),  # policies keep to its actions
        run.first_latents(),
        **{**run.dream_settings(), "temperature": 1.0},
    )
    rows = compare_with_game(
        dream,
        run.config.environment,
        config,
        seed=run.config.seed,
        env_kwargs=run.config.env_kwargs,
        folder=run.folder / "game",
    )
    write_fidelity(run.folder / "fidelity.json", rows)
    return {row.player: row.difference if row.ratio is None else row.ratio for row in rows}


def stage_quality(run: Run) -> dict[str, Any]:
    """Measure on held-out episodes how good the dream is: its foresight, deaths, walls and fire."""
    config = run.config
    shards = data.finished_shards(run.latents, ".safetensors")
    training, shards = data.split_held_out(shards)
    held_out = HeldOut(run.episodes, run.latents, shards, config.quality.episodes)
    with StageProgress("quality", PARTS, "parts") as progress:
        result = measure(
            run.unevolved_world(),
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

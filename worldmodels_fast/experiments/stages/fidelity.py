"""The stage `fidelity`: open-loop policies in the dream and in the game."""

from __future__ import annotations

from typing import Any

from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evaluation.fidelity.compare import compare_with_game
from worldmodels_fast.evaluation.fidelity.file import write_fidelity
from worldmodels_fast.experiments.run import Run


def stage_fidelity(run: Run) -> dict[str, Any]:
    """Compare open-loop policies in the dream and in the game.

    They are compared by the steps that they survive, or, where M predicts rewards, by their sums.

    Raises:
        ValueError: M predicts neither, so that all dreams have the same return.
    """
    if not (run.config.rnn.predicts_done or run.config.rnn.predicts_reward):
        raise ValueError(
            "fidelity: M predicts no end of an episode (--rnn.predicts-done) and no reward "
            "(--rnn.predicts-reward)"
        )
    config = run.config.fidelity
    dream = Dream(
        run.load_mdn_rnn(),
        run.placeholder_controller(),  # policies keep to its actions
        run.first_latents(),
        temperature=1.0,
        **run.dream_end(),
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

"""The stage `evaluate`: the agent's score in the game."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from worldmodels_fast import ops
from worldmodels_fast.evaluation.beside_random import play_beside_random
from worldmodels_fast.evaluation.fidelity.compare import controller_row
from worldmodels_fast.evaluation.fidelity.file import write_controller_rows
from worldmodels_fast.evaluation.scores import save_evaluations
from worldmodels_fast.evolution.cma import Record, load_means
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.utils.files import read_json_lines
from worldmodels_fast.utils.progress import console
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World


def stage_evaluate(run: Run) -> dict[str, Any]:
    """Play the real game with the world's agent, on fresh seeds, beside the random policy.

    Where C was evolved in the dream, it was chosen by its dreams alone. If the gap was measured,
    the mean with the best score in the game then plays, too, for comparison, on fresh seeds: the
    score by which it was picked is biased. Where the game has an unmodified environment besides
    ours, the agent plays the same seeds in that, too.
    """
    config = run.config.evaluate
    if not (run.world / "config.json").is_file():
        raise ValueError(f"{run.world}: no finished world yet; run the stage `evolve` first")
    world = World.load(run.world)
    evolved = run.record("evolve")
    chosen = int(evolved["figures"]["from_generation"]) if evolved else 0
    best = _best_by_real(run) if evolved else None
    others = {}
    if best is not None and best["generation"] != chosen:
        others[BEST_BY_REAL] = _with_mean(run, world, best["generation"])
    evaluations = play_beside_random(
        world,
        run.config.environment,
        episodes=config.episodes,
        random_episodes=config.random_episodes,
        unmodified_episodes=config.unmodified_episodes,
        seed=derive_seed(run.config.seed, "evaluate"),
        workers=config.workers,
        vae_precision=ops.resolve_precision(config.vae_precision, "vae_encoder"),
        env_kwargs=run.config.env_kwargs,
        progress_folder=run.folder / "game",
        latent=run.config.controller.latent,
        others=others,
    )
    figures: dict[str, Any] = {}
    if best is not None:
        evaluations.setdefault(BEST_BY_REAL, evaluations["agent"])
        figures["chosen"] = {
            "agent": {"generation": chosen, "by": "mean score in the dream"},
            BEST_BY_REAL: {**best, "by": f"mean of {run.config.gap.episodes} real episodes"},
        }
        said = "the agent itself" if not others else "scored above on fresh episodes"
        console.print(
            f"The agent is the mean after generation {chosen + 1}, the best in the dream; best in "
            f"{run.config.gap.episodes} real episodes, with {best['real_score']:.0f}, was that "
            f"after generation {best['generation'] + 1}: {said}."
        )
    save_evaluations(evaluations, run.folder / "evaluation.json")
    if world.mdn_rnn.predicts_done or world.mdn_rnn.predicts_reward:
        rows = [
            controller_row(
                name,
                player,
                evaluations[name].episodes,
                run.config.fidelity.dream_episodes,
                seed=run.config.seed,
            )
            for name, player in {"agent": world, **others}.items()
        ]
        write_controller_rows(run.folder / "fidelity.json", rows)
    means = {name: evaluation.summary().mean for name, evaluation in evaluations.items()}
    return {**means, **figures}


BEST_BY_REAL = "best-by-real"
"""The player whose mean was the best in the real game while C evolved."""


def _best_by_real(run: Run) -> Record | None:
    """Generation and real_score of the watched mean with the best score in the game, or None."""
    watched = [row for row in read_json_lines(run.folder / "history.jsonl") if "real_score" in row]
    if not watched:
        return None
    best = max(watched, key=lambda row: float(row["real_score"]))
    return {key: best[key] for key in ("generation", "real_score")}


def _with_mean(run: Run, world: World, generation: int) -> World:
    """Return the world with the mean after `generation` for its controller, in 16 bits, too."""
    mean = load_means(run.folder / "means.safetensors")[generation]
    _, controller, widened = run.player()
    rounded = widened(mean[None])[0].astype(np.float16).astype(np.float32)
    return dataclasses.replace(world, controller=controller.set_flat(rounded))

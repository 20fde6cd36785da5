"""The temperature table: C evolved in dreams of several temperatures, each scored in both worlds.

Each temperature is a run of its own in `sweep/tau-T/` of the run's folder, which has adopted the
run's V and M (and its C, if all settings of that are the same). So a row resumes after a kill, can
be done alone and in any order, and every other command works on it. The table is written after
every row, from the rows that there are.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels_fast.evaluation.beside_random import RANDOM_POLICY
from worldmodels_fast.evaluation.evaluate import evaluate_agent, evaluate_policy, show_episode
from worldmodels_fast.evaluation.fidelity.compare import controller_row
from worldmodels_fast.evaluation.fidelity.file import write_controller_rows
from worldmodels_fast.evaluation.statistics import summary
from worldmodels_fast.experiments.config import PAPER_TEMPERATURES, SweepConfig
from worldmodels_fast.experiments.engine import StageEngine
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.report.temperatures import (
    draw_temperatures,
    read_temperatures,
    temperatures_table,
)
from worldmodels_fast.utils.figures import write_figure
from worldmodels_fast.utils.files import read_json, write_json, write_text
from worldmodels_fast.utils.progress import StageProgress, console
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World

__all__ = ["sweep"]

BEFORE = ("collect", "train-vae", "encode", "train-rnn")
"""The stages that a sweep needs."""


def sweep(run: Run, engine: StageEngine, temperatures: Sequence[float] = ()) -> dict[str, Any]:
    """Do the rows of these temperatures, and write the table of all that there are.

    Args:
        run: a run; stages before the evolution that are missing are done first.
        engine: the stages before the table's rows, and the rows' own.
        temperatures: those to do now; none for the run's, or if it has none the paper's.

    Returns:
        the real score's mean for each temperature of the table.

    Raises:
        ValueError: a temperature that is not positive, or rows that were made with other settings
            or from an earlier V or M.
    """
    chosen = tuple(temperatures) or run.config.sweep.temperatures or PAPER_TEMPERATURES
    # The configuration's own check says what is wrong with them.
    dataclasses.replace(run.config, sweep=SweepConfig(temperatures=chosen))
    for name in BEFORE:
        engine.run_stage(name, run)
    for temperature in chosen:
        console.print(f"temperature {temperature:g}")
        _do_row(run, engine, temperature)
        _write_table(run)
    table = read_temperatures(run.folder)
    console.print(temperatures_table(table))
    return {f"{row['temperature']:g}": row["game"]["summary"]["mean"] for row in table["rows"]}


def _row_folder(run: Run, temperature: float) -> Path:
    return run.folder / "sweep" / f"tau-{temperature:g}"


def _do_row(run: Run, engine: StageEngine, temperature: float) -> None:
    """Evolve at a temperature, score the controller in the dream and in the game."""
    config = run.config.sweep
    evolve = dataclasses.replace(
        run.config.evolve,
        generations=config.generations or run.config.evolve.generations,
        rollouts=config.rollouts or run.config.evolve.rollouts,
    )
    dreaming = dataclasses.replace(run.config.dream, temperature=temperature)
    settings = dataclasses.replace(run.config, evolve=evolve, dream=dreaming, sweep=SweepConfig())
    row = engine.open_run(_row_folder(run, temperature), settings)
    engine.adopt(row, run)
    engine.run_stage("evolve", row)

    path = row.folder / "temperature.json"
    record = row.record("evolve")
    assert record is not None
    asked: dict[str, Any] = {
        "evolve": record.get("id"),
        "dream_rollouts": config.dream_rollouts,
        "dream_seed": derive_seed(run.config.seed, "sweep/dream"),
        "episodes": config.episodes,
        "game_seed": derive_seed(run.config.seed, "sweep/game"),
    }
    if (read_json(path) or {}).get("asked") == asked:
        console.print("scores: finished before")
        return
    world = World.load(row.world)
    began = time.perf_counter()
    dream = world.dream(precision=dreaming.precision, device=dreaming.device)
    params = world.controller.flat.detach().numpy()[None]
    returns = dream.evaluate(params, config.dream_rollouts, asked["dream_seed"]).returns[0]
    dream_seconds = time.perf_counter() - began
    began = time.perf_counter()
    with StageProgress(f"tau {temperature:g} in the game", config.episodes, "episodes") as progress:
        game = evaluate_agent(
            world,
            run.environment.env_id,
            config.episodes,
            asked["game_seed"],
            run.config.evaluate.workers,
            env_kwargs=run.config.env_kwargs,
            latent=run.config.controller.latent,
            progress_path=row.folder / "game" / "sweep-agent.jsonl",
            on_episode=functools.partial(show_episode, progress),
        )
    fidelity = controller_row(
        f"tau {temperature:g}",
        world,
        game.episodes,
        run.config.fidelity.dream_episodes,
        seed=run.config.seed,
    )
    write_controller_rows(run.folder / "fidelity.json", [fidelity])
    figures = record["figures"]
    write_json(
        path,
        {
            "temperature": temperature,
            "asked": asked,
            "evolution": {
                "population": evolve.population,
                "rollouts": evolve.rollouts,
                **{
                    key: figures[key]
                    for key in (
                        "generations",
                        "from_generation",
                        "score_in_the_dream",
                        "dream_steps",
                        "precision",
                    )
                },
            },
            "seconds": {
                "evolve": figures.get("evolution_seconds", record["seconds"]),
                "dream": dream_seconds,
                "game": time.perf_counter() - began,  # of what was left, had it been killed before
            },
            "dream": {
                "summary": dataclasses.asdict(summary(returns)),
                "scores": np.asarray(returns).tolist(),
            },
            "dream_at_1": dataclasses.asdict(fidelity.dream),
            "game": game.to_json(),
        },
    )


def _write_table(run: Run) -> None:
    """Write temperatures.json, temperatures.md and the figure from the rows that are there."""
    config = run.config
    with StageProgress("random policy", config.sweep.episodes, "episodes") as progress:
        random = evaluate_policy(
            RANDOM_POLICY,
            run.environment.env_id,
            config.sweep.episodes,
            derive_seed(config.seed, "sweep/game"),
            config.evaluate.workers,
            env_kwargs=config.env_kwargs,
            squash=run.environment.squash,
            progress_path=run.folder / "sweep" / "random.jsonl",
            on_episode=functools.partial(show_episode, progress),
        )
    rows = []
    for path in (run.folder / "sweep").glob("tau-*/temperature.json"):
        row = read_json(path) or {}
        evolved = Run.load(path.parent).record("evolve") or {}
        if row["asked"]["evolve"] == evolved.get("id"):  # else it is being done again
            rows.append(row)
    rows.sort(key=lambda row: float(row["temperature"]))
    table = {
        "settings": {
            "recipe": config.recipe,
            "seed": config.seed,
            "environment": random.settings["environment"],
            "env_id": random.settings["env_id"],
            "versions": random.settings["versions"],
            "controller": dataclasses.asdict(config.controller),
            **run.dream_end(),
        },
        "rows": rows,
        "random": random.to_json(),
    }
    write_json(run.folder / "temperatures.json", table)
    write_text(run.folder / "temperatures.md", temperatures_table(table) + "\n")
    write_figure(run.folder / "figures" / "temperatures.png", draw_temperatures(table))

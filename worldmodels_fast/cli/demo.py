"""`worldmodels-fast demo`: a controller evolved in a bundled dream, scored in the real game."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from worldmodels_fast import envs
from worldmodels_fast.cli.usage import PROGRAM
from worldmodels_fast.evaluation.beside_random import play_beside_random
from worldmodels_fast.evaluation.scores import save_evaluations
from worldmodels_fast.evolution.cma import EvolveConfig, Record, evolve
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.report.page import write_report
from worldmodels_fast.utils.progress import StageProgress, console, sparkline
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.utils.settings import SettingsCheck
from worldmodels_fast.world.pretrained import load_pretrained


@dataclass(frozen=True)
class DemoConfig:
    """Evolve a fresh controller in a bundled world's dream, then let it play the real game.

    Attributes:
        world: a bundled world, or a world's folder.
        folder: of the results; those of an earlier demo in it are replaced.
        generations: number of CMA-ES's generations.
        max_minutes: limit of the evolution's time, for slow machines.
        episodes: number of the agent's in the real game, and of the random policy's.
        seed: that every other seed is derived from.
    """

    world: str = "take-cover"
    folder: Path = Path("runs/demo")
    generations: int = 20
    max_minutes: float = 1.5
    episodes: int = 10
    seed: int = 0

    def check(self, prefix: str = "--") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("generations", "episodes", low=1)
        check.numbers("max_minutes", above=0)
        check.integers("seed", low=0)


def command(args: list[str]) -> None:
    """Evolve a controller in a bundled dream, then let it play the real game (3 minutes)."""
    demo(tyro.cli(DemoConfig, args=args, prog=f"{PROGRAM} demo"))


def demo(config: DemoConfig) -> None:
    """Evolve a controller in the dream, play the real game, print the scores, write the report.

    Raises:
        ValueError: no such world, or a setting out of range.
    """
    config.check()
    world = load_pretrained(config.world)
    envs.spec_of(world.config)  # an unknown environment is an error now, not in two minutes
    if not (world.mdn_rnn.predicts_done or world.mdn_rnn.predicts_reward):
        raise ValueError(
            "--world: expected a world whose M predicts an end or a reward, since else all its "
            f"dreams score the same, got {config.world}"
        )
    config.folder.mkdir(parents=True, exist_ok=True)
    for name in ("evolution_state.pickle", "history.jsonl", "evaluation.json", "report.html"):
        (config.folder / name).unlink(missing_ok=True)
    shutil.rmtree(config.folder / "world", ignore_errors=True)

    dream = world.dream(precision="auto")
    settings = EvolveConfig(
        generations=config.generations,
        max_minutes=config.max_minutes,
        rollouts=8,
        eval_every=10,
        eval_rollouts=256,
    )
    console.print(
        f"A controller of {dream.n_params:,} parameters, all zero, is evolved in the dream alone "
        f"(temperature {dream.temperature:g})."
    )
    means: list[float] = []
    with StageProgress("evolve in the dream", config.generations, "generations") as progress:

        def on_generation(record: Record) -> None:
            means.append(record["mean"])
            progress.update(
                record["generation"] + 1,
                f"survives {record['mean']:.0f} steps, best {record['max']:.0f} "
                f"{sparkline(means)} {record['steps'] / record['seconds']:,.0f} dream steps/s",
            )

        result = evolve(
            dream.evaluate,
            dream.n_params,
            settings,
            state_path=config.folder / "evolution_state.pickle",
            history_path=config.folder / "history.jsonl",
            seed=config.seed,
            on_generation=on_generation,
        )
    controller = LinearController.from_config(world.controller.config())
    with torch.no_grad():
        controller.flat.copy_(torch.from_numpy(result.params))
    if len(result.history) < config.generations:
        console.print(
            f"Stopped after {len(result.history)} of {config.generations} generations: it had "
            f"{config.max_minutes:g} minutes (--max-minutes)."
        )
    card = f"# {config.world}, with a controller evolved by `worldmodels-fast demo`\n"
    evolved = dataclasses.replace(world, controller=controller, card=card)
    evolved.save(config.folder / "world")

    console.print("Now it plays the real game, which it has never seen.")
    evaluations = play_beside_random(
        config.folder / "world",
        world.config["environment"],
        episodes=config.episodes,
        random_episodes=config.episodes,
        seed=derive_seed(config.seed, "demo"),
        env_kwargs=world.config.get("env_kwargs", {}),
    )
    save_evaluations(evaluations, config.folder / "evaluation.json")
    console.print(f"In the dream it survived {result.score:.0f} steps on average.")
    console.print(f"report: {write_report(config.folder)}")

"""`worldmodels-fast fidelity`: the stage of a run, or the dream of a finished world."""

from __future__ import annotations

import tyro

from worldmodels_fast.cli import stage
from worldmodels_fast.cli.usage import PROGRAM, lacks_target
from worldmodels_fast.evaluation.fidelity.compare import compare_with_game
from worldmodels_fast.evaluation.fidelity.config import FidelityConfig
from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.world.pretrained import load_pretrained


def command(args: list[str]) -> None:
    """Compare dream and game: how long open-loop policies survive, or their rewards."""
    if lacks_target(args) or not stage.is_world(args[0]):
        stage.command("fidelity", args)
    else:
        compare_finished_world(args[0], args[1:])


def compare_finished_world(world: str, args: list[str]) -> None:
    """Parse the options and compare a finished world's dream with the game."""
    config = tyro.cli(FidelityConfig, args=args, prog=f"{PROGRAM} fidelity {world}")
    compare_world(world, config)


def compare_world(name_or_folder: str, config: FidelityConfig) -> list[FidelityRow]:
    """Return and print the comparison of a finished world's dream with the game.

    Open-loop policies and the world's own controller play in both.

    Args:
        name_or_folder: a bundled world, or a world's folder.
        config: policies and numbers of episodes.

    Raises:
        ValueError: no such world, one whose M predicts neither an end nor a reward, or a setting
            out of range.
    """
    config.check("--")
    world = load_pretrained(name_or_folder)
    if not (world.mdn_rnn.predicts_done or world.mdn_rnn.predicts_reward):
        raise ValueError(
            f"fidelity: the M of {name_or_folder} predicts no end of an episode and no reward"
        )
    return compare_with_game(
        world.dream(temperature=1.0),
        world.config["environment"],
        config,
        seed=int(world.config.get("seed", 0)),
        env_kwargs=world.config.get("env_kwargs", {}),
        controllers={"agent": world},
    )

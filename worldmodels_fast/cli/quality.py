"""`worldmodels-fast quality`: the stage of a run, or V and M of a finished world."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from worldmodels_fast import data
from worldmodels_fast.cli import stage
from worldmodels_fast.cli.usage import PROGRAM, lacks_target
from worldmodels_fast.data.collect import CollectConfig, collect
from worldmodels_fast.envs.policies import check_policies
from worldmodels_fast.envs.registry import spec_of
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.contents import contents_of
from worldmodels_fast.evaluation.quality.figures import death_head, foresight
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.measure import PARTS, measure
from worldmodels_fast.evaluation.quality.tables import summary
from worldmodels_fast.training.encode import encode_episodes
from worldmodels_fast.utils.figures import write_figure
from worldmodels_fast.utils.files import read_json, write_json
from worldmodels_fast.utils.progress import StageProgress, console
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.utils.settings import SettingsCheck, option_of
from worldmodels_fast.world.pretrained import load_pretrained


@dataclass(frozen=True)
class QualityOptions:
    """Measure a finished world's V and M on fresh episodes of the game.

    Attributes:
        folder: of the episodes, latents, quality.json and figures; None for runs/quality-WORLD.
        episodes: number of episodes that are played for this.
        policies: open-loop policies that play them, in turn.
        done_weight: weight of a death in the loss that M was trained with.
        reward_limit: of the rewards that M was trained on, if it predicts them; None for no limit.
        seed: None for the world's own.
        workers: processes that play; None for as many as suit the machine.
        measure: numbers of windows, samples and so on.
    """

    folder: Path | None = None
    episodes: int = 96
    policies: tuple[str, ...] = ("held-random", "lingering")
    done_weight: float = 10.0
    reward_limit: float | None = None
    seed: int | None = None
    workers: int | None = None
    measure: QualityConfig = field(default_factory=QualityConfig)

    def check(self, prefix: str = "--") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("episodes", low=1)
        check_policies(option_of(prefix, "policies"), self.policies)
        check.numbers("done_weight", above=0)
        check.numbers("reward_limit", above=0, or_none=True)
        check.integers("seed", low=0, or_none=True)
        check.integers("workers", low=1, or_none=True)
        self.measure.check(f"{prefix}measure.")


def command(args: list[str]) -> None:
    """Measure V and M on held-out episodes."""
    if lacks_target(args) or not stage.is_world(args[0]):
        stage.command("quality", args)
        return
    options = tyro.cli(QualityOptions, args=args[1:], prog=f"{PROGRAM} quality {args[0]}")
    measure_world(args[0], options)


def measure_world(name_or_folder: str, options: QualityOptions) -> Path:
    """Measure a finished world's V and M, print the tables, and return quality.json's path.

    Args:
        name_or_folder: a bundled world, or a world's folder.
        options: see `QualityOptions`.

    Raises:
        ValueError: no such world, a setting out of range, or a folder with other episodes.
    """
    options.check()
    world = load_pretrained(name_or_folder)
    spec_of(world.config)
    environment = world.config["environment"]
    folder = options.folder or Path("runs") / f"quality-{Path(name_or_folder).resolve().name}"
    own_seed = int(world.config.get("seed", 0)) if options.seed is None else options.seed
    settings = {
        "world": world.digest(),
        "episodes": options.episodes,
        "policies": list(options.policies),
        "seed": own_seed,
        "env_kwargs": world.config.get("env_kwargs", {}),
    }
    _keep(folder, settings)
    config = CollectConfig(
        episodes=options.episodes,
        policies=options.policies,
        min_steps=0,
        shard_episodes=12,
        workers=options.workers,
    )
    with StageProgress("play", options.episodes, "episodes") as progress:
        collect(
            folder / "episodes",
            environment,
            config,
            seed=derive_seed(own_seed, "quality/episodes"),
            env_kwargs=settings["env_kwargs"],
            on_shard=lambda n, seen, kept: progress.update(progress.done + n),
        )
    encode_episodes(folder / "episodes", folder / "latents", world.vae)
    shards = data.finished_shards(folder / "latents", ".safetensors")
    held_out = HeldOut(folder / "episodes", folder / "latents", shards, options.measure.episodes)
    with StageProgress("quality", PARTS, "parts") as progress:
        result = measure(
            world,
            held_out,
            options.measure,
            done_weight=options.done_weight,
            policies=options.policies,
            seed=own_seed,
            latent=world.config.get("latent", "sample"),
            reward_limit=options.reward_limit,
            on_part=lambda name: progress.update(progress.done + 1, name),
        )
    result["held_out"] = True
    path = folder / "quality.json"
    write_json(path, {**result, "settings": _as_json(options, settings)})
    console.print(summary(result))
    if "prediction" in result:
        write_figure(folder / "foresight.png", foresight(result["prediction"]))
    if "deaths" in result:
        write_figure(folder / "deaths.png", death_head(result["deaths"]))
    if found := contents_of(result):
        module, contents = found
        write_figure(folder / "contents.png", module.figure(contents))
    console.print(f"figures and every number: {folder}")
    return path


def _keep(folder: Path, settings: dict[str, object]) -> None:
    """Write the settings of the folder's episodes and latents, or check that they are these."""
    path = folder / "settings.json"
    before = read_json(path)
    if before is not None and before != settings:
        raise ValueError(
            f"folder: {folder} holds episodes of {before}, not of {settings}; name another folder, "
            "or delete that one"
        )
    write_json(path, settings)


def _as_json(options: QualityOptions, settings: dict[str, object]) -> dict[str, object]:
    return {**settings, "measure": dataclasses.asdict(options.measure)}

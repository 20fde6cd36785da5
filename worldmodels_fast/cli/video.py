"""`worldmodels-fast video`: the game filmed beside dreams under the same actions."""

from __future__ import annotations

import itertools
from pathlib import Path

import tyro

from worldmodels_fast.cli.usage import (
    COMMANDS,
    PROGRAM,
    did_you_mean,
    exit_with_usage,
    lacks_target,
)
from worldmodels_fast.envs.registry import spec_of
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.report.pictures import play_one
from worldmodels_fast.report.side_by_side import beside, pictures_of
from worldmodels_fast.report.video import VideoOptions, has_ffmpeg, held, write_video
from worldmodels_fast.utils.progress import console
from worldmodels_fast.world.pretrained import folder_of, load_pretrained, pretrained_names
from worldmodels_fast.world.world import World


def command(args: list[str]) -> None:
    """Film the game beside dreams from the same frames, under the same actions."""
    name = f"{PROGRAM} video"
    if lacks_target(args):
        bundled = ", ".join(pretrained_names())
        exit_with_usage(
            f"{name} RUN_OR_WORLD [--out FILE.mp4] [--taus 0.1 1.0 1.3] [settings]\n\n"
            f"{COMMANDS['video']}\n\nRUN_OR_WORLD is a run's folder with a trained V and M, or a "
            f"world: {bundled}, or its folder.\n`{name} RUN_OR_WORLD --help` lists every setting.",
            args,
        )
    make_video(args[0], tyro.cli(VideoOptions, args=args[1:], prog=f"{name} {args[0]}"))


def make_video(run_or_world: str, options: VideoOptions) -> Path:
    """Play one episode of the game, dream beside it, and write the video; return its path.

    Args:
        run_or_world: a run's folder with trained V and M, a bundled world, or a world's folder.
        options: see `VideoOptions`.

    Raises:
        ValueError: no such run or world, an agent where none has evolved, or a setting out of
            range.
    """
    options.check()
    world, evolved, folder = _find(run_or_world)
    spec = spec_of(world.config)
    policy = spec.open_loop_policy
    player = options.player or ("agent" if evolved else policy)
    own_actions = options.own_actions
    if own_actions is None:
        own_actions = evolved and not world.mdn_rnn.predicts_done
    if (player == "agent" or own_actions) and not evolved:
        raise ValueError(
            f"--player: no controller has evolved in {run_or_world} yet; name a policy, for "
            f"instance {policy}"
        )
    out = options.out or folder / ("dream.mp4" if has_ffmpeg() else "dream.gif")
    frames, actions = play_one(
        world, seed=options.seed, policy=None if player == "agent" else player
    )
    shown = min(len(frames), options.tics)
    if options.first >= shown:
        raise ValueError(
            f"--first: the episode lasts {len(frames)} tics; expected less, got {options.first}"
        )
    limit = world.config.get("env_kwargs", {}).get("max_steps", spec.max_steps)
    fps = spec.fps if options.fps is None else options.fps
    scene = beside(
        world,
        frames[:shown],
        actions[:shown],
        temperatures=options.taus,
        warm_up=options.warm_up,
        seed=options.seed,
        died=world.mdn_rnn.predicts_done and shown == len(frames) < limit,
        own_actions=own_actions,
    )
    pictures = itertools.islice(pictures_of(scene, options.scale), options.first, None)
    write_video(held(pictures, fps), out, fps)  # the last picture is shown for a second
    console.print(f"video: {out}, {shown} of {len(frames)} tics played by {player}")
    for row in scene.rows[2:] if world.mdn_rnn.predicts_done else ():
        end = "not over" if row.over is None else f"over in tic {row.over}"
        console.print(f"  {row.caption}: {end}")
    return out


def _find(run_or_world: str) -> tuple[World, bool, Path]:
    """Return the world, whether its controller has evolved, and the folder of its video."""
    folder = Path(run_or_world)
    if run_or_world in pretrained_names():
        return load_pretrained(run_or_world), True, Path()
    if (folder / "world" / "config.json").is_file():
        return World.load(folder / "world"), True, folder
    if (folder / "initial_latents.safetensors").is_file():
        return World.load(folder_of(folder)), True, folder
    if not (folder / "config.json").is_file():
        names = pretrained_names()
        raise ValueError(
            f"{run_or_world}: no run and no world in here; {did_you_mean(run_or_world, names)}name "
            f"a run's folder, a world's folder or a bundled world ({', '.join(names)})"
        )
    return Run.load(folder).unevolved_world(), False, folder

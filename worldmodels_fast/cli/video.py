"""`worldmodels-fast video`: the game beside dreams under the same actions."""

from __future__ import annotations

from pathlib import Path

from worldmodels_fast.envs.registry import spec_of
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.report.pictures import play_one
from worldmodels_fast.report.side_by_side import beside, pictures_of
from worldmodels_fast.report.video import VideoOptions, check_suffix, has_ffmpeg, held, write_video
from worldmodels_fast.utils.progress import console
from worldmodels_fast.world.pretrained import folder_of, load_pretrained, pretrained_names
from worldmodels_fast.world.world import World

DEFAULT_POLICY = {"take-cover": "swing-40", "car-racing": "random-linear"}
"""Plays where there is no evolved controller, by environment: from wall to wall, or straight on."""


def make_video(run_or_world: str, options: VideoOptions) -> Path:
    """Play the game once, dream beside it, and write the video; return its path.

    Args:
        run_or_world: a run's folder with trained V and M, a bundled world, or a world's folder.
        options: see `VideoOptions`.

    Raises:
        ValueError: no such run or world, an agent where none has evolved, or a setting out of
            range.
    """
    world, evolved, folder = _find(run_or_world)
    spec = spec_of(world.config)
    policy = DEFAULT_POLICY.get(world.config["environment"], "uniform")
    player = options.player or ("agent" if evolved else policy)
    own_actions = options.own_actions
    if own_actions is None:
        own_actions = evolved and not world.mdn_rnn.predicts_done
    if (player == "agent" or own_actions) and not evolved:
        raise ValueError(
            f"player: no controller has evolved in {run_or_world} yet; name a policy, for instance "
            f"{policy}"
        )
    if options.scale < 1:
        raise ValueError(f"scale: expected at least 1, got {options.scale}")
    if not options.taus:
        raise ValueError("taus: expected at least one temperature")
    out = options.out or folder / ("dream.mp4" if has_ffmpeg() else "dream.gif")
    check_suffix(out)
    frames, actions = play_one(
        world, seed=options.seed, policy=None if player == "agent" else player
    )
    shown = min(len(frames), options.tics)
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
    # A second to look at the end.
    write_video(held(pictures_of(scene, options.scale), fps), out, fps)
    console.print(f"video: {out}, {shown} of {len(frames)} tics played by {player}")
    for row in scene.rows[2:] if world.mdn_rnn.predicts_done else ():
        end = "not over" if row.over is None else f"over in tic {row.over}"
        console.print(f"  {row.caption}: {end}")
    return out


def _find(run_or_world: str) -> tuple[World, bool, Path]:
    """The world, whether its controller has evolved, and where its video goes."""
    folder = Path(run_or_world)
    if run_or_world in pretrained_names():
        return load_pretrained(run_or_world), True, Path()
    if (folder / "world" / "config.json").is_file():
        return World.load(folder / "world"), True, folder
    if (folder / "initial_latents.safetensors").is_file():
        return World.load(folder_of(folder)), True, folder
    return Run.load(folder).unevolved_world(), False, folder

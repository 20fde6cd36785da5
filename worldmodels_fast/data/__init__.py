"""Episodes (frames) and latents on disk, both in shards; stages read and write them."""

from worldmodels_fast.data.episodes import Episode, read_episodes, shard_steps, write_episodes
from worldmodels_fast.data.frames import frame_batches, read_frames
from worldmodels_fast.data.latents import (
    Latents,
    add_rewards,
    first_latents,
    read_latents,
    write_latents,
)
from worldmodels_fast.data.shards import (
    HELD_OUT_EVERY,
    finished_shards,
    remove_unfinished,
    shard_path,
    split_held_out,
)

__all__ = [
    "HELD_OUT_EVERY",
    "Episode",
    "Latents",
    "add_rewards",
    "finished_shards",
    "first_latents",
    "frame_batches",
    "read_episodes",
    "read_frames",
    "read_latents",
    "remove_unfinished",
    "shard_path",
    "shard_steps",
    "split_held_out",
    "write_episodes",
    "write_latents",
]

"""Batches of sequences for M: shuffled episodes end to end, cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels_fast import data
from worldmodels_fast.models.vae import sample_latent
from worldmodels_fast.training.config import RNNConfig
from worldmodels_fast.training.devices import move


@dataclass(frozen=True)
class Sequences:
    """A chunk of B sequences over T steps; the axes are (T, B), as M takes them.

    Attributes:
        z: float32 (T, B, Z), sampled from V's distribution, or its mean.
        action: float32 (T, B, A).
        restart: float32 (T, B), 1 on an episode's first step.
        next_z: float32 (T, B, Z).
        has_next: float32 (T, B), 0 on an episode's last step, whose next_z is another episode's.
        done: float32 (T, B), 1 on a step that ended its episode.
        done_known: float32 (T, B), 0 where a time limit cut the episode.
        reward: float32 (T, B), the game's for this step's action, also of an episode's last step;
            None where the store has no rewards.
    """

    z: Tensor
    action: Tensor
    restart: Tensor
    next_z: Tensor
    has_next: Tensor
    done: Tensor
    done_known: Tensor
    reward: Tensor | None = None


@dataclass(frozen=True)
class DeviceLatents:
    """The device on which chunks are assembled, and the latents on it.

    Attributes:
        device: of the chunks.
        mu: float16 (N, Z) on the device; None if the latents do not fit there.
        logvar: float16 (N, Z), or None, like mu.
        actions: float32 (N, A), or None, like mu.
        rewards: float32 (N,), or None, like mu or because the store has none.
    """

    device: torch.device
    mu: Tensor | None = None
    logvar: Tensor | None = None
    actions: Tensor | None = None
    rewards: Tensor | None = None

    @classmethod
    def of(cls, latents: data.Latents, device: torch.device) -> DeviceLatents | None:
        """Copy latents to a CUDA device if they take no more than half of what is free there."""
        if device.type == "cpu":
            return None
        free, _ = torch.cuda.mem_get_info(device)
        arrays = {
            name: array
            for name in ("mu", "logvar", "actions", "rewards")
            if (array := getattr(latents, name)) is not None
        }
        if sum(x.nbytes for x in arrays.values()) > free / 2:
            return cls(device)
        return cls(device, **{k: torch.from_numpy(x).to(device) for k, x in arrays.items()})


def sequence_chunks(
    latents: data.Latents,
    batch: int,
    chunk: int,
    *,
    seed: tuple[int, ...],
    sample: bool,
    store: DeviceLatents | None = None,
) -> Iterator[Sequences]:
    """Yield one epoch: shuffled episodes end to end, laid into `batch` rows, cut every `chunk`.

    Row b of one chunk continues in row b of the next, so the LSTM's state carries over. The steps
    that do not fill a row's last chunk are left out; they are others in another epoch.

    Args:
        latents: all episodes.
        batch: B.
        chunk: T.
        seed: of the order and of the latents' noise.
        sample: whether z is sampled from V's distribution; else it is the mean.
        store: a CUDA device's latents; chunks then come on that device. None for the CPU.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(latents.lengths))
    starts = latents.starts
    index = np.concatenate([np.arange(starts[e], starts[e] + latents.lengths[e]) for e in order])
    first = np.zeros(len(index), dtype=np.float32)
    last = np.zeros(len(index), dtype=np.float32)
    done = np.zeros(len(index), dtype=np.float32)
    ends = np.cumsum(latents.lengths[order])
    first[0] = 1
    first[ends[:-1]] = 1
    last[ends - 1] = 1
    done[ends - 1] = latents.terminated[order]
    chunk = min(chunk, (len(index) - 1) // batch)
    if chunk < 1:
        raise ValueError(
            f"batch: {batch} sequences are more than the {len(index)} steps of data; collect more "
            "episodes or make the batch smaller"
        )
    row = (len(index) - 1) // batch // chunk * chunk
    store = store or DeviceLatents(torch.device("cpu"))
    device = store.device
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    rows = np.arange(batch) * row

    def pick(
        values: np.ndarray[Any, Any], at: np.ndarray[Any, Any], there: Tensor | None = None
    ) -> Tensor:
        if there is not None:
            return there[move(torch.from_numpy(at), device)].float()
        return move(torch.from_numpy(values[at].astype(np.float32)), device)

    for start in range(0, row, chunk):
        # One step more than the chunk: the last step's next latent.
        at = np.arange(start, start + chunk + 1)[:, None] + rows
        source = index[at]
        z = pick(latents.mu, source, store.mu)
        if sample:
            z = sample_latent(z, pick(latents.logvar, source, store.logvar), generator)
        now = at[:-1]
        is_last = pick(last, now)
        is_done = pick(done, now)
        yield Sequences(
            z=z[:-1],
            action=pick(latents.actions, source[:-1], store.actions),
            restart=pick(first, now),
            next_z=z[1:],
            has_next=1 - is_last,
            done=is_done,
            done_known=1 - is_last * (1 - is_done),
            reward=(
                None
                if latents.rewards is None
                else pick(latents.rewards, source[:-1], store.rewards)
            ),
        )


def steps_in_epoch(latents: data.Latents, config: RNNConfig) -> int:
    """Return how many chunks one epoch has."""
    rows = (int(latents.lengths.sum()) - 1) // config.batch
    return max(1, rows // min(config.chunk, max(rows, 1)))

"""Stages `train-vae`, `encode` and `train-rnn`: V and M are trained by torch, with checkpoints.

A training that is killed goes on from its last checkpoint with the same weights, optimiser state,
randomness and data order, so it ends as if it had not been killed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodels_fast import data
from worldmodels_fast.calibration import DoneCalibration, fit_done
from worldmodels_fast.mdn_rnn import MDNRNN, mixture_nll
from worldmodels_fast.vae import VAE, as_images, fourth_power_error, sample_latent, vae_loss

Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Metrics = dict[str, float]
OnStep = Callable[[int, Metrics], None]


@dataclass(frozen=True)
class VAEConfig:
    """How V is trained.

    Attributes:
        latent_dim: Z.
        steps: batches.
        batch: frames in each (paper: 100).
        learning_rate: Adam's (paper: 1e-4).
        final_learning_rate: reached by a half cosine at the last step; equal to `learning_rate`
            for a constant one, as in the paper.
        kl_tolerance: free nats for each latent dimension (paper: 0.5).
        reconstruction_weight: of the reconstruction against the KL (paper: 1).
        focus: an error e of a pixel costs e^2 + focus e^4 (paper: 0), so that small bright things
            count more than texture; see `vae.fourth_power_error`.
        precision: of the convolutions; "auto" takes bf16 where the machine multiplies it natively.
        checkpoint_every: steps between checkpoints, reports of held-out loss included.
        seed_offset: added to the run's seed.
        device: "cuda" is torch's current CUDA device; "auto" takes it where there is one.
    """

    latent_dim: int = 64
    steps: int = 150_000
    batch: int = 100
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-4
    kl_tolerance: float = 0.5
    reconstruction_weight: float = 1.0
    focus: float = 0.0
    precision: Precision = "auto"
    checkpoint_every: int = 500
    seed_offset: int = 0
    device: Device = "auto"


@dataclass(frozen=True)
class RNNConfig:
    """How M is trained.

    Attributes:
        hidden_dim: H.
        n_mixtures: K.
        predicts_done: whether M also predicts the end of an episode.
        predicts_reward: whether M also predicts the reward of each step (beyond the paper): a dream
            then returns the sum of what it predicts.
        epochs: passes over the latents (paper, Doom: 400).
        batch: sequences side by side (paper: 100).
        chunk: steps of each before the gradient is cut (paper: 500 for Doom).
        learning_rate: Adam's at the start (paper: 1e-3).
        final_learning_rate: reached by a half cosine at the last step.
        gradient_clip: gradients are clipped to +- this, by value (paper: 1).
        done_weight: weight of a step that ends an episode in the cross-entropy (paper: 10).
        reward_weight: of the squared error of the predicted reward against the nats of z. The
            head's row for it learns alike whatever it is (Adam divides it out); it says how much
            of M's memory is bent to rewards.
        reward_limit: rewards beyond +- this count as this; None for no limit. A rare large one
            (CarRacing's -100 for leaving the field) is all that a squared error sees.
        precision: of the matrix products.
        latent: "sample" draws z anew for each batch (paper); "mu" takes the mean.
        checkpoint_every: steps between checkpoints.
        seed_offset: added to the run's seed.
        device: see `VAEConfig`.
    """

    hidden_dim: int = 512
    n_mixtures: int = 5
    predicts_done: bool = True
    predicts_reward: bool = False
    epochs: int = 400
    batch: int = 100
    chunk: int = 500
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    gradient_clip: float = 1.0
    done_weight: float = 10.0
    reward_weight: float = 0.5
    reward_limit: float | None = None
    precision: Precision = "auto"
    latent: Literal["sample", "mu"] = "sample"
    checkpoint_every: int = 20
    seed_offset: int = 0
    device: Device = "auto"


def choose_device(device: Device) -> torch.device:
    """Return the device that training runs on.

    Raises:
        ValueError: an unknown device, or "cuda" where torch cannot use it; the message says why.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {device!r}")
    usable = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not usable:
        why = (
            "this build of torch is for the CPU only"
            if torch.version.cuda is None
            else "it finds no usable device or driver"
        )
        raise ValueError(f"device: torch {torch.__version__} cannot use 'cuda', because {why}")
    return torch.device("cuda", torch.cuda.current_device()) if usable else torch.device("cpu")


def _move(x: Tensor, device: torch.device) -> Tensor:
    """Copy a batch to a CUDA device from pinned memory, without waiting; on the CPU it is x."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def products_in_bf16(precision: Precision, device: torch.device | None = None) -> bool:
    """Say whether training at `precision` multiplies in bfloat16 on this machine.

    Args:
        precision: a setting.
        device: where; None for the CPU.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision: expected 'auto', 'fp32' or 'bf16', got {precision!r}")
    if precision != "auto":
        return precision == "bf16"
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Without an instruction for it bfloat16 is slower than float32 on a CPU.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Return the learning rate of `step`, on half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; it appears whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # the name must not reach the disk before what it names
    os.replace(unfinished, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint if there is one. It is data only: nothing in it is executed.

    Raises:
        ValueError: the file is not a checkpoint.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path}: not a checkpoint, or damaged; delete it to train from the beginning"
        ) from error
    return state


def _restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Put a checkpoint's weights and moments into place; return it, or None if there is none."""
    state = load_checkpoint(checkpoint)
    if state is None:
        return None
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{checkpoint}: made by a training with other sizes ({error}); delete it to train from "
            "the beginning"
        ) from error
    return state


class MetricsLog:
    """Appends one JSON line for each report; a resumed training drops what it will redo."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        kept = [row for row in read_metrics(path) if row["step"] <= first_step]
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(unfinished, path)

    def write(self, step: int, metrics: Metrics) -> None:
        """Append a report."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return a log's rows, oldest first; none if there is no log.

    A kill may have left half a line at the end: that one is left out.
    """
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


# --- V ----------------------------------------------------------------------------------------


def train_vae(
    episodes: Path,
    checkpoint: Path,
    config: VAEConfig,
    *,
    seed: int,
    on_step: OnStep = lambda step, metrics: None,
) -> VAE:
    """Train V on the frames in `episodes`, or go on from `checkpoint`.

    Reports (reconstruction and KL of a frame, averaged since the last report, and on held-out
    frames) go to `on_step` and to the log beside the checkpoint, `*.log.jsonl`.

    Args:
        episodes: folder of episode shards.
        checkpoint: file of the training's state, made if absent.
        config: see `VAEConfig`.
        seed: the run's seed.
        on_step: called after every step with the metrics known so far.

    Raises:
        ValueError: no episodes, or too few for one batch.
        FloatingPointError: the loss is not finite.
    """
    training, held_out = data.split_held_out(data.finished_shards(episodes))
    if not training:
        raise ValueError(f"{episodes}: no episodes; run the stage `collect` first")
    seed = seed + config.seed_offset
    torch.manual_seed(seed)
    device = choose_device(config.device)
    model = VAE(config.latent_dim).to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    step = 0
    state = _restore(checkpoint, model, optimizer)
    if state is not None:
        torch.set_rng_state(state["rng"])
        if device.type == "cuda" and "device_rng" in state:
            torch.cuda.set_rng_state(state["device_rng"], device)
        step = state["step"]
    log = MetricsLog(checkpoint.with_suffix(".log.jsonl"), step)
    bf16 = products_in_bf16(config.precision, device)
    held_out_frames = data.read_frames(episodes, held_out[0])[::7][:500].copy()
    batches = data.frame_batches(episodes, training, config.batch, seed=seed, first_step=step)
    # Reconstruction and KL since the last report, on the device: nobody waits for them before that.
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    since = 0
    metrics: Metrics = {}
    with contextlib.closing(batches):
        while step < config.steps:
            images = as_images(_move(torch.from_numpy(next(batches)), device))
            for group in optimizer.param_groups:
                group["lr"] = cosine(
                    config.learning_rate, config.final_learning_rate, step, config.steps
                )
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                decoded, mu, logvar = model(images)
            reconstruction, kl = vae_loss(images, decoded, mu, logvar, config.kl_tolerance)
            error = reconstruction
            if config.focus:
                error = error + config.focus * fourth_power_error(images, decoded)
            optimizer.zero_grad()
            torch.autograd.backward(config.reconstruction_weight * error + kl)
            optimizer.step()
            step += 1
            since += 1
            sums += torch.stack([reconstruction.detach(), kl.detach()])
            at_checkpoint = step % config.checkpoint_every == 0 or step == config.steps
            if since == 50 or at_checkpoint:
                totals = zip(("reconstruction", "kl"), sums.tolist(), strict=True)
                metrics |= {name: total / since for name, total in totals}
                _check_finite("V", step, metrics)
                sums.zero_()
                since = 0
            if at_checkpoint:
                metrics |= _held_out_vae_loss(model, held_out_frames, config)
                log.write(step, metrics)
                rng = {"rng": torch.get_rng_state()}
                if device.type == "cuda":
                    rng["device_rng"] = torch.cuda.get_rng_state(device)
                save_checkpoint(
                    checkpoint,
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        **rng,
                        "step": step,
                    },
                )
            on_step(step, metrics)
    return model.cpu().eval()


def _check_finite(what: str, step: int, metrics: Metrics) -> None:
    if not all(map(math.isfinite, metrics.values())):
        raise FloatingPointError(
            f"{what}'s loss is not finite at step {step} ({metrics}); lower the learning rate, or "
            "train in fp32"
        )


@torch.no_grad()
def _held_out_vae_loss(model: VAE, frames: data.Frames, config: VAEConfig) -> Metrics:
    device = model.mu.weight.device
    images = as_images(_move(torch.from_numpy(frames), device))
    # A generator of its own: looking at held-out frames must not change the training.
    mu, logvar = model.encode(images)
    z = sample_latent(mu, logvar, torch.Generator(device).manual_seed(0))
    reconstruction, kl = vae_loss(images, model.decode(z), mu, logvar, config.kl_tolerance)
    return {"held_out_reconstruction": reconstruction.item(), "held_out_kl": kl.item()}


# --- encode -----------------------------------------------------------------------------------

ENCODE_BATCH = 500
"""Frames that V looks at together."""


@torch.no_grad()
def encode_episodes(
    episodes: Path,
    latents: Path,
    model: VAE,
    *,
    precision: Precision = "auto",
    device: Device = "auto",
    on_shard: Callable[[int], None] = lambda frames: None,
) -> None:
    """Write V's mu and logvar of every frame, for each shard that `latents` does not hold yet.

    Actions and rewards are copied beside them: M's training reads nothing else.

    Args:
        episodes: folder of episode shards.
        latents: folder of latent shards, made if absent.
        model: V.
        precision: of the convolutions.
        device: see `VAEConfig`.
        on_shard: called with the number of frames of each finished shard.

    Raises:
        ValueError: no episodes.
    """
    shards = data.finished_shards(episodes)
    if not shards:
        raise ValueError(f"{episodes}: no episodes; run the stage `collect` first")
    done = set(data.finished_shards(latents, ".safetensors"))
    where = choose_device(device)
    bf16 = products_in_bf16(precision, where)
    if where.type != "cpu":
        model = copy.deepcopy(model).to(where)  # the caller's stays where it is
    for shard in shards:
        if shard in done:
            continue
        mus, logvars, actions, rewards, lengths, terminated = [], [], [], [], [], []
        for episode in data.read_episodes(episodes, shard):
            # A whole episode's activations would be gigabytes.
            for frames in torch.split(torch.from_numpy(episode.frames), ENCODE_BATCH):
                with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
                    mu, logvar = model.encode(_move(frames, where))
                mus.append(mu.half().cpu().numpy())
                logvars.append(logvar.half().cpu().numpy())
            actions.append(episode.actions)
            rewards.append(episode.rewards)
            lengths.append(len(episode))
            terminated.append(episode.terminated)
        data.write_latents(
            latents,
            shard,
            data.Latents(
                mu=np.concatenate(mus),
                logvar=np.concatenate(logvars),
                actions=np.concatenate(actions),
                lengths=np.asarray(lengths),
                terminated=np.asarray(terminated),
                rewards=np.concatenate(rewards),
            ),
        )
        on_shard(sum(lengths))


# --- M ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequences:
    """A chunk of B sequences over T steps, sequence-second as M takes them.

    Attributes:
        z: float32 (T, B, Z), drawn from V's distribution.
        action: float32 (T, B, A).
        restart: float32 (T, B), 1 on an episode's first step.
        next_z: float32 (T, B, Z).
        has_next: float32 (T, B), 0 on an episode's last step, whose next_z means nothing.
        done: float32 (T, B), 1 on a step that ended its episode.
        done_known: float32 (T, B), 0 where a time limit cut the episode.
        reward: float32 (T, B), the game's for this step's action, known on an episode's last step,
            too; None where the store has no rewards.
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
    """Where chunks are put together, and the latents there, unless they do not fit.

    Attributes:
        device: torch's.
        mu: float16 (N, Z), or None.
        logvar: likewise.
        actions: float32 (N, A), likewise.
        rewards: float32 (N,), likewise, or None where there are none.
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

    Row b of one chunk goes on in row b of the next, so that the LSTM's state carries over. What
    does not fill a row's last chunk is left out; another epoch deals it differently.

    Args:
        latents: all episodes.
        batch: B.
        chunk: T.
        seed: of the order and of the latents' noise.
        sample: whether z is drawn from V's distribution; else it is its mean.
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
            return there[_move(torch.from_numpy(at), device)].float()
        return _move(torch.from_numpy(values[at].astype(np.float32)), device)

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


class RNNLosses(NamedTuple):
    """M's losses on a chunk.

    Attributes:
        z: negative log-likelihood in nats, averaged over batch, time and dimension.
        done: cross-entropy with the ends weighted, averaged over steps; 0 where M predicts no end.
        reward: squared error of the reward, averaged over steps; 0 where M predicts none.
    """

    z: Tensor
    done: Tensor
    reward: Tensor


def mdn_rnn_loss(
    model: MDNRNN, chunk: Sequences, state: tuple[Tensor, Tensor] | None, config: RNNConfig
) -> tuple[RNNLosses, tuple[Tensor, Tensor]]:
    """Return the losses and the state after the chunk.

    Raises:
        ValueError: M predicts rewards, and the chunk has none.
    """
    output = model(chunk.z, chunk.action, state, chunk.restart)
    nll = mixture_nll(output, chunk.next_z).mean(-1)
    z_loss = (nll * chunk.has_next).sum() / chunk.has_next.sum().clamp_min(1)
    done_loss = reward_loss = z_loss.new_zeros(())
    if output.done_logit is not None:
        each = F.binary_cross_entropy_with_logits(
            output.done_logit,
            chunk.done,
            pos_weight=chunk.done.new_full((), config.done_weight),
            weight=chunk.done_known,
            reduction="sum",
        )
        done_loss = each / chunk.done_known.sum().clamp_min(1)
    if output.reward is not None:
        if chunk.reward is None:
            raise ValueError("chunk: M predicts rewards, and these sequences have none")
        # Rewards are sparse (a new tile of CarRacing's track), and a return is the sum of their
        # means: only a squared error is least at the mean.
        reward_loss = F.mse_loss(output.reward, limited(chunk.reward, config))
    losses = RNNLosses(z_loss, done_loss, reward_loss)
    return losses, (output.h.detach(), output.c.detach())


def limited(reward: Tensor, config: RNNConfig) -> Tensor:
    """Return rewards as M learns them; see `RNNConfig.reward_limit`."""
    if config.reward_limit is None:
        return reward
    return reward.clamp(-config.reward_limit, config.reward_limit)


def train_mdn_rnn(
    latents: Path,
    checkpoint: Path,
    config: RNNConfig,
    *,
    seed: int,
    start: MDNRNN | None = None,
    on_step: OnStep = lambda step, metrics: None,
) -> MDNRNN:
    """Train M on the latents, or go on from `checkpoint`.

    Reports (z loss in nats per dimension, done loss, and reward loss where M predicts rewards, on
    training and held-out sequences) go to `on_step` and to the log beside the checkpoint,
    `*.log.jsonl`.

    Args:
        latents: folder of latent shards.
        checkpoint: file of the training's state, made if absent.
        config: see `RNNConfig`.
        seed: the run's seed.
        start: an M of the same sizes whose weights are the first ones; None for fresh ones. If it
            predicts no reward and this M does, the reward's begin at 0.
        on_step: called after every step with the metrics known so far.

    Raises:
        ValueError: no latents, fewer steps than sequences in a batch, or a store without the
            rewards that M is to predict.
        FloatingPointError: the loss is not finite.
    """
    shards = data.finished_shards(latents, ".safetensors")
    if not shards:
        raise ValueError(f"{latents}: no latents; run the stage `encode` first")
    training_shards, held_out_shards = data.split_held_out(shards)
    training = data.read_latents(latents, training_shards)
    held_out = data.read_latents(latents, held_out_shards)
    if config.predicts_reward and (training.rewards is None or held_out.rewards is None):
        raise ValueError(
            f"{latents}: there are no rewards in here, which rnn.predicts_reward needs: an earlier "
            "version encoded these episodes; delete stages/encode.json and latents in the run's "
            "folder, and run the stage `encode` again"
        )
    seed = seed + config.seed_offset
    torch.manual_seed(seed)
    model = MDNRNN(
        training.mu.shape[1],
        training.actions.shape[1],
        config.hidden_dim,
        config.n_mixtures,
        config.predicts_done,
        config.predicts_reward,
    )
    if start is not None:
        go_on_from(model, start)
    device = choose_device(config.device)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    step = epoch = chunks_done = 0
    hidden: tuple[Tensor, Tensor] | None = None
    saved = _restore(checkpoint, model, optimizer)
    if saved is not None:
        step, epoch, chunks_done = saved["step"], saved["epoch"], saved["chunks_done"]
        if saved["hidden"] is not None:
            h, c = saved["hidden"]
            hidden = h.to(device), c.to(device)
    log = MetricsLog(checkpoint.with_suffix(".log.jsonl"), step)
    bf16 = products_in_bf16(config.precision, device)
    store = DeviceLatents.of(training, device)
    steps = config.epochs * steps_in_epoch(training, config)
    sample = config.latent == "sample"
    metrics: Metrics = {}
    recent: list[dict[str, float]] = []

    def save() -> None:
        save_checkpoint(
            checkpoint,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "epoch": epoch,
                "chunks_done": chunks_done,
                "hidden": hidden,
            },
        )

    while epoch < config.epochs:
        chunks = sequence_chunks(
            training, config.batch, config.chunk, seed=(seed, epoch), sample=sample, store=store
        )
        for position, chunk in enumerate(chunks):
            if position < chunks_done:
                continue
            for group in optimizer.param_groups:
                group["lr"] = cosine(config.learning_rate, config.final_learning_rate, step, steps)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                losses, hidden = mdn_rnn_loss(model, chunk, hidden, config)
            optimizer.zero_grad()
            loss = losses.z + losses.done
            if config.predicts_reward:
                loss = loss + config.reward_weight * losses.reward
            torch.autograd.backward(loss)
            nn.utils.clip_grad_value_(model.parameters(), config.gradient_clip)
            optimizer.step()
            step += 1
            chunks_done += 1
            recent = [*recent, _reported(losses, config)][-20:]
            metrics |= _means(recent)
            _check_finite("M", step, metrics)
            if step % config.checkpoint_every == 0:
                save()
            on_step(step, metrics)
        epoch += 1
        chunks_done = 0
        hidden = None
        metrics |= held_out_rnn_loss(model, held_out, config)
        log.write(step, metrics | {"epoch": float(epoch)})
        save()
    return model.cpu().eval()


def _reported(losses: RNNLosses, config: RNNConfig) -> Metrics:
    metrics = {"z_loss": losses.z.item(), "done_loss": losses.done.item()}
    return metrics | ({"reward_loss": losses.reward.item()} if config.predicts_reward else {})


def _means(rows: Sequence[Metrics]) -> Metrics:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@torch.no_grad()
def go_on_from(model: MDNRNN, start: MDNRNN) -> None:
    """Give M the weights of another one of the same sizes.

    If only M predicts rewards, it begins by predicting 0, and all else as the other does.

    Raises:
        ValueError: other sizes, or the other alone predicts rewards.
    """
    if start.predicts_reward or not model.predicts_reward:
        model.load_weights(start.weights())
        return
    without = MDNRNN(
        model.latent_dim,
        model.action_dim,
        model.hidden_dim,
        model.n_mixtures,
        model.predicts_done,
    ).load_weights(start.weights())
    row = int(model.predicts_done)  # the head's rows: done, reward, mixtures
    for name, parameter in model.named_parameters():
        other = without.get_parameter(name).to(parameter)
        if name.startswith("head."):
            parameter[:row] = other[:row]
            parameter[row] = 0
            parameter[row + 1 :] = other[row:]
        else:
            parameter.copy_(other)


def steps_in_epoch(latents: data.Latents, config: RNNConfig) -> int:
    """Return how many chunks one epoch has."""
    rows = (int(latents.lengths.sum()) - 1) // config.batch
    return max(1, rows // min(config.chunk, max(rows, 1)))


@torch.no_grad()
def held_out_rnn_loss(model: MDNRNN, latents: data.Latents, config: RNNConfig) -> Metrics:
    """Return M's losses on episodes that it was not trained on."""
    batch = min(config.batch, len(latents.lengths))
    seen: list[Metrics] = []
    state = None
    sample = config.latent == "sample"
    store = DeviceLatents.of(latents, model.bias.device)
    for chunk in sequence_chunks(
        latents, batch, config.chunk, seed=(0,), sample=sample, store=store
    ):
        losses, state = mdn_rnn_loss(model, chunk, state, config)
        seen.append(_reported(losses, config))
    return {f"held_out_{name}": value for name, value in _means(seen).items()}


def reward_variance(latents: data.Latents, config: RNNConfig) -> float:
    """Return the squared error that the mean of all rewards would have, as M learns them.

    Raises:
        ValueError: there are no rewards.
    """
    if latents.rewards is None:
        raise ValueError("latents: there are no rewards in here")
    return float(limited(torch.from_numpy(latents.rewards).double(), config).var(correction=0))


@torch.no_grad()
def calibrate_done(model: MDNRNN, latents: Path, config: RNNConfig) -> DoneCalibration:
    """Fit the chance of an end to M's logit on episodes that it was not trained on.

    Raises:
        ValueError: M predicts no ends, or there are too few held-out ones to fit anything.
    """
    if not model.predicts_done:
        raise ValueError("model: expected an M that predicts ends (predicts_done=True)")
    _, shards = data.split_held_out(data.finished_shards(latents, ".safetensors"))
    held_out = data.read_latents(latents, shards)
    batch = min(config.batch, len(held_out.lengths))
    state = None
    logits, ends = [], []
    for chunk in sequence_chunks(
        held_out, batch, config.chunk, seed=(0,), sample=config.latent == "sample"
    ):
        output = model(chunk.z, chunk.action, state, chunk.restart)
        state = (output.h, output.c)
        known = chunk.done_known > 0
        logits.append(output.done_logit[known])
        ends.append(chunk.done[known])
    return fit_done(torch.cat(logits).numpy(), torch.cat(ends).numpy(), config.done_weight)

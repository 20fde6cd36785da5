"""The stage `train-rnn`."""

from __future__ import annotations

from typing import Any

from worldmodels_fast import data
from worldmodels_fast.experiments.run import Run, save_weights
from worldmodels_fast.training.calibration import calibrate_done
from worldmodels_fast.training.checkpoint import load_checkpoint
from worldmodels_fast.training.mdn_rnn import reward_variance, train_mdn_rnn
from worldmodels_fast.training.sequences import steps_in_epoch
from worldmodels_fast.utils.progress import StageProgress


def stage_train_rnn(run: Run) -> dict[str, Any]:
    """Train M on the latents; in a further round it goes on from that of the first."""
    base = run.base()
    checkpoint = run.folder / "mdn_rnn.checkpoint"
    before = load_checkpoint(checkpoint)
    done = before["step"] if before else 0
    config = run.config.rnn
    training, _ = data.split_held_out(data.finished_shards(run.latents, ".safetensors"))
    total = config.epochs * steps_in_epoch(data.read_latents(run.latents, training), config)
    last: dict[str, float] = {}
    with StageProgress("train-rnn", total, "batches", done) as progress:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            progress.update(step, metrics)

        model = train_mdn_rnn(
            run.latents,
            checkpoint,
            config,
            seed=run.config.seed,
            start=base.load_mdn_rnn() if base else None,
            on_step=on_step,
        )
    save_weights(model, run.folder / "mdn_rnn.safetensors")
    figures: dict[str, Any] = {**last}
    if config.predicts_reward:
        figures["held_out_reward_variance"] = reward_variance(run.held_out_latents(), config)
    if config.predicts_done:
        try:
            figures["death"] = calibrate_done(model, run.latents, config)._asdict()
        except ValueError as error:  # which matters only to who wants a calibrated death
            figures["death"] = {"none": str(error)}
    return figures

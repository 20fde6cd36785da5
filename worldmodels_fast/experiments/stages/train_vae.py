"""The stage `train-vae`."""

from __future__ import annotations

from typing import Any

from worldmodels_fast.experiments.run import Run, save_weights
from worldmodels_fast.training.checkpoint import load_checkpoint
from worldmodels_fast.training.vae import train_vae
from worldmodels_fast.utils.progress import StageProgress


def stage_train_vae(run: Run) -> dict[str, Any]:
    """Train V on the frames; a further round takes over that of the run it goes on from."""
    base = run.base()
    if base is not None:
        save_weights(base.load_vae(), run.folder / "vae.safetensors")
        return {"taken_from": str(base.folder)}
    checkpoint = run.folder / "vae.checkpoint"
    before = load_checkpoint(checkpoint)
    done = before["step"] if before else 0
    last: dict[str, float] = {}
    with StageProgress("train-vae", run.config.vae.steps, "batches", done) as progress:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            progress.update(step, metrics)

        model = train_vae(
            run.episodes, checkpoint, run.config.vae, seed=run.config.seed, on_step=on_step
        )
    save_weights(model, run.folder / "vae.safetensors")
    return last

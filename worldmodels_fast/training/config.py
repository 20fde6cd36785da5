"""Settings of the training of V and M."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from worldmodels_fast.utils.settings import SettingsCheck

Precision = Literal["auto", "fp32", "bf16"]


Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class VAEConfig:
    """Settings of V's training.

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
        device: "cuda" is torch's current CUDA device; "auto" is "cuda" where there is one.
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

    def check(self, prefix: str = "--vae.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("latent_dim", "steps", "batch", "checkpoint_every", low=1)
        check.integers("seed_offset", low=0)
        check.numbers("learning_rate", "final_learning_rate", above=0)
        check.numbers("reconstruction_weight", "kl_tolerance", "focus", low=0)
        check.choice("precision", typing.get_args(Precision))
        check.choice("device", typing.get_args(Device))


@dataclass(frozen=True)
class RNNConfig:
    """Settings of M's training.

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
            of M's memory serves rewards.
        reward_limit: rewards beyond +- this count as this; None for no limit. A rare large one
            (CarRacing's -100 for leaving the field) would decide the squared error.
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

    def check(self, prefix: str = "--rnn.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("hidden_dim", "n_mixtures", "epochs", "batch", "chunk", low=1)
        check.integers("checkpoint_every", low=1)
        check.integers("seed_offset", low=0)
        check.numbers("learning_rate", "final_learning_rate", "gradient_clip", above=0)
        check.numbers("done_weight", "reward_weight", above=0)
        check.numbers("reward_limit", above=0, or_none=True)
        check.choice("precision", typing.get_args(Precision))
        check.choice("latent", ("sample", "mu"))
        check.choice("device", typing.get_args(Device))

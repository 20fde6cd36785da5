"""Settings of dreams; the package's only defaults of temperature and most steps."""

from __future__ import annotations

from dataclasses import dataclass

from worldmodels_fast.ops.types import PRECISIONS
from worldmodels_fast.utils.settings import SettingsCheck


@dataclass(frozen=True)
class DreamConfig:
    """How a run dreams: while C is evolved, and wherever dream and game are compared.

    Attributes:
        temperature: tau; more is noisier, and harder to exploit (paper: 1.15). The stages
            `fidelity` and `quality` dream at 1.
        max_steps: steps after which a dream ends.
        done_threshold: of M's done logit, above which a dream ends (paper: 0).
        done_temperature: 0 for the paper's rule, logit > threshold; above 0 an end is drawn, with
            probability sigmoid((logit - done_threshold) / done_temperature).
        calibrated: both are taken from the fit to held-out episodes that follows M's training (see
            `training.calibration`), so that a dream is as deadly as M knows the game to be.
        precision: of the matrix products while C is evolved, "fp32", "bf16", "int8", or "auto" and
            "fastest", which are bf16 and int8 where the machine has instructions for it.
        device: where C's dreams are computed, "cpu", "cuda" or "cuda:1"; "auto" in `precision` is
            fp16 there.
    """

    temperature: float = 1.15
    max_steps: int = 2100
    done_threshold: float = 0.0
    done_temperature: float = 0.0
    calibrated: bool = False
    precision: str = "fp32"
    device: str = "cpu"

    def check(self, prefix: str = "--dream.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with.
        """
        check = SettingsCheck(self, prefix)
        check.numbers("temperature", above=0)
        check.integers("max_steps", low=1)
        check.numbers("done_threshold")
        check.numbers("done_temperature", low=0)
        check.choice("precision", PRECISIONS)
        check.device()


DREAM_DEFAULTS = {
    name: getattr(DreamConfig, name)
    for name in ("temperature", "max_steps", "done_threshold", "done_temperature")
}
"""Settings of a `Dream` that a world's config.json may leave out."""

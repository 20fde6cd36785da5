"""V on held-out frames."""

from __future__ import annotations

from typing import Any

from worldmodels_fast.evaluation.quality.dreaming import decode
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.prediction import USED_NATS, frame_error, kl_by_dimension
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.world.world import World


def seeing(
    world: World, held_out: HeldOut, z: Floats, real: Frames, seen: Frames
) -> dict[str, Any]:
    """Return V's reconstruction error and KL, as in its loss, and the nats of each dimension.

    Args:
        world: V.
        held_out: the episodes.
        z: (n, Z), drawn from V's distribution for n of their frames, as in training.
        real: uint8 (n, 64, 64, 3), those frames.
        seen: the same, V's pictures of its means for them.
    """
    kl = kl_by_dimension(held_out.mu, held_out.logvar)
    return {
        "frames": len(real),
        "reconstruction": frame_error(decode(world.vae, z), real),
        "reconstruction_of_mean": frame_error(seen, real),
        "unconditional": frame_error(real.mean(0)[None], real),
        "kl": float(kl.sum()),
        "dimensions": len(kl),
        "dimensions_used": int((kl >= USED_NATS).sum()),
        "kl_by_dimension": sorted((float(k) for k in kl), reverse=True),
    }

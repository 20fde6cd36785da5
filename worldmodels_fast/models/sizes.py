"""Whether V, M and C fit together; modules, their weights and C's specification alike."""

from __future__ import annotations

from typing import Any

__all__ = ["check_sizes"]

_SIZES = ("latent_dim", "hidden_dim", "action_dim")


def check_sizes(vae: Any = None, mdn_rnn: Any = None, controller: Any = None) -> None:
    """Check that V, M and C have the same sizes, and that C sees h and c only if there is an M.

    Args:
        vae: `VAE` or `VAEEncoderWeights`; None for no V.
        mdn_rnn: `MDNRNN` or `MDNRNNWeights`; None for no M.
        controller: `LinearController` or `ControllerSpec`; None for no C.

    Raises:
        ValueError: they do not fit together.
    """
    controller = getattr(controller, "spec", controller)
    if mdn_rnn is None and (seen := {"h", "c"} & set(getattr(controller, "features", ()))):
        raise ValueError(
            f"mdn_rnn: the controller sees {' and '.join(sorted(seen))}, M's memory; "
            "expected an MDNRNN, got None"
        )
    parts = {"vae": vae, "mdn_rnn": mdn_rnn, "controller": controller}
    if mdn_rnn is None:  # then C's hidden_dim and action_dim are its own affair
        sizes: tuple[str, ...] = ("latent_dim",)
    else:
        sizes = _SIZES
    for size in sizes:
        found = {name: getattr(part, size) for name, part in parts.items() if hasattr(part, size)}
        if len(set(found.values())) > 1:
            *first, last = found.values()
            raise ValueError(
                f"{', '.join(found)}: expected the same {size}, "
                f"got {', '.join(map(str, first))} and {last}"
            )

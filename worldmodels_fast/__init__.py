"""World Models (Ha & Schmidhuber, 2018), fast: V sees, M dreams, C is evolved in the dream.

>>> import worldmodels_fast as wmf
>>> world = wmf.load_pretrained("take-cover")
>>> dream = wmf.Dream(world.mdn_rnn, world.controller, world.initial_latents, temperature=1.15)
>>> result = dream.evaluate(population, rollouts=16, seed=0)  # (P, n_params) -> (P, 16)

Importing the package registers its environments with Gymnasium. Everything else is imported when it
is first used: a process that only steps environments, or only plays, does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worldmodels_fast import envs, ops

if TYPE_CHECKING:
    from worldmodels_fast.agent import Agent, World
    from worldmodels_fast.controller import LinearController
    from worldmodels_fast.dream import Dream, DreamResult
    from worldmodels_fast.mdn_rnn import MDNRNN
    from worldmodels_fast.pretrained import load_pretrained
    from worldmodels_fast.rollout import Game, GameResult
    from worldmodels_fast.vae import VAE

__version__ = "0.1.0"

__all__ = [
    "MDNRNN",
    "VAE",
    "Agent",
    "Dream",
    "DreamResult",
    "Game",
    "GameResult",
    "LinearController",
    "World",
    "envs",
    "load_pretrained",
    "ops",
]

_HOME = {
    "Agent": "agent",
    "Dream": "dream",
    "DreamResult": "dream",
    "Game": "rollout",
    "GameResult": "rollout",
    "LinearController": "controller",
    "MDNRNN": "mdn_rnn",
    "VAE": "vae",
    "World": "agent",
    "load_pretrained": "pretrained",
}
"""The module of each name that is imported at its first use."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

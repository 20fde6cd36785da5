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
    from worldmodels_fast.dream.dream import Dream, DreamResult
    from worldmodels_fast.models.controller import LinearController
    from worldmodels_fast.models.mdn_rnn import MDNRNN
    from worldmodels_fast.models.vae import VAE
    from worldmodels_fast.rollout.game import Game, GameResult
    from worldmodels_fast.world.agent import Agent
    from worldmodels_fast.world.pretrained import load_pretrained
    from worldmodels_fast.world.world import World

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
    "Agent": "world.agent",
    "Dream": "dream.dream",
    "DreamResult": "dream.dream",
    "Game": "rollout.game",
    "GameResult": "rollout.game",
    "LinearController": "models.controller",
    "MDNRNN": "models.mdn_rnn",
    "VAE": "models.vae",
    "World": "world.world",
    "load_pretrained": "world.pretrained",
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

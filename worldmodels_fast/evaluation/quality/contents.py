"""What frames of a game show: measured by a module of the game's own.

`EnvironmentSpec.contents` names the module. It has `plan`, `tables` and `figure`, see
`ContentsModule`; `take_cover` is the one that there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from worldmodels_fast import envs
from worldmodels_fast.types import Floats, Frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from worldmodels_fast.dream.dream import Dream
    from worldmodels_fast.evaluation.quality.config import QualityConfig
    from worldmodels_fast.evaluation.quality.held_out import HeldOut
    from worldmodels_fast.world.world import World

__all__ = [
    "ContentsModule",
    "Material",
    "Plan",
    "SeedOf",
    "Table",
    "contents_module",
    "contents_of",
    "environment_of",
]

Table = tuple[list[str], list[list[str]]]
"""Head and rows."""

SeedOf = Callable[[str], int]
"""The seed of a measurement, by its name."""


@dataclass(frozen=True)
class Material:
    """Inputs of a game's measurement.

    Attributes:
        world: V, M, where dreams begin and when they end.
        dream: the world's, at temperature 1.
        held_out: episodes that neither V nor M was trained on.
        z: (N, Z) float32, the latents of their tics.
        memory: h, c (W, H) of M before each of W tics of `Plan.tics`.
        real: uint8 (F, 64, 64, 3), frames of the game.
        seen: V's pictures of them, the same shape.
        policies: the open-loop policies of the held-out episodes.
        config: sizes of the measurements.
        seed_of: see `SeedOf`.
        on_part: to be called with the name of each part that is done.
    """

    world: World
    dream: Dream
    held_out: HeldOut
    z: Floats
    memory: Callable[[Any], tuple[Floats, Floats]]
    real: Frames
    seen: Frames
    policies: tuple[str, ...]
    config: QualityConfig
    seed_of: SeedOf
    on_part: Callable[[str], None]


class Plan(Protocol):
    """A measurement of held-out episodes, chosen and not yet made.

    Attributes:
        tics: tics of the held-out episodes before which M's memory is needed.
    """

    tics: list[int]

    def measure(self, material: Material) -> dict[str, Any]:
        """Return the measurements as JSON."""


class ContentsModule(Protocol):
    """A module that measures what frames of one game show."""

    def plan(self, held_out: HeldOut, seed_of: SeedOf) -> Plan:
        """Return the measurement of these episodes."""

    def tables(self, contents: dict[str, Any]) -> list[Table]:
        """Return the tables of a measurement."""

    def figure(self, contents: dict[str, Any]) -> Figure:
        """Return the figure of a measurement."""


def contents_module(environment: str | None) -> ContentsModule | None:
    """Return the module of an environment of `envs.ENVIRONMENTS`; None if it has none."""
    spec = envs.ENVIRONMENTS.get(environment or "")
    if spec is None or spec.contents is None:
        return None
    return cast(ContentsModule, import_module(spec.contents))


def contents_of(result: dict[str, Any]) -> tuple[ContentsModule, dict[str, Any]] | None:
    """Return the module and the measurement that quality.json holds; None if it holds none."""
    environment = environment_of(result)
    module = contents_module(environment)
    contents = result.get("contents", result.get(_earlier_key(environment or "")))
    return None if module is None or contents is None else (module, contents)


def environment_of(result: dict[str, Any]) -> str | None:
    """Return the name of the environment that quality.json is about; None if it states none."""
    if result.get("environment"):
        return str(result["environment"])
    return next((name for name in envs.ENVIRONMENTS if _earlier_key(name) in result), None)


def _earlier_key(environment: str) -> str:
    """Return the key of "contents" in files written before there was this key."""
    return environment.replace("-", "_")

"""All recipes by name.

A new experiment is a function in `take_cover.py` or `car_racing.py` and a row here; its name on the
command line is the function's. Single settings can be overridden on the command line.
"""

from __future__ import annotations

from collections.abc import Callable

from worldmodels_fast.experiments.config import RunConfig
from worldmodels_fast.experiments.recipes.car_racing import (
    car_racing_dream,
    car_racing_paper,
    car_racing_quick,
    car_racing_smoke,
    car_racing_untrained_m,
    car_racing_z_hidden,
    car_racing_z_only,
)
from worldmodels_fast.experiments.recipes.take_cover import (
    take_cover_fp32,
    take_cover_mu,
    take_cover_paper,
    take_cover_quick,
    take_cover_second_round,
    take_cover_smoke,
    take_cover_untrained_m,
    take_cover_z_only,
)


def _by_name(*functions: Callable[..., RunConfig]) -> dict[str, Callable[..., RunConfig]]:
    return {function.__name__.replace("_", "-"): function for function in functions}


ABLATIONS: dict[str, Callable[[RunConfig | None], RunConfig]] = _by_name(
    take_cover_z_only,
    take_cover_untrained_m,
    take_cover_mu,
    take_cover_fp32,
    car_racing_z_only,
    car_racing_z_hidden,
    car_racing_untrained_m,
)
"""Recipes that change one thing of another run, by default of the game's quick one."""


ROUNDS: dict[str, Callable[[RunConfig | None], RunConfig]] = _by_name(
    take_cover_second_round, car_racing_dream
)
"""Recipes that go on from another run's world, by default from that of the game's quick one."""


OF_ANOTHER_RUN = {**ABLATIONS, **ROUNDS}


RECIPES: dict[str, Callable[..., RunConfig]] = {
    **_by_name(take_cover_smoke, take_cover_quick, take_cover_paper),
    **_by_name(car_racing_smoke, car_racing_quick, car_racing_paper),
    **OF_ANOTHER_RUN,
}


def make_recipe(name: str, base: RunConfig | None = None) -> RunConfig:
    """Return the recipe of that name.

    Args:
        name: see `RECIPES`.
        base: the run that an ablation changes or a further round goes on from; other recipes are
            not of it.

    Raises:
        ValueError: no such recipe; the message lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return OF_ANOTHER_RUN[name](base) if name in OF_ANOTHER_RUN else RECIPES[name]()

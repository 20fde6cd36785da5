"""Changes that ablations of both games make to another run's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from worldmodels_fast.evolution.cma import EvolveConfig
from worldmodels_fast.experiments.config import RunConfig


def another_controller(base: RunConfig, recipe: str, **controller: Any) -> RunConfig:
    """Return `base` with other settings of its controller, under the name of another recipe."""
    changed = dataclasses.replace(base.controller, **controller)
    return dataclasses.replace(base, recipe=recipe, controller=changed)


def wider_first_step(base: RunConfig) -> EvolveConfig:
    """Return `base.evolve` with a larger first step, for a C that sees z alone.

    In units of the features, each of them adds the same to an action: 32 add a third of 288's sum,
    and far less before a second layer, whose weights are not in these units.
    """
    if base.controller.search == "plain":
        return base.evolve
    return dataclasses.replace(base.evolve, sigma0=0.1)

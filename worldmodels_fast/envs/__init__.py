"""The real environments, as Gymnasium environments whose frames are V's, 64x64.

One file per environment, one row per environment in `registry`. Importing this package registers
them all; nothing heavy (ViZDoom, Box2D) is imported before an environment is made.
"""

from worldmodels_fast.envs.registry import (
    CAR_RACING_ENV_ID,
    DEFAULT_ENVIRONMENT,
    DREAM_ENV_ID,
    ENVIRONMENTS,
    FRAME_SIZE,
    EnvironmentSpec,
    make_environment,
    register_environments,
    spec_of,
)

__all__ = [
    "CAR_RACING_ENV_ID",
    "DEFAULT_ENVIRONMENT",
    "DREAM_ENV_ID",
    "ENVIRONMENTS",
    "FRAME_SIZE",
    "EnvironmentSpec",
    "make_environment",
    "register_environments",
    "spec_of",
]

register_environments()

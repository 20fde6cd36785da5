"""The real environments, as Gymnasium environments that show V its 64x64 frames.

One file per environment, one row per environment in `registry`. Importing this package registers
them all; nothing heavy (ViZDoom, Box2D) is imported before an environment is made.
"""

from worldmodels_fast.envs.registry import (
    CAR_RACING_ENV_ID,
    DREAM_ENV_ID,
    ENVIRONMENTS,
    FRAME_SIZE,
    EnvironmentSpec,
    register_environments,
    spec_of,
)

__all__ = [
    "CAR_RACING_ENV_ID",
    "DREAM_ENV_ID",
    "ENVIRONMENTS",
    "FRAME_SIZE",
    "EnvironmentSpec",
    "register_environments",
    "spec_of",
]

register_environments()

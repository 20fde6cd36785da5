"""CMA-ES, and what it searches in."""

from worldmodels_fast.evolution.cma import _Normals

__all__ = ["_Normals"]  # saved states of earlier versions name it here

"""Models for the tests of whole dreams, on the CPU and on CUDA."""

import pytest
from random_models import random_weights


@pytest.fixture(scope="module")
def doom_like():
    """Rollouts that end at very different times."""
    return random_weights(17, 1, 33, 3, True, seed=1, done_bias=-4.0)


@pytest.fixture(scope="module")
def rewarding():
    """The same with rewards."""
    return random_weights(17, 1, 33, 3, True, seed=1, done_bias=-4.0, reward=True)

"""Who takes part in a benchmark."""

import os

import pytest

from worldmodels_fast.bench.protocol.processes import Unavailable

THREADS = min(2, os.cpu_count() or 1)


def checked(make, *arguments):
    """What a contestant makes; the test is skipped, with the reason, where it cannot take part."""
    try:
        return make(*arguments)
    except Unavailable as why:
        pytest.skip(str(why))

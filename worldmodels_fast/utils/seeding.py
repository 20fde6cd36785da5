"""Seeds: independent streams derived from one seed."""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, stream: str, index: int = 0) -> int:
    """A 63-bit seed that depends on the run's seed, a stream's name and an index.

    Streams of different names are independent, so that what is scored never shares its noise
    with what was trained on.
    """
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), index])
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))

"""Seeds: independent streams derived from one seed."""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, stream: str, index: int = 0) -> int:
    """Return a 63-bit seed made of the run's seed, a stream's name and an index.

    Streams of different names are independent: an evaluation shares no noise with a training.
    """
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), index])
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))

import numpy as np
import pytest

from worldmodels_fast import _core, ops, reference

BACKENDS = ops.available_backends()

# Published with Random123 (kat_vectors, philox4x32-10): counter, key, words.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_known_answers(backend, counter, key, expected):
    key0, key1 = words(key)
    seed = key1 << 32 | key0
    # 37 copies: full vectors and a tail.
    counters = np.tile(np.array(words(counter), np.uint32), (37, 1))
    assert (_core.philox(counters, seed, backend) == words(expected)).all()
    assert (reference.philox(counters, seed) == words(expected)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_lane_is_its_own_counter(backend):
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (1000, 4), dtype=np.uint32)
    for seed in (0, 1, 2**32, 2**64 - 1, 0x0123456789ABCDEF):
        assert (_core.philox(counters, seed, backend) == reference.philox(counters, seed)).all()


def test_noise_is_uniform_and_normal_and_depends_on_every_counter_word():
    from scipy import stats

    uniform, normal = reference.noise(3, np.arange(500), 7, 64, reference.MIXTURE)
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(uniform.ravel(), normal.ravel())[0, 1]) < 0.03
    others = [
        reference.noise(4, np.arange(500), 7, 64, reference.MIXTURE),
        reference.noise(3, np.arange(500) + 500, 7, 64, reference.MIXTURE),
        reference.noise(3, np.arange(500), 8, 64, reference.MIXTURE),
        reference.noise(3, np.arange(500), 7, 64, reference.INITIAL_LATENT),
    ]
    for _, other in others:
        assert abs(np.corrcoef(normal.ravel(), other.ravel())[0, 1]) < 0.03


def test_the_extremes_of_the_words_give_finite_noise():
    # u1 = 2^-24 and u1 = 1 are the ends of what the logarithm sees.
    largest = np.sqrt(-2 * np.log(2.0**-24))
    assert largest == pytest.approx(5.77, abs=0.01)
    _, normal = reference.noise(0, np.arange(2000), 0, 64, reference.MIXTURE)
    assert np.abs(normal).max() < largest

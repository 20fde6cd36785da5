"""The bounds that csrc/core/vector_math.h states, over the whole float32 range."""

import numpy as np
import pytest
from backends import LEVELS

from worldmodels_fast import _core

TINY = np.finfo(np.float32).tiny


def sigmoid(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


# name: float64 function, stated bound in ulp of the result (at least the smallest normal's)
FUNCTIONS = {
    "exp": (np.exp, 2.0),
    "log": (np.log, 2.0),
    "tanh": (np.tanh, 3.0),
    "sigmoid": (sigmoid, 3.0),
}


def every_512th_float():
    """8.4 million floats: all signs and exponents, denormals, infinities, NaNs."""
    bits = np.arange(0, 2**32, 512, dtype=np.uint64)
    return np.concatenate([bits, bits + 511]).astype(np.uint32).view(np.float32)


def interesting_floats():
    """Dense where the functions bend."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [
            np.linspace(-110, 110, 400_001),
            np.linspace(-1, 1, 200_001),
            rng.normal(size=200_000),
            np.exp(rng.uniform(-88, 88, 200_000)),
            np.float32(1) + np.arange(-3000, 3000) * np.float32(2**-24),
        ]
    ).astype(np.float32)


def error_in_ulp(got, expected):
    """Distance in units of the last place of the exact result."""
    with np.errstate(all="ignore"):
        rounded = np.abs(expected).astype(np.float32)
        ulp = np.spacing(np.maximum(rounded, TINY)).astype(np.float64)
        return np.abs(got.astype(np.float64) - expected) / ulp


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_bound_over_the_full_range(name):
    function, bound = FUNCTIONS[name]
    backend = LEVELS[-1]  # the others give the same bits: next test
    for x in (every_512th_float(), interesting_floats()):
        got = _core.vector_math(name, x, backend)
        with np.errstate(all="ignore"):
            expected = function(x.astype(np.float64))
            as_float32 = expected.astype(np.float32)
        # NaN exactly where it belongs, infinities and signs of zero as well.
        assert (np.isnan(got) == np.isnan(expected)).all()
        infinite = np.isinf(as_float32) | np.isinf(got)
        edge = infinite & (np.abs(expected) < np.inf)  # rounds to infinity or to the largest float
        assert (got[infinite & ~edge] == as_float32[infinite & ~edge]).all()
        assert (np.abs(got[edge]) > 3.4e38).all()
        finite = np.isfinite(expected) & ~infinite
        if name == "sigmoid":  # exp(-x) is infinite a little early
            small = finite & (expected < TINY)
            assert np.abs(got[small] - expected[small]).max() < 5e-39
            finite &= ~small
        assert error_in_ulp(got[finite], expected[finite]).max() <= bound
        zero = (x == 0) & (name == "tanh")
        assert (np.signbit(got[zero]) == np.signbit(x[zero])).all()


@pytest.mark.parametrize("backend", LEVELS)
@pytest.mark.parametrize(("name", "function"), [("gate_sigmoid", sigmoid), ("gate_tanh", np.tanh)])
def test_absolute_error_of_the_gates(name, function, backend):
    for x in (every_512th_float(), interesting_floats()):
        got = _core.vector_math(name, x, backend)
        with np.errstate(all="ignore"):
            expected = function(x.astype(np.float64))
        known = np.isfinite(x)
        assert np.abs(got[known] - expected[known]).max() < 2e-7
        infinite = np.isinf(x)
        assert np.abs(got[infinite] - expected[infinite]).max() < 1e-30 if infinite.any() else True
    assert np.isnan(_core.vector_math(name, np.full(20, np.nan, np.float32), backend)).all()


def test_cos_2pi_error_bound_on_all_that_the_noise_can_ask():
    u = (np.arange(2**24 + 1) * 2.0**-24).astype(np.float32)
    got = _core.vector_math("cos_2pi", u, LEVELS[-1])
    assert np.abs(got - np.cos(2 * np.pi * u.astype(np.float64))).max() < 2.5e-7
    assert got[0] == 1
    assert got[2**22] == 0
    assert got[2**23] == -1


@pytest.mark.parametrize("name", [*FUNCTIONS, "cos_2pi"])
def test_bitwise_equal_on_every_backend(name):
    x = np.concatenate([every_512th_float()[::7], interesting_floats()])
    if name == "cos_2pi":
        x = np.random.default_rng(0).uniform(0, 1, 1_000_001).astype(np.float32)
    expected = _core.vector_math(name, x, "generic").view(np.uint32)
    nan = np.isnan(expected.view(np.float32))  # which NaN it is does not matter
    for backend in LEVELS:
        got = _core.vector_math(name, x, backend).view(np.uint32)
        assert ((got == expected) | nan).all()


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_monotone_where_it_matters(name):
    x = np.linspace(-12, 12, 100_001).astype(np.float32)
    y = _core.vector_math(name, x, LEVELS[-1]).astype(np.float64)
    assert (np.diff(y) >= -2e-7 * np.abs(y[1:])).all()


def test_unknown_function_is_named():
    with pytest.raises(ValueError, match=r"name: expected 'exp'.*got 'sin'"):
        _core.vector_math("sin", np.zeros(3, np.float32), "generic")

import re

import numpy as np
import pytest

from worldmodels_fast.utils.arguments import checked_choice, checked_integer, checked_number


@pytest.mark.parametrize("value", [3, np.int8(3), np.int64(3), np.uint64(3), np.array(3)])
def test_integers_of_python_and_numpy(value):
    number = checked_integer("n", value, low=1)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [2.5, 2.0, True, np.True_, "3", None, np.float32(1), [1]])
def test_what_is_no_integer_is_a_type_error(value):
    with pytest.raises(TypeError, match=re.escape(f"n: expected an integer, got {value!r}")):
        checked_integer("n", value, low=0)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"low": 1}, "n: expected at least 1, got 0"),
        (np.int64(-1), {"low": 0}, "n: expected at least 0, got -1"),
        (2**31, {"low": 1}, "n: expected 1 <= n < 2147483648, got 2147483648"),
        (-1, {"low": 0, "high": 5}, "n: expected 0 <= n < 5, got -1"),
        (5, {"low": 0, "high": 5}, "n: expected 0 <= n < 5, got 5"),
    ],
)
def test_an_integer_out_of_range_is_a_value_error(value, bounds, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked_integer("n", value, **bounds)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0)])
def test_numbers_of_python_and_numpy(value):
    number = checked_number("x", value, low=1, high=1)
    assert number == 1.0
    assert type(number) is float


@pytest.mark.parametrize("value", [True, np.False_, "1", b"1", None, [1.0, 2.0], 1j])
def test_what_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="x: expected a finite number, got "):
        checked_number("x", value)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (float("nan"), {}, "x: expected a finite number, got nan"),
        (np.inf, {"low": 0}, "x: expected a finite number from 0, got inf"),
        (10**400, {}, "x: expected a finite number, got 1000"),
        (0, {"above": 0}, "x: expected a finite number above 0, got 0"),
        (-0.5, {"low": 0, "high": 1}, "x: expected a finite number from 0 up to 1, got -0.5"),
        (1.5, {"above": 0, "high": 1}, "x: expected a finite number above 0 up to 1, got 1.5"),
    ],
)
def test_a_number_out_of_range_is_a_value_error(value, bounds, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked_number("x", value, **bounds)


def test_choices():
    assert checked_choice("mode", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match=re.escape("mode: expected 'a', 'b' or 'c', got 'd'")):
        checked_choice("mode", "d", ("a", "b", "c"))
    with pytest.raises(ValueError, match=re.escape("mode: expected 'a', got 1")):
        checked_choice("mode", 1, ("a",))

"""The line from M's done logit to the chance of an end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels_fast.training.calibration import fit_done


def drawn(threshold, temperature, n=200_000, seed=0):
    """Logits, and ends that come as often as this calibration says."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-6, 3, n)
    return logit, rng.random(n) < 1 / (1 + np.exp((threshold - logit) / temperature))


@settings(max_examples=20, deadline=None)
@given(st.floats(-1, 4), st.floats(0.6, 3))
def test_a_known_calibration_is_found(threshold, temperature):
    fit = fit_done(*drawn(threshold, temperature), done_weight=10.0)
    assert fit.threshold == pytest.approx(threshold, abs=0.25)
    assert fit.temperature == pytest.approx(temperature, rel=0.1)


def test_as_many_ends_are_expected_as_there_are():
    logit, done = drawn(1.0, 1.7, n=5000)
    fit = fit_done(logit, done, done_weight=10.0)
    p = 1 / (1 + np.exp((fit.threshold - logit) / fit.temperature))
    assert p.sum() == pytest.approx(done.sum(), rel=1e-3)  # of every maximum of the likelihood


def test_ends_that_are_told_apart_without_an_error_give_a_finite_line():
    logit = np.array([-9.0, -8.0, -7.0, 3.0, 4.0])
    fit = fit_done(logit, logit > 0, done_weight=10.0)
    assert np.isfinite(fit).all()
    assert fit.temperature > 0


@pytest.mark.parametrize(
    ("logit", "done", "message"),
    [
        (np.zeros(3), np.zeros(2), r"got \(3,\) and \(2,\)"),
        (np.zeros(3), np.zeros(3), "got 0/3"),
        (np.zeros(3), np.ones(3), "got 3/3"),
        (np.array([0.0, np.nan]), np.array([0, 1]), "finite"),
        (np.array([3.0, 2.0, -4.0, -5.0]), np.array([0, 0, 1, 1]), "does not rise"),
    ],
)
def test_data_that_fit_nothing_are_named(logit, done, message):
    with pytest.raises(ValueError, match=message):
        fit_done(logit, done, done_weight=1.0)

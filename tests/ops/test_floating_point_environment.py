"""No call may leave rounding or the treatment of denormals changed for the rest of the program."""

import ctypes
import ctypes.util
import platform

import numpy as np
import pytest
from backends import LEVELS
from random_models import normals, random_spec, random_weights

from worldmodels_fast import ops

STATUS_FLAGS = 0x3F  # "something was inexact", and the like: these a call may set


def mxcsr():
    """The register that controls SSE and AVX arithmetic, as fegetenv sees it."""
    environment = (ctypes.c_uint32 * 8)()  # glibc's fenv_t on x86-64; MXCSR is its last word
    assert ctypes.CDLL(ctypes.util.find_library("m")).fegetenv(environment) == 0
    return environment[7]


def call_everything(backend, precision):
    weights = random_weights(9, 2, 21, 3, True)
    model = ops.pack_mdn_rnn(weights, backend=backend, precision=precision)
    z, h = 1e-39 * normals(0, 50, 9), 1e-39 * normals(1, 50, 21)  # denormals on their way through
    step = ops.mdn_rnn_step(model, z, z[:, :2].copy(), h, h, threads=2)
    ops.mixture_sample(step.logmix, step.mu, step.logstd, 1e-38, backend=backend)
    spec = random_spec(weights)
    params = normals(2, 5, spec.n_params)
    ops.controller_forward(spec, params, z, h, h, backend=backend)
    settings = {"rollouts": 20, "seed": 0, "temperature": 1.0, "max_steps": 5}
    for threads in (1, 2):
        ops.dream_rollout(model, spec, params, z, z, **settings, threads=threads)
    ops.peak_rate(precision, backend=backend, seconds=0.001)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or platform.libc_ver()[0] != "glibc",
    reason="reads MXCSR by way of glibc on x86-64",
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("backend", LEVELS)
def test_control_bits_stay(backend, precision):
    before = mxcsr() & ~STATUS_FLAGS
    call_everything(backend, precision)
    assert mxcsr() & ~STATUS_FLAGS == before


@pytest.mark.parametrize("backend", LEVELS)
def test_denormals_and_rounding_to_even_stay(backend):
    call_everything(backend, "bf16")
    tiny = np.full(16, 1e-38, np.float32)
    assert (tiny * np.float32(0.1) > 0).all()
    one, half_ulp = np.ones(16, np.float32), np.float32(2**-24)
    assert (one + half_ulp == 1).all()
    assert (one * np.float32(1 + 2**-23) + half_ulp == np.float32(1 + 2**-22)).all()

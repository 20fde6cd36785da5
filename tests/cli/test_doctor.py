"""`worldmodels-fast doctor` says why CUDA is off as the error of forcing it does."""

import numpy as np
import pytest

from worldmodels_fast import ops
from worldmodels_fast.cli import doctor
from worldmodels_fast.utils.progress import console


def report():
    with console.capture() as capture:
        works = doctor.check_machine()
    return works, " ".join(capture.get().split())


@pytest.mark.skipif(not ops.why_no_cuda(), reason="CUDA can be used here")
def test_without_cuda_it_says_why():
    why = ops.why_no_cuda()
    works, text = report()
    assert works, text  # it is no fault of the installation
    assert f"-- CUDA: {why}" in text
    status = ops.cuda_status()
    assert status["reason"] == why
    assert "cuda" not in ops.available_backends()
    zeros = np.zeros((1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="backend: 'cuda' cannot run here, because ") as refused:
        ops.mixture_sample(zeros, zeros, zeros, 1.0, backend="cuda")
    assert why in str(refused.value)
    with pytest.raises(ValueError, match="cannot run here") as refused:
        ops.to_device(zeros)
    assert why in str(refused.value)
    assert status["built"] or status["runtime"] == 0


@pytest.mark.gpu
@pytest.mark.skipif(bool(ops.why_no_cuda()), reason=f"no CUDA device: {ops.why_no_cuda()}")
def test_with_cuda_it_names_the_devices():
    works, text = report()
    assert works, text
    for device in ops.cuda_status()["devices"]:
        assert device["name"] in text
    assert "ok CUDA agrees with the CPU" in text

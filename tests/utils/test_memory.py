import subprocess
import sys

import numpy as np
import pytest

from worldmodels_fast.utils.memory import PeakMemory

HUNDRED_MB = 100_000_000


def test_a_peak_is_measured_for_each_block():
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        np.ones(2 * HUNDRED_MB, np.uint8)
    assert peak.megabytes()["process"] > before.megabytes()["process"] + 150
    if sys.platform == "linux":
        with PeakMemory() as outer:
            kept = np.ones(2 * HUNDRED_MB, np.uint8)
            for _ in range(100):
                if outer._sampled > before.megabytes()["process"] * 1e6 + 150e6:
                    break
                outer._over.wait(0.1)
            del kept
            with PeakMemory():
                pass
        assert outer.megabytes()["process"] > before.megabytes()["process"] + 150
        with PeakMemory() as after:
            pass
        assert after.megabytes()["process"] < peak.megabytes()["process"] - 150


@pytest.mark.skipif(sys.platform != "linux", reason="children are sampled on Linux alone")
def test_children_are_counted():
    program = f"x = bytes([1]) * {HUNDRED_MB}; print('here', flush=True); input()"
    with PeakMemory() as peak:
        command = [sys.executable, "-c", program]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "here\n"
            for _ in range(200):
                megabytes = peak.megabytes()
                if megabytes["with_children"] > megabytes["process"] + 90:
                    break
                peak._over.wait(0.1)
            child.communicate("over\n")
    assert peak.megabytes()["with_children"] > peak.megabytes()["process"] + 90

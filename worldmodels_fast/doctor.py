"""`worldmodels-fast doctor`: what this machine can run, and why not."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from worldmodels_fast import envs, ops
from worldmodels_fast.progress import console

DISTRIBUTIONS = ("worldmodels-fast", "torch", "numpy", "gymnasium", "vizdoom", "cma", "minari")


def main() -> bool:
    """Print the report; return whether everything works. Checks run what they are about."""
    console.print(f"python {sys.version.split()[0]} on {platform.platform()}")
    console.print(f"processors: {os.cpu_count()} ({platform.machine()})")
    for name in DISTRIBUTIONS:
        _check(name, functools.partial(version, name))
    works = [
        _check("kernels", _kernels),
        _check("kernels agree with torch", _kernel_error),
        _check("Doom", _doom),
    ]
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    console.print(f"free disk here: {free:.0f} GB (take-cover-quick writes about 20)")
    return all(works)


def _check(name: str, find_out: Callable[[], str]) -> bool:
    try:
        found = find_out()
    except Exception as error:
        console.print(f"no  {name}: {type(error).__name__}: {error}", style="red")
        return False
    console.print(f"ok  {name}: {found}")
    return True


def _kernels() -> str:
    return f"{', '.join(ops.available_backends())}; in use: {ops.default_backend()}"


def _kernel_error() -> str:
    import numpy as np
    import torch

    from worldmodels_fast.mdn_rnn import MDNRNN

    model = MDNRNN(8, 1, 16, 3)
    rng = np.random.default_rng(0)
    z, a, h, c = (rng.standard_normal((5, n), dtype=np.float32) for n in (8, 1, 16, 16))
    with torch.no_grad():
        expected = model(
            torch.from_numpy(z)[None],
            torch.from_numpy(a)[None],
            (torch.from_numpy(h), torch.from_numpy(c)),
        )
    got = ops.mdn_rnn_step(model.weights(), z, a, h, c)
    error = float(np.abs(got.h - expected.h.numpy()).max())
    if not error < 1e-5:
        raise RuntimeError(f"they differ by {error} from torch")
    return f"largest difference from torch {error:.1g}"


def _doom() -> str:
    import gymnasium

    env = gymnasium.make(envs.ENVIRONMENTS["take-cover"].env_id)
    try:
        frame, _ = env.reset(seed=0)
    finally:
        env.close()
    return f"started, first frame {frame.shape}"

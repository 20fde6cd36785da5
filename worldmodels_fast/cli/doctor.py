"""`worldmodels-fast doctor`: what this machine can run, and the reason for what it cannot."""

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
from worldmodels_fast.cli.usage import COMMANDS, PROGRAM, exit_with_usage
from worldmodels_fast.utils.progress import console

DISTRIBUTIONS = ("worldmodels-fast", "torch", "numpy", "gymnasium", "vizdoom", "cma", "minari")


def command(args: list[str]) -> None:
    """Print what this machine can run, and why not; exit with status 1 if something is broken."""
    if args:
        exit_with_usage(f"{PROGRAM} doctor\n\n{COMMANDS['doctor']}", args)
    if not check_machine():
        raise SystemExit(1)


def check_machine() -> bool:
    """Print versions, and run kernels and the game; return whether everything works."""
    console.print(f"python {sys.version.split()[0]} on {platform.platform()}")
    console.print(f"processors: {os.cpu_count()} ({platform.machine()})")
    for name in DISTRIBUTIONS:
        _check(name, functools.partial(version, name))
    works = [
        _check("kernels", _kernels),
        _check("kernels agree with torch", _kernel_error),
        _check("Doom", _doom),
    ]
    if why := ops.why_no_cuda():
        console.print(f"--  CUDA: {why}", style="yellow", markup=False)
    else:
        works += [_check("CUDA", _cuda), _check("CUDA agrees with the CPU", _cuda_error)]
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    console.print(f"free disk here: {free:.0f} GB (take-cover-quick writes 26)")
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

    from worldmodels_fast.models.mdn_rnn import MDNRNN

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


def _cuda() -> str:
    status = ops.cuda_status()
    devices = [
        f"cuda:{d['index']} {d['name']} (sm_{d['sm']}, {d['processors']} multiprocessors, "
        f"{d['memory'] / 1e9:.0f} GB)" + (f", not usable: {d['reason']}" if d["reason"] else "")
        for d in status["devices"]
    ]
    versions = [f"{v // 1000}.{v % 1000 // 10}" for v in (status["driver"], status["runtime"])]
    return f"{'; '.join(devices)}; the driver has CUDA {versions[0]}, the kernels {versions[1]}"


def _cuda_error() -> str:
    import numpy as np

    from worldmodels_fast.models.mdn_rnn import MDNRNN

    weights = MDNRNN(8, 1, 16, 3).weights()
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((5, n), dtype=np.float32) for n in (8, 1, 16, 16)]
    level = ops.available_backends()[-2]
    on_cpu, on_cuda = (
        ops.mdn_rnn_step(ops.pack_mdn_rnn(weights, backend=backend), *inputs)
        for backend in (level, "cuda")
    )
    error = float(np.abs(on_cuda.h - on_cpu.h).max())
    if not error < 1e-5:
        raise RuntimeError(f"they differ by {error}")
    return f"largest difference {error:.1g}"


def _doom() -> str:
    import gymnasium

    env = gymnasium.make(envs.ENVIRONMENTS["take-cover"].env_id)
    try:
        frame, _ = env.reset(seed=0)
    finally:
        env.close()
    return f"started, first frame {frame.shape}"

"""CUDA's kernels on the CPU: builds tests/cuda with the machine's C++ compiler, and calls it."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parents[1]
CSRC = HERE.parent / "csrc"

FLAGS = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off"]


def compiler():
    """The C++ compiler's name; the test is skipped without one, or without the kernels."""
    name = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if name is None:
        pytest.skip("no C++ compiler (g++, clang++, c++ or $CXX) to build the kernels with")
    if not (CSRC / "cuda").is_dir():
        pytest.skip("no csrc/cuda beside the tests: this is not a source tree")
    return name


def build(folder, kernel_flags=(), flags=(), link_flags=(), csrc=CSRC):
    """Compile into `folder`; the path of the library."""
    cxx = compiler()
    include = [f"-I{csrc}", f"-I{HERE / 'cuda'}"]
    objects = []
    for name, more in (("kernels", kernel_flags), ("emulator", ())):
        objects.append(f"{folder}/{name}.o")
        source = f"{HERE}/cuda/{name}.cpp"
        subprocess.run(
            [cxx, *FLAGS, *flags, *more, *include, "-c", source, "-o", objects[-1]], check=True
        )
    library = f"{folder}/kernels.so"
    subprocess.run([cxx, "-shared", *link_flags, *objects, "-o", library], check=True)
    return library


class _Dream(ctypes.Structure):
    """kernels.cpp's Dream."""

    _fields_ = (
        ("dims", ctypes.c_void_p),
        ("half", ctypes.c_int64),
        ("packed", ctypes.c_void_p),
        ("features", ctypes.c_char_p),
        ("spec", ctypes.c_void_p),
        ("squash", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("members", "rollouts", "n_initial", "max_steps")),
        ("common_noise", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("params", "initial_mu", "initial_logvar")),
        ("noise_seed", ctypes.c_uint64),
        *(
            (name, ctypes.c_double)
            for name in ("temperature", "done_threshold", "done_temperature")
        ),
        *((name, ctypes.c_void_p) for name in ("returns", "lengths", "stop")),
        *((name, ctypes.c_int64) for name in ("groups", "group", "slots", "tiles", "parts")),
        *((name, ctypes.c_int64) for name in ("shared_limit", "seed")),
        *((name, ctypes.c_int64) for name in ("stages", "resident", "ring", "shared_bytes")),
    )


def _pointer(array):
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def _pointers(*arrays):
    return (ctypes.c_void_p * len(arrays))(*(a if a is None else a.ctypes.data for a in arrays))


def _dims(weights):
    w = weights
    sizes = [w.latent_dim, w.action_dim, w.hidden_dim, w.n_mixtures]
    return np.array([*sizes, w.predicts_done, w.predicts_reward], np.int64)


def _spec(spec):
    numbers = [spec.latent_dim, spec.hidden_dim, spec.action_dim, spec.hidden_units, int(spec.bias)]
    squash = np.array([spec.scale, spec.shift, spec.low, spec.high], np.float32)
    return "".join(spec.features).encode(), np.array(numbers, np.int64), squash


class Emulator:
    """The functions of `ops`, computed by CUDA's kernels on the emulator.

    Arrays are exactly as large as they must be, so that the address sanitizer sees what lies
    beyond. `seed` decides in which order the threads run.
    """

    def __init__(self, library):
        self.library = ctypes.CDLL(library)
        for name in ("pack", "step", "sample", "controller", "dream"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.packed_floats.restype = ctypes.c_int64
        self.library.plan.restype = ctypes.c_double

    def _call(self, name, *args):
        error = getattr(self.library, name)(*args).decode()
        assert not error, f"{name}: {error}"

    def pack(self, weights, precision):
        half = int(precision == "fp16")
        dims = _dims(weights)
        packed = np.full(self.library.packed_floats(_pointer(dims), half), np.nan, np.float32)
        w = weights
        arrays = (w.weight_ih, w.weight_hh, w.bias, w.head_weight, w.head_bias)
        self._call("pack", _pointer(dims), half, _pointers(*arrays), _pointer(packed))
        return packed

    def step(self, weights, precision, z, action, h, c, restart=None, *, tiles=1, seed=0):
        """(logmix, mu, logstd, done_logit, h, c, reward)"""
        n, w = len(z), weights
        mixture = (n, w.latent_dim, w.n_mixtures)
        outputs = [np.full(mixture, np.nan, np.float32) for _ in range(3)]
        outputs.append(np.full(n, np.nan, np.float32) if w.predicts_done else None)
        outputs += [np.full((n, w.hidden_dim), np.nan, np.float32) for _ in range(2)]
        outputs.append(np.full(n, np.nan, np.float32) if w.predicts_reward else None)
        packed, dims = self.pack(weights, precision), _dims(weights)
        self._call(
            "step",
            _pointer(dims),
            int(precision == "fp16"),
            _pointer(packed),
            ctypes.c_int64(n),
            _pointers(z, action, h, c, restart),
            _pointers(*outputs),
            tiles,
            seed,
        )
        return tuple(outputs)

    def sample(
        self, logmix, mu, logstd, temperature, *, seed=0, rollout=0, step=0, rows=None, threads=64
    ):
        z = np.full(mu.shape[:2], np.nan, np.float32)
        sizes = np.array(mu.shape, np.int64)
        self._call(
            "sample",
            _pointer(sizes),
            _pointers(logmix, mu, logstd),
            ctypes.c_float(temperature),
            ctypes.c_uint64(seed),
            ctypes.c_uint32(rollout),
            ctypes.c_uint32(step),
            None if rows is None else _pointer(rows),
            _pointer(z),
            threads,
        )
        return z

    def controller(self, spec, params, z, h=None, c=None, *, seed=0):
        features, numbers, squash = _spec(spec)
        given = {"z": z, "h": h, "c": c}
        inputs = [given[name] if name in spec.features else None for name in "zhc"]
        n = len(next(x for x in inputs if x is not None))
        action = np.full((n, spec.action_dim), np.nan, np.float32)
        self._call(
            "controller",
            features,
            _pointer(numbers),
            _pointer(squash),
            ctypes.c_int64(len(params)),
            ctypes.c_int64(n),
            _pointer(params),
            _pointers(*inputs),
            _pointer(action),
            seed,
        )
        return action

    def dream(self, weights, *args, stop=None, **settings):
        """(lengths, the plan) of `rollout`."""
        returns, lengths, plan = self.rollout(weights, *args, stop=stop, **settings)
        if stop is None and not weights.predicts_reward:
            assert (returns == lengths).all()
        return lengths, plan

    def rollout(
        self,
        weights,
        precision,
        spec,
        params,
        initial_mu,
        initial_logvar,
        *,
        rollouts,
        seed,
        temperature,
        max_steps,
        done_threshold=0.0,
        done_temperature=0.0,
        common_noise=True,
        groups=1,
        group=1,
        tiles=1,
        parts=1,
        shared_limit=227 * 1024,
        schedule=0,
        stop=None,
    ):
        """(returns, lengths, the plan: stages, resident, ring, shared_bytes)"""
        dims, packed = _dims(weights), self.pack(weights, precision)
        features, numbers, squash = _spec(spec)
        returns = np.full((len(params), rollouts), np.nan, np.float32)
        lengths = np.full((len(params), rollouts), -1, np.int32)
        dream = _Dream(
            _pointer(dims),
            int(precision == "fp16"),
            _pointer(packed),
            features,
            _pointer(numbers),
            _pointer(squash),
            len(params),
            rollouts,
            len(initial_mu),
            max_steps,
            common_noise,
            _pointer(params),
            _pointer(initial_mu),
            _pointer(initial_logvar),
            seed,
            temperature,
            done_threshold,
            done_temperature,
            _pointer(returns),
            _pointer(lengths),
            _pointer(stop),
            groups,
            group,
            8 * tiles * parts,
            tiles,
            parts,
            shared_limit,
            schedule,
        )
        self._call("dream", ctypes.byref(dream))
        assert dream.shared_bytes <= shared_limit
        return returns, lengths, dream

    def plan(self, weights, precision, spec, total, max_steps, device, group=0, slots=0):
        """(microseconds, what was chosen); device: (sm, processors, shared memory)."""
        names = ("group", "slots", "tiles", "parts", "groups", "resident", "stages", "bytes")
        found, dims = np.zeros(len(names), np.int64), _dims(weights)
        features, numbers, squash = _spec(spec)
        microseconds = self.library.plan(
            _pointer(dims),
            int(precision == "fp16"),
            features,
            _pointer(numbers),
            _pointer(squash),
            ctypes.c_int64(total),
            ctypes.c_int64(max_steps),
            *device,
            group,
            slots,
            _pointer(found),
        )
        return microseconds, dict(zip(names, found.tolist(), strict=True))

    def halves(self, x):
        """Float32 rounded to halves as the kernels do it: their bits, and the numbers."""
        words, back = np.zeros(x.shape, np.uint16), np.zeros(x.shape, np.float32)
        n = ctypes.c_int64(x.size)
        self.library.halves(_pointer(x), _pointer(words), _pointer(back), n)
        return words, back

    def math(self, name, x):
        """A function of core/vector_math.h, one number at a time."""
        y = np.zeros(x.shape, np.float32)
        self.library.scalar_math(name.encode(), _pointer(x), _pointer(y), ctypes.c_int64(x.size))
        return y

"""Everything that needs a GPU, in one command: build, tests, sanitizer, benchmarks.

    python benchmarks/gpu.py --out results.json                      # all of it
    python benchmarks/gpu.py --out results.json --only tests bench   # some; the file keeps the rest

The file begins with the GPU's name. Sections:

- build: compiles the extension for this Python into the source tree (nvcc, cmake, pybind11), unless
  one with CUDA kernels is there already.
- tests: the tests of everything that runs on a GPU; counts, and every failure's message.
- sanitizer: compute-sanitizer's memcheck and racecheck over all kernels in small sizes.
- bench: `worldmodels-fast bench --device cuda`; its tables go beside the file, as gpu.md.

It needs nothing installed but the package's dependencies; torch, CuPy, JAX and Numba take part in
tests and benchmarks where they are there with CUDA. Without a GPU it says why and exits with 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SECTIONS = ("build", "tests", "sanitizer", "bench")
TESTS = (
    "tests/ops/test_cuda.py",
    "tests/training/test_cuda_training.py",
    "tests/rollout/test_device_players.py",
    "tests/cli/test_doctor.py",
    "tests/ops/test_dlpack.py",
    "tests/ops/test_philox.py",
    "tests/ops/test_ops.py",
    "tests/ops/test_dream_rollout.py",
)
TOOLS = ("memcheck", "racecheck")


def main() -> int:
    """Run the sections; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement")
    parser.add_argument("--tests-seconds", type=float, default=400, help="at most, for all tests")
    parser.add_argument("--exercise", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if arguments.exercise:
        return exercise()
    results: dict[str, Any] = {}
    if arguments.out.is_file():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    failed = False
    for section in (name for name in SECTIONS if name in arguments.only):
        if section != "build":
            results = {"gpu": gpu()} | results
            if why := results["gpu"]["reason"]:
                print(f"no CUDA device: {why}")
                return 1
        began = time.monotonic()
        print(f"--- {section}", flush=True)
        found = {
            "build": build,
            "tests": lambda: tests(arguments.tests_seconds),
            "sanitizer": sanitizer,
            "bench": lambda: bench(arguments.out, arguments.seconds),
        }[section]()
        results[section] = {**found, "seconds": round(time.monotonic() - began, 1)}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{section}: {'ok' if found['ok'] else 'FAILED'}, {results[section]['seconds']} s")
        failed = failed or not found["ok"]
        if section == "build" and failed:
            print(found["why"])
            break
    return int(failed)


def ask(code: str) -> subprocess.CompletedProcess[str]:
    """Run some lines in a process of their own: this one must not load what `build` replaces."""
    return run([sys.executable, "-c", code], 120)


def run(command: list[str], seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the source tree; one that takes too long fails, and keeps what it wrote."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    settings = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), **environment}
    with tempfile.TemporaryFile("w+") as log:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | settings,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
        log.seek(0)
        return subprocess.CompletedProcess(command, code, log.read(), "")


def gpu() -> dict[str, Any]:
    """The devices as the kernels see them."""
    done = ask(
        "import json; from worldmodels_fast import ops; print(json.dumps(ops.cuda_status()))"
    )
    status: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"name": next((d["name"] for d in status["devices"]), "none"), **status}


def build() -> dict[str, Any]:
    """Compile the extension into the source tree, unless it is there with CUDA kernels."""
    why = "from worldmodels_fast import ops; print(ops.cuda_status()['built'], ops.why_no_cuda())"
    done = ask(why)
    if done.returncode != 0 or not done.stdout.splitlines()[-1].startswith("True"):
        folder = ROOT / "build" / f"gpu-{sys.implementation.cache_tag}"
        pybind11 = ask("import pybind11; print(pybind11.get_cmake_dir())").stdout.strip()
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"),
            *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}"),
            *("-DWMF_CUDA=ON", f"-DWMF_CUDA_ARCHS={architecture()}"),
            *(["-G", "Ninja"] if shutil.which("ninja") else []),
        ]
        compile_ = ["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1)]
        for command in (configure, compile_):
            made = run(command, 560)
            if made.returncode != 0:
                return {"ok": False, "why": made.stdout[-6000:]}
        for extension in folder.glob("_core.*.so"):
            shutil.copy(extension, ROOT / "worldmodels_fast" / extension.name)
        done = ask(why)
    if done.returncode != 0:
        return {"ok": False, "why": done.stdout[-6000:]}
    reason = done.stdout.splitlines()[-1].partition(" ")[2]
    return {"ok": not reason, "why": reason}


def architecture() -> str:
    """What to compile for: the first GPU's architecture alone, or everything if it is not known."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    capability = run(command, 60).stdout.split() if shutil.which(command[0]) else []
    known = capability and capability[0].replace(".", "").isdecimal()
    digits = capability[0].replace(".", "") if known else "80;86;89;90a;90-virtual"
    return "90a" if digits == "90" else digits


def tests(seconds: float) -> dict[str, Any]:
    """Run the tests; all that are there, each at most two minutes where pytest-timeout is."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        limit = ["--timeout=120"] if importlib.util.find_spec("pytest_timeout") else []
        # The versions of other libraries here are not ours to choose: their warnings are no errors.
        done = run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE"),
                *("-o", "filterwarnings=default", f"--junitxml={report}", *limit),
                *(test for test in TESTS if (ROOT / test).is_file()),
            ],
            seconds,
            XLA_PYTHON_CLIENT_PREALLOCATE="false",
        )
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        failures, skipped = [], {}
        if report.is_file():
            for case in ElementTree.parse(report).iter("testcase"):
                name = f"{case.get('classname')}::{case.get('name')}"
                bad = [child for child in case if child.tag in ("failure", "error")]
                skip = case.find("skipped")
                counts["failed" if bad else "skipped" if skip is not None else "passed"] += 1
                failures += [{"test": name, "message": (b.text or "")[-3000:]} for b in bad]
                if skip is not None:
                    why = skip.get("message", "")
                    skipped[why] = skipped.get(why, 0) + 1
        print(done.stdout[-4000:])
        return {
            "ok": done.returncode == 0 and counts["passed"] > 0,
            **counts,
            "failures": failures,
            "skipped_because": skipped,
            "output": "" if report.is_file() else done.stdout[-20000:],
        }


def sanitizer() -> dict[str, Any]:
    """Run every kernel under compute-sanitizer's tools."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"ok": True, "why": "compute-sanitizer is not installed"}
    found: dict[str, Any] = {"ok": True}
    for tool in TOOLS:
        command = [program, "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        command += [sys.executable, __file__, "--out", os.devnull, "--exercise"]
        done = run(command, 240)
        clean = done.returncode == 0 and "exercised" in done.stdout
        found[tool] = {"ok": clean, "output": done.stdout[-6000:]}
        found["ok"] = found["ok"] and clean
        print(f"{tool}: {'clean' if clean else done.stdout[-3000:]}", flush=True)
    return found


def exercise() -> int:
    """Run all kernels in small, odd sizes, both precisions and every plan, checked."""
    os.environ["WMF_BACKEND"] = "cuda"
    from worldmodels_fast import ops
    from worldmodels_fast.bench import ours
    from worldmodels_fast.bench.protocol import cases
    from worldmodels_fast.bench.sections.gpu import PLANS, DeviceDream

    odd = cases.random_case("odd", 17, 2, 33, 3, True)
    for case in (odd, cases.random_case("one of all", 1, 1, 1, 1, True)):
        for precision in ("fp32", "fp16"):
            ours.check_dream(case, precision)
    for case, n, steps in ((odd, 160, 3), (cases.make_case("car_racing"), 48, 2)):
        for precision in ("fp32", "fp16"):
            for plan in PLANS:
                dream = DeviceDream(case, n, precision, plan)
                try:
                    dream.chosen()
                except ValueError:
                    continue  # not on this device, or not for this model
                dream.run(steps)
    print("exercised", ops.cuda_status()["devices"][0]["name"])
    return 0


def bench(out: Path, seconds: float) -> dict[str, Any]:
    """Run the benchmarks; their tables go beside the file."""
    from worldmodels_fast.bench.sections import gpu as gpu_bench

    folder = out.resolve().parent
    try:
        results = gpu_bench.bench(gpu_bench.GpuConfig(out=folder, seconds=seconds))
    except Exception as error:
        partial = folder / "gpu.json"
        kept = json.loads(partial.read_text(encoding="utf-8")) if partial.is_file() else {}
        return {"ok": False, "why": f"{type(error).__name__}: {error}", **kept}
    return {"ok": True, **results}


if __name__ == "__main__":
    sys.exit(main())

"""The GPU's benchmark: what of it needs no GPU, and on one that its contestants answer right."""

import importlib.util
import json
import sys

import pytest
import torch
from folders import ROOT

from worldmodels_fast import ops
from worldmodels_fast.bench.command import bench
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.protocol import cases
from worldmodels_fast.bench.protocol.processes import Unavailable
from worldmodels_fast.bench.rivals import cuda as gpu_rivals
from worldmodels_fast.bench.sections import gpu

WHY = ops.why_no_cuda()
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(WHY), reason=f"no CUDA device: {WHY}"),
]
WITH_END = cases.random_case("with an end", 5, 2, 24, 3, True)
WITHOUT_END = cases.random_case("without an end", 8, 3, 16, 5, False)

RATE = {"median": 2e6, "low": 1e6, "high": 3e6, "runs": 4}
CELL = {"model": "doom", "precision": "fp16", "n": 1024}
RESULTS = {
    "gpu": {
        "name": "A GPU", "sm": 90, "processors": 132, "memory": 8e10, "driver": 13000,
        "runtime": 13000,
    },
    "machine": {"date": "today"},
    "kernels": [{"name": "dream", "registers": 128, "local_bytes": 0}],
    "left_out": {"jax fp16": "not installed"},
    "limits": [
        {"kind": "multiply-adds in registers", "precision": "fp16", "operations": 8e14},
        {"kind": "reading shared memory", "bytes": 3e13},
    ],
    "dream": [
        {
            **CELL, "rate": RATE, "us_per_step": 512.0, "tflops": 6.7, "of_peak": 0.25,
            "of_read": 0.5, "group": 1, "slots": 64,
        }
    ],
    "generation": [{**CELL, "population": "host", "ms": {"median": 7.25}}],
    "rivals": [
        {
            **CELL,
            "rates": {"ours fp16": RATE, "jax fp16": {**RATE, "median": 1e5}},
            "ours_over": {"jax fp16": 20.0},
        }
    ],
    "plans": [{**CELL, "group": 8, "slots": 64, "chosen": True, "rate": RATE}],
}  # fmt: skip


def test_the_tables_have_what_was_measured():
    text = gpu.markdown(RESULTS)
    assert text.startswith("# A GPU\n")
    for expected in (
        "| doom | 1,024 | fp16 | **2.00** | 512.00 | 6.7 | 25% | 50% | 1 x 64 |",
        "| doom | fp16 | host | 7.25 |",
        "| doom | 1,024 | fp16 | jax fp16 | 0.10 | 20.0 |",
        "| doom | 1,024 | fp16 | ours fp16 | 2.00 |  |",
        "- multiply-adds in registers, fp16, 800.00 TFLOP/s",
        "| doom | 1,024 | fp16 | 8 x 64 (chosen) | 2.00 |",
        "| dream | 128 | 0 |",
        "- jax fp16: not installed",
    ):
        assert expected in text
    for row in (row for name in gpu.SECTIONS for row in RESULTS[name]):
        assert gpu._headline(row)


def test_an_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("WMF_BACKEND", "generic")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    import os

    with gpu._environment({"WMF_BACKEND": "avx2", "JAX_PLATFORMS": "cuda"}):
        assert os.environ["WMF_BACKEND"] == "avx2"
        assert os.environ["JAX_PLATFORMS"] == "cuda"
    assert os.environ["WMF_BACKEND"] == "generic"
    assert "JAX_PLATFORMS" not in os.environ


def gpu_command():
    path = ROOT / "benchmarks" / "gpu.py"
    if not path.is_file():
        pytest.skip("benchmarks/ is not beside the tests")
    spec = importlib.util.spec_from_file_location("gpu_command", path)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    return command


def test_the_tests_that_it_runs_are_there():
    assert [path for path in gpu_command().TESTS if not (ROOT / path).is_file()] == []


@pytest.mark.skipif(not WHY, reason="there is a CUDA device")
def test_without_a_gpu_it_says_why(tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match="device: 'cuda' cannot be used, because ") as refused:
        bench(BenchConfig(out=tmp_path / "x", device="cuda"))
    assert WHY in str(refused.value)
    command = gpu_command()
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--out", str(tmp_path / "r.json"), "--only", "tests"]
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert command.main() == 1
    assert f"no CUDA device: {WHY}" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch has CUDA")
def test_rivals_without_cuda_are_left_out():
    for make in (gpu_rivals.make_eager, gpu_rivals.make_graph, gpu_rivals.make_compiled):
        with pytest.raises(Unavailable, match="finds no CUDA device"):
            make(WITH_END, 16, "fp32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("case", [WITH_END, WITHOUT_END], ids=lambda case: case.name)
@pytest.mark.parametrize("kind", [gpu_rivals.make_eager, gpu_rivals.make_graph])
def test_rivals_answer_right(kind, case, precision):
    loop = kind(case, 32, precision)  # it is checked as it is made
    lengths = loop.run(2 * loop.least)
    assert (lengths == 2 * loop.least).all()


class TestOnAGpu:
    pytestmark = on_gpu

    def test_ours_takes_the_steps_that_it_counts(self):
        loop = gpu.make_dream(WITH_END, 48, "fp16")
        loop.run(5)
        assert loop.measure() > 0

    def test_a_short_run_writes_its_files(self, tmp_path):
        config = gpu.GpuConfig(
            tmp_path, ("car_racing",), sizes=(16, 64), rivals=(), rival_sizes=(16,), seconds=0.05
        )
        results = gpu.bench(config)
        written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
        assert written["gpu"]["name"] == results["gpu"]["name"]
        assert len(written["dream"]) == 4
        assert all(row["rate"]["median"] > 0 for row in written["dream"])
        assert (
            (tmp_path / "gpu.md")
            .read_text(encoding="utf-8")
            .startswith(f"# {results['gpu']['name']}")
        )

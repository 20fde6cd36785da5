"""`worldmodels-fast bench`: rivals answer right, wrong answers are found, figures hang together."""

import json
import math
import os
import sys
import time

import numpy as np
import pytest
from PIL import Image

from worldmodels_fast import ops, reference
from worldmodels_fast.bench import command, ours
from worldmodels_fast.bench.config import BenchConfig
from worldmodels_fast.bench.output import tables
from worldmodels_fast.bench.protocol import cases, check, machine, memory, processes, timing
from worldmodels_fast.bench.protocol.contest import Contest
from worldmodels_fast.bench.protocol.op_inputs import OPS, OpInputs, checked_loop
from worldmodels_fast.bench.rivals import jax_scan, onnx_step, packing, torch_compile, torch_eager
from worldmodels_fast.bench.rivals import registry as rivals
from worldmodels_fast.bench.sections import dreams, growth, limits, single_ops
from worldmodels_fast.cli import main as cli

WITH_END = cases.random_case("with an end", 5, 2, 24, 3, True)
WITHOUT_END = cases.random_case("without an end", 8, 3, 16, 5, False)
ONE_OF_ALL = cases.random_case("one of all", 1, 1, 1, 1, True)
SMALL = [WITH_END, WITHOUT_END, ONE_OF_ALL]


# --- what is measured ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, (1, 1)), (4, (1, 4)), (16, (1, 16)), (64, (4, 16)), (1024, (64, 16)), (4096, (256, 16))],
)
def test_split(n, expected):
    assert cases.split(n) == expected


@pytest.mark.parametrize("n", [0, -1, 17, 100])
def test_split_refuses(n):
    with pytest.raises(ValueError, match=f"sizes: expected 1 to 16 .* got {n}"):
        cases.split(n)


@pytest.mark.parametrize(
    ("name", "operations", "params"),
    [("car_racing", 0.843e6, 867), ("doom", 3.35e6, 1088), ("take-cover", 3.35e6, 1088)],
)
def test_the_papers_sizes(name, operations, params):
    case = cases.make_case(name)
    assert case.flops_per_step == pytest.approx(operations, rel=1e-3)
    assert case.params(2).shape == (2, params)
    assert np.array_equal(case.params(2), case.params(2))


def test_the_operations_are_counted_one_by_one():
    w = WITH_END.weights
    weights = 4 * w.hidden_dim * (w.latent_dim + w.action_dim + w.hidden_dim)
    weights += (3 * w.n_mixtures * w.latent_dim + 1) * w.hidden_dim
    weights += (w.latent_dim + 2 * w.hidden_dim) * w.action_dim
    assert WITH_END.flops_per_step == 2 * weights


def test_an_unknown_case():
    with pytest.raises(ValueError, match=r"models: expected some of car_racing, .* got 'pong'"):
        cases.make_case("pong")
    with pytest.raises(ValueError, match="hidden_dim: expected None"):
        cases.make_case("take-cover", hidden_dim=8)


# --- rivals answer right ------------------------------------------------------------------------


def rival_dream(module, case, n, precision):
    """A rival's dream, unchecked, and its controllers."""
    members, rollouts = cases.split(n)
    params = case.params(members)
    kind = {
        torch_eager: "EagerDream",
        torch_compile: "CompiledDream",
        jax_scan: "ScanDream",
    }[module]
    return getattr(module, kind)(case, params, rollouts, precision), params


@pytest.fixture(scope="module")
def with_jax():
    pytest.importorskip("jax", reason="jax is not installed: pip install -e '.[bench]'")


@pytest.mark.parametrize("precision", rivals.RIVAL_PRECISIONS)
@pytest.mark.parametrize("n", [1, 5, 48])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_torch_eager(case, n, precision):
    dream, params = rival_dream(torch_eager, case, n, precision)
    check.check_advance("torch", dream, case, params, precision)
    assert dream.run(3).tolist() == [3.0] * n


@pytest.mark.parametrize("precision", rivals.RIVAL_PRECISIONS)
@pytest.mark.parametrize(("case", "n"), [(WITH_END, 1), (WITHOUT_END, 48)], ids=["1", "48"])
def test_jax(with_jax, case, n, precision):
    dream, params = rival_dream(jax_scan, case, n, precision)
    check.check_advance("jax", dream, case, params, precision)
    steps = dream.steps_at_once
    assert dream.run(2 * steps).tolist() == [2.0 * steps] * n


@pytest.mark.slow
@pytest.mark.parametrize("precision", rivals.RIVAL_PRECISIONS)
@pytest.mark.parametrize(("case", "n"), [(WITH_END, 1), (WITHOUT_END, 48)], ids=["1", "48"])
def test_torch_compile(case, n, precision):
    dream, params = rival_dream(torch_compile, case, n, precision)
    torch_compile._compile(lambda: dream.run(dream.depth))
    check.check_advance("torch.compile", dream, case, params, precision)
    assert dream.run(2 * dream.depth).tolist() == [2.0 * dream.depth] * n


@pytest.mark.parametrize("precision", cases.PRECISIONS)
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_ours(case, precision):
    errors = ours.check_dream(case, precision)
    assert set(errors) >= {"logmix", "mu", "logstd", "h", "c", "z", "action"}
    loop = ours.make_dream(case, 5, precision, threads=2)
    loop.run(3)


@pytest.mark.parametrize("n", [1, 48])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("op", OPS)
def test_operations(op, case, n):
    for precision in cases.PRECISIONS if op == "mdn_rnn_step" else ("fp32",):
        ours.make_op(op, case, n, precision, threads=1).run(1)
    for precision in [p for o, p in rivals.RIVALS["torch-eager"].ops if o == op]:
        torch_eager.make_op(op, case, n, precision).run(1)


@pytest.mark.parametrize("n", [1, 48])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_onnxruntime(case, n):
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[bench]'")
    onnx_step.make_op("mdn_rnn_step", case, n, "fp32").run(1)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_compiled_operations(op):
    for precision in [p for o, p in rivals.RIVALS["torch-compile"].ops if o == op]:
        torch_compile.make_op(op, WITH_END, 5, precision).run(1)


def test_rivals_know_plain_controllers_only():
    spec = ops.ControllerSpec(("z",), 5, 24, 2, bias=True, hidden_units=3)
    case = cases.Case("hidden", WITH_END.weights, spec, *[np.zeros((1, 5), np.float32)] * 2)
    with pytest.raises(ValueError, match="case: the rivals know linear controllers"):
        packing.rival_weights(case, case.params(1))


# --- wrong answers are found --------------------------------------------------------------------


@pytest.mark.parametrize("precision", rivals.RIVAL_PRECISIONS)
@pytest.mark.parametrize("part", ["lstm", "lstm_bias", "head", "head_bias", "control"])
def test_a_wrong_weight_is_found(part, precision):
    dream, params = rival_dream(torch_eager, WITH_END, 5, precision)
    weight = getattr(dream.model, part)
    setattr(dream.model, part, weight.roll(1, dims=-1 if part != "control" else 1))
    with pytest.raises(RuntimeError, match=r"torch answers wrongly: .* is off by"):
        check.check_advance("torch", dream, WITH_END, params, precision)


@pytest.mark.parametrize("precision", rivals.RIVAL_PRECISIONS)
def test_a_wrong_sample_is_found(monkeypatch, precision):
    right = torch_eager.draw
    monkeypatch.setattr(torch_eager, "draw", lambda m, u, e: right(m, u * 0.5, e))
    dream, params = rival_dream(torch_eager, WITH_END, 5, precision)
    with pytest.raises(RuntimeError, match="torch answers wrongly: z is off"):
        check.check_advance("torch", dream, WITH_END, params, precision)


def test_a_forgotten_restart_flag_is_found(monkeypatch):
    dream, params = rival_dream(torch_eager, WITH_END, 5, "fp32")
    dream.x_restart = dream.x_restart.clone()  # what is written there no longer reaches the product
    with pytest.raises(RuntimeError, match="answers wrongly"):
        check.check_advance("torch", dream, WITH_END, params, "fp32")


def test_a_wrong_operation_is_found():
    inputs = OpInputs.make(WITH_END, 5)
    right = ours.make_contestant("controller_forward", inputs, "fp32", threads=1)
    wrong = type(right)(right.call, lambda: {"action": -np.asarray(right.answer()["action"])})
    checked_loop("somebody", "controller_forward", right, inputs, "fp32")
    with pytest.raises(RuntimeError, match="somebody controller_forward answers wrongly: action"):
        checked_loop("somebody", "controller_forward", wrong, inputs, "fp32")


def test_ours_is_checked_too(monkeypatch):
    right = ops.mdn_rnn_step

    def wrong(*args, out=None, **settings):
        step = right(*args, out=out, **settings)
        step.h[0, 0] += 0.2
        return step

    monkeypatch.setattr(ops, "mdn_rnn_step", wrong)
    with pytest.raises(RuntimeError, match=r"ours bf16 mdn_rnn_step answers wrongly: h is off by"):
        ours.check_dream(WITHOUT_END, "bf16")


def test_dreams_of_a_wrong_length_are_found(monkeypatch):
    right = ops.dream_rollout

    def wrong(*args, **settings):
        returns, lengths = right(*args, **settings)
        return returns, np.maximum(lengths - 1, 0)

    monkeypatch.setattr(ops, "dream_rollout", wrong)
    with pytest.raises(RuntimeError, match="ours fp32 answers wrongly: dreams of at most 8 steps"):
        ours.check_dream(WITH_END, "fp32")
    with pytest.raises(RuntimeError, match="ended before their 3 steps"):
        ours.OurDream(WITHOUT_END, 4, "fp32", 1).run(3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.0])
def test_compare_refuses(bad):
    expected = {"h": np.zeros((4, 4))}
    check.compare("somebody", {"h": np.full((4, 4), 1e-6)}, expected, "fp32")
    got = np.zeros((4, 4))
    got[2, 3] = bad
    with pytest.raises(RuntimeError, match="somebody answers wrongly: h is off by"):
        check.compare("somebody", {"h": got}, expected, "fp32")
    with pytest.raises(RuntimeError, match=r"h: shape \(4,\), not \(4, 4\)"):
        check.compare("somebody", {"h": np.zeros(4)}, expected, "fp32")


def test_the_checks_own_sample_is_the_references():
    """With the reference's noise it draws what `reference.mixture_sample` draws."""
    rng = np.random.default_rng(0)
    logmix, mu, logstd = rng.standard_normal((3, 6, 4, 3))
    step = reference.MDNRNNStep(logmix, mu, logstd, None, mu[:, 0], mu[:, 0])
    uniform, normal = reference.noise(0, np.arange(6), 0, 4, reference.MIXTURE)
    expected = reference.mixture_sample(logmix, mu, logstd, cases.TEMPERATURE)
    weight = np.exp(logmix / cases.TEMPERATURE)
    border = np.cumsum(weight, axis=2) / weight.sum(axis=2, keepdims=True)
    k = (border <= uniform[..., None]).sum(axis=2)
    np.testing.assert_allclose(check.sample_given(step, k, normal), expected, rtol=1e-12)
    # And the number that `choose` gives lies within the component that it chose.
    k, middle = check.choose(logmix, rng)
    assert ((border <= middle[..., None]).sum(axis=2) == k).all()


# --- how times are taken ------------------------------------------------------------------------


class Sleeper:
    """A dream that takes a known time a step."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def run(self, count):
        self.asked.append(count)
        time.sleep(self.seconds * count)


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_loop_takes_as_long_as_wanted(multiple):
    sleeper = Sleeper(0.0005)
    loop = timing.Loop(sleeper.run, per_count=3.0, least=4, multiple=multiple, seconds=0.04)
    assert sleeper.asked == []
    rate = loop.measure()
    assert all(count % multiple == 0 for count in sleeper.asked)
    assert 16 <= loop.count() <= 80
    assert sleeper.asked[-1] == loop.count()
    assert rate == pytest.approx(3.0 / 0.0005, rel=0.5)


def test_a_loop_does_the_least_however_long_it_takes():
    sleeper = Sleeper(0.02)
    loop = timing.Loop(sleeper.run, least=5, multiple=2, seconds=0.01)
    loop.measure()
    assert set(sleeper.asked) == {6}


def test_everybody_takes_turns_and_the_first_round_is_not_counted():
    turns = []

    class Player:
        def __init__(self, name, rates):
            self.name, self.rates = name, iter(rates)

        def measure(self):
            turns.append(self.name)
            return next(self.rates)

    a, b = Player("a", [1e9, 1.0, 2.0, 30.0]), Player("b", [0.0, 5.0, 5.0, 5.0])
    rates = timing.alternate({"a": a, "b": b}, seconds=1e-3)
    assert turns == ["a", "b"] * 4
    assert rates["a"] == timing.Rate(median=2.0, low=1.5, high=16.0, runs=3)
    assert rates["b"].median == 5.0


def test_choose_cpus(monkeypatch):
    allowed = machine.allowed_cpus()
    assert set(machine.choose_cpus(1)) <= set(allowed)
    for threads in (0, len(allowed) + 1):
        with pytest.raises(ValueError, match=f"threads: expected 1 to .* got {threads}"):
            machine.choose_cpus(threads)
    # Four processors on two cores: a core each before two on one.
    monkeypatch.setattr(machine, "allowed_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "_siblings", lambda cpu: "0-1" if cpu < 2 else "2-3")
    assert machine.choose_cpus(2) == [0, 2]
    assert machine.choose_cpus(3) == [0, 1, 2]


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.skipif(not machine.STAT.is_file(), reason="needs /proc")
def test_what_others_do_is_noticed():
    with processes.Libraries() as libraries:
        library = libraries.get("a", 1)
        library.call(spin, 0.0)
        ours, theirs = machine.Others(libraries.pids), machine.Others([])
        library.call(spin, 0.5)
        assert theirs.cores() > 0.2  # whose process it is makes the difference
        assert ours.cores() < theirs.cores() - 0.2


def test_a_busy_machine_is_told():
    results = {
        "machine": {**machine.describe_machine(), "load_after": 1.0},
        "config": {"threads": 1},
        "left_out": {"jax fp32": "jax is not installed"},
        "ops": [],
        "limits": [{"kind": "peak", "rows": []}],
    }
    assert "quiet" not in tables.markdown(results)
    assert "Left out: jax fp32: jax is not installed" in tables.markdown(results)
    row = {"op": "mixture_sample", "model": "doom", "n": 1, "microseconds": {"ours fp32": 2.0}}
    for others, said in ((0.05, False), (0.7, True)):
        results["ops"] = [{**row, "others": others}]
        text = tables.markdown(results)
        assert f"kept {others:.2f} cores busy" in text
        assert ("not a quiet machine" in text) == said


def test_the_machine_is_described():
    found = machine.describe_machine()
    assert found["cpu"]
    assert found["backend"] in ops.available_backends()
    assert {"torch", "numpy"} <= set(found["versions"])
    json.dumps(found)


# --- processes ----------------------------------------------------------------------------------


def environment():
    import torch

    cpus = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else None
    return torch.get_num_threads(), os.environ["NPROC"], cpus


def fail(message):
    raise RuntimeError(message)


def not_here():
    raise processes.Unavailable("libfoo is not installed")


def test_a_librarys_process():
    left_out = {}
    with processes.Libraries() as libraries:
        library = libraries.get("a", 1)
        assert libraries.get("a", 1) is library
        threads, nproc, cpus = library.call(environment)
        assert (threads, nproc) == (1, "1")
        assert cpus in (None, machine.choose_cpus(1))
        with pytest.raises(RuntimeError, match="it broke") as caught:
            library.call(fail, "it broke")
        assert "in fail" in caught.value.__notes__[0]
        with Contest(libraries, 1, left_out) as contest:
            contest.add("foo fp32", "a", not_here)
            contest.add("peak", "a", ours.Peak, "fp32", 1)
            rates = contest.rates(1e-3)
        assert left_out == {"foo fp32": "libfoo is not installed"}
        assert set(rates) == {"peak"}
        assert rates["peak"].median > 1e8
        with pytest.raises(RuntimeError, match=r"a benchmark's process died: .*status 3"):
            library.call(os._exit, 3)


@pytest.mark.parametrize(
    ("module", "make", "name"),
    [
        (jax_scan, lambda: jax_scan.make_dream(WITH_END, 1, "fp32"), "jax"),
        (
            onnx_step,
            lambda: onnx_step.make_op("mdn_rnn_step", WITH_END, 1, "fp32"),
            "onnxruntime",
        ),
    ],
)
def test_a_rival_that_is_not_installed(monkeypatch, module, make, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(processes.Unavailable, match=f"{name}.* is not installed"):
        make()


def test_a_precision_that_this_build_has_not():
    with pytest.raises(processes.Unavailable, match="ours fp4: precision: expected"):
        ours.pack(WITH_END, "fp4")


def test_memory_of_a_generation():
    with processes.Libraries() as libraries:
        process = libraries.get("ours", 1)
        used = process.call(memory.evaluation_bytes, 4, 16, "fp32", 1)
    assert used["population"] == 4 * 1088 * 4
    assert used["weights"] > 6e6
    # Some rows of state; far from the weights' size, and no matter how many steps there are.
    assert 0 < used["evaluate"] < 20e6
    assert used["process"] > 50e6


# --- the figures hang together ------------------------------------------------------------------


def test_derived_figures():
    rates = {
        name: timing.Rate(median, median, median, 3)
        for name, median in {
            "ours fp32": 120.0,
            "peak fp32": 1000.0,
            "read fp32": 50.0,
            "ours bf16": 200.0,
            "peak bf16": 2000.0,
            "read bf16": 100.0,
            "torch-eager fp32": 10.0,
            "jax fp32": 40.0,
            "torch-eager bf16": 25.0,
        }.items()
    }
    derived = dreams.derive(rates, "fp32", n=4, flops_per_step=5)
    assert derived == {
        "gflops": pytest.approx(600e-9),
        "of_peak": pytest.approx(0.6),
        "limit": 200.0,  # both multiplying, 1000 / 5, and reading, 4 * 50, allow it
        "over_baseline": 12.0,
        "fastest_rival": "jax fp32",
        "over_fastest": 3.0,
    }
    derived = dreams.derive(rates, "bf16", n=1, flops_per_step=5)
    assert (derived["limit"], derived["over_baseline"]) == (100.0, 20.0)
    assert (derived["fastest_rival"], derived["over_fastest"]) == ("torch-eager bf16", 8.0)
    alone = {
        name: rate for name, rate in rates.items() if "torch" not in name and "jax" not in name
    }
    derived = dreams.derive(alone, "fp32", n=1, flops_per_step=5)
    assert [derived[k] for k in ("over_baseline", "fastest_rival", "over_fastest")] == [None] * 3


def test_exponent():
    x = [1, 4, 16, 64, 256]
    assert growth.exponent(x, [7.0, 7.0, 3 * 16**1.5, 3 * 64**1.5, 3 * 256**1.5], 16) == (
        pytest.approx(1.5)
    )


def cells_of(table):
    """The rows of a markdown table, by column."""
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


def tables_of(text):
    return [cells_of(block) for block in text.split("\n\n") if block.startswith("| ")]


@pytest.mark.slow
def test_the_command(capsys, tmp_path):
    out = tmp_path / "runs" / "bench"
    arguments = "--models car_racing --sizes 1 16 --precisions fp32 bf16 --rivals torch-eager jax"
    arguments += " --threads 1 --seconds 0.05 --only dream"
    status = cli.main(["bench", "--out", str(out), *arguments.split()])
    printed, err = capsys.readouterr()
    assert (status, err) == (0, "")
    results = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    text = (out / "bench.md").read_text(encoding="utf-8")
    assert text in printed
    assert tables.markdown(results) == text
    assert results["config"]["sizes"] == [1, 16]
    assert [(row["model"], row["n"], row["threads"]) for row in results["dream"]] == [
        ("car_racing", 1, 1),
        ("car_racing", 16, 1),
    ]
    (table,) = tables_of(text)
    assert len(table) == 4
    for row in results["dream"]:
        for precision in ("fp32", "bf16"):
            rates = {name: rate["median"] for name, rate in row["rates"].items()}
            line = next(x for x in table if x["N"] == str(row["n"]) and x["precision"] == precision)
            mine, derived = rates[f"ours {precision}"], row["ours"][precision]
            assert line["ours"] == f"**{mine:,.0f}**"
            assert line["torch-eager"] == f"{rates[f'torch-eager {precision}']:,.0f}"
            assert derived["over_baseline"] == mine / rates["torch-eager fp32"]
            fastest = max(
                rates[name]
                for name in (f"torch-eager {precision}", f"jax {precision}")
                if name in rates
            )
            assert derived["over_fastest"] == mine / fastest
            assert derived["of_peak"] == pytest.approx(
                mine * row["flops_per_step"] / rates[f"peak {precision}"]
            )
            assert 0 < derived["of_peak"] < 1.1
            assert mine < 1.3 * derived["limit"]
    for rate in (rate for row in results["dream"] for rate in row["rates"].values()):
        assert rate["low"] <= rate["median"] <= rate["high"]
        assert rate["runs"] >= 3
    with Image.open(out / "bench.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.slow
def test_every_section(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "AXES", {"N": (16, 32, 64), "T": (4, 8, 16), "H": (16, 32, 64)})
    monkeypatch.setattr(growth, "FITTED_FROM", {"N": 16, "T": 4, "H": 16})
    monkeypatch.setattr(growth, "FIXED", {"N": 16, "T": 8, "H": 32})
    monkeypatch.setattr(growth, "POPULATIONS", ((2, 16),))
    monkeypatch.setattr(growth, "COLD_STARTS", 1)
    monkeypatch.setattr(limits, "GENERATION_STEPS", 30)
    monkeypatch.setattr(limits, "FULL_SECONDS", 0.05)
    monkeypatch.setattr(single_ops, "SIZES", (4,))
    threads = min(2, len(machine.allowed_cpus()))
    config = BenchConfig(
        out=tmp_path,
        models=("car_racing",),
        precisions=("fp32",),
        rivals=("torch-eager", "onnxruntime"),
        threads=threads,
        seconds=0.01,
        only=("ops", "growth", "limits"),
    )
    results = command.bench(config)
    text = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert text.index("## Limits") < text.index("## Growth") < text.index("## Single operations")
    assert "dream" not in results
    assert not (tmp_path / "bench.png").exists()

    rows = {}
    for cell in results["limits"]:
        rows.setdefault(cell["kind"], []).extend(cell["rows"])
    assert set(rows) == {"one rollout", "peak", "generation"} | (
        {"threads"} if threads > 1 else set()
    )
    (one,) = rows["one rollout"]
    assert one["over_reading"] == pytest.approx(
        one["reads_per_second"]["median"] / one["steps_per_second"]["median"]
    )
    assert [row["n"] for row in rows["peak"]] == [64, 1024]
    assert all(0 < row["of_peak"] < 1.1 for row in rows["peak"])
    (generation,) = rows["generation"]
    assert 1 < generation["mean_length"] <= 30

    grown = {cell["kind"]: cell["rows"] for cell in results["growth"]}
    for axis, values in growth.AXES.items():
        (row,) = grown[axis]
        assert row["values"] == list(values)
        assert row["exponent"] == growth.exponent(values, row["seconds"], 0)
    (start,) = grown["start"]
    assert start["import_numpy_and_torch"] > start["second_call"] > 0
    assert grown["packing"][0]["seconds"] > 0
    assert (tmp_path / "growth.png").stat().st_size > 10_000

    operations = [(row["op"], row["n"]) for row in results["ops"]]
    assert operations == [(op, 4) for op in OPS] + [(op, 0) for op in OPS]
    step = results["ops"][0]
    present = {"ours fp32", "torch-eager fp32"} | (
        set() if "onnxruntime fp32" in results["left_out"] else {"onnxruntime fp32"}
    )
    assert set(step["microseconds"]) == present
    for row in results["ops"]:
        for name, rate in row["calls_per_second"].items():
            assert row["microseconds"][name] == pytest.approx(1e6 / rate["median"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--sizes 17", "--sizes: expected 1 to 16 rollouts or a multiple of 16, got 17"),
        ("--sizes 0", "sizes: expected 1 to 16"),
        ("--threads 0", "--threads: expected at least 1, got 0"),
        ("--threads 5000", "the processors of this machine, got 5000"),
        ("--seconds 0", "--seconds: expected a finite number above 0, got 0"),
        ("--models pong", "pong"),
        ("--precisions fp8", "fp8"),
        ("--rivals numpy", "numpy"),
        ("--only everything", "everything"),
    ],
)
def test_misuse(capsys, tmp_path, arguments, words):
    status = cli.main(["bench", "--out", str(tmp_path / "out"), *arguments.split()])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"models": ()}, "models: expected at least one"),
        ({"sizes": ()}, "sizes: expected at least one"),
        ({"precisions": ("fp64",)}, "precisions: expected some of fp32, bf16, int8; got 'fp64'"),
        ({"rivals": ("numpy",)}, "rivals: expected some of torch-eager"),
        ({"only": ("all",)}, "only: expected some of dream"),
        ({"seconds": math.nan}, "--seconds: expected a finite number above 0, got nan"),
    ],
)
def test_settings_from_python(settings, words):
    with pytest.raises(ValueError, match=words):
        BenchConfig(**settings).check()

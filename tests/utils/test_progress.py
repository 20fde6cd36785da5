import io
import time

import pytest
from rich.console import Console

from worldmodels_fast.utils import progress
from worldmodels_fast.utils.progress import StageProgress, format_metrics, sparkline


@pytest.fixture
def output(monkeypatch):
    file = io.StringIO()
    console = Console(file=file, highlight=False, markup=False, soft_wrap=True, width=80)
    monkeypatch.setattr(progress, "console", console)
    return file


def test_plain_lines_when_nobody_watches(output, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_LINE_EVERY", 0.0)
    with StageProgress("train-vae", 3000, "batches", done=1000) as bar:
        time.sleep(0.01)
        bar.update(2000, {"reconstruction": 12.3456, "held_out_kl": 32.0})
        bar.update(3000, "that is [all] there is, " + "on one line " * 10)
    lines = output.getvalue().splitlines()
    assert lines[0] == "train-vae: 3,000 batches, 1,000 of them done before"
    assert lines[1].startswith("train-vae: 2,000/3,000 batches, ")
    assert lines[1].endswith("min left  reconstruction 12.35  held out kl 32")
    assert lines[-1].startswith("train-vae: 3,000 batches in 0 s (")
    assert "that is [all] there is, on one line" in lines[-1]
    assert len(lines) == 4


def test_one_line_a_minute_is_enough(output):
    with StageProgress("encode", 1000, "shards") as bar:
        for done in range(1000):
            bar.update(done + 1)
    assert len(output.getvalue().splitlines()) == 2


def test_nothing_is_said_of_an_end_that_failed(output):
    def fail():
        with StageProgress("encode", 10, "shards"):
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        fail()
    assert output.getvalue().splitlines() == ["encode: 10 shards"]


def test_a_bar_on_a_terminal(monkeypatch):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, highlight=False, markup=False, width=150)
    monkeypatch.setattr(progress, "console", console)
    with StageProgress("evolve", 20, "generations", done=5) as bar:
        bar.update(20, "mean [5] best 7")
        bar.update(10)
    assert "generations" in file.getvalue()
    assert "evolve: 10 generations in" in file.getvalue()


def test_a_bar_of_nothing(output):
    with StageProgress("collect", 0, "episodes") as bar:
        bar.update(0)
    assert "0 episodes" in output.getvalue()


def test_metrics_on_one_line():
    assert format_metrics({"z_loss": 0.98765, "kl": 32}) == "z loss 0.9877  kl 32"
    assert format_metrics({}) == ""


def test_sparks(output):
    assert sparkline([]) == ""
    assert sparkline([3.0]) == "▁"
    assert sparkline([0.0, 7.0, 3.5]) == "▁█▅"
    assert sparkline(list(range(100)), width=8) == "▁▂▃▄▅▆▇█"


def test_no_sparks_where_they_cannot_be_written(monkeypatch):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(progress, "console", Console(file=file))
    assert sparkline([1.0, 2.0]) == ""

import json
import math

import pytest

from worldmodels_fast import envs
from worldmodels_fast.report.curves import (
    Curve,
    authors_curve,
    curve_of,
    curves_of,
    draw_curves,
    published_folder,
)
from worldmodels_fast.report.records import RunRecords


def quoted_curve(environment):
    theirs = envs.ENVIRONMENTS[environment].authors_curve
    return Curve(f"{theirs.name} (quoted)", theirs.quoted)


def write_run(folder, scored, tau=1.15, finished=True):
    """History of generations that took 36 s each on two processors."""
    (folder / "stages").mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"evolve": {"temperature": tau}}), encoding="utf-8"
    )
    if finished:
        (folder / "stages" / "evolve.json").write_text('{"processors": 2}', encoding="utf-8")
    rows = [{"generation": g, "seconds": 36.0, "gap_seconds": 99.0} for g in range(4)]
    for generation, score in scored.items():
        rows[generation]["mean_score"] = score
    (folder / "history.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )


def test_a_runs_curve(tmp_path):
    write_run(tmp_path, {1: 300.0, 3: 500.0})
    curve = curve_of(RunRecords(tmp_path), "ours")
    assert [point[0] for point in curve.points] == [2, 4]
    assert [point[1] for point in curve.points] == pytest.approx([0.04, 0.08])  # core-hours
    assert [point[2] for point in curve.points] == [300.0, 500.0]
    (tmp_path / "history.jsonl").unlink()
    assert curve_of(RunRecords(tmp_path), "ours") is None


def test_a_run_and_its_rows(tmp_path):
    write_run(tmp_path, {3: 500.0})
    assert [curve.name for curve in curves_of(RunRecords(tmp_path))] == ["ours, tau 1.15"]
    (tmp_path / "config.json").rename(tmp_path / "settings")  # a demo has none
    assert [curve.name for curve in curves_of(RunRecords(tmp_path))] == ["ours"]
    (tmp_path / "settings").rename(tmp_path / "config.json")
    write_run(tmp_path / "sweep" / "tau-0.5", {3: 900.0}, 0.5, finished=False)
    write_run(tmp_path / "sweep" / "tau-1.3", {}, 1.3)
    names = [curve.name for curve in curves_of(RunRecords(tmp_path))]
    assert names == ["ours, tau 1.15", "ours, tau 0.5"]
    assert math.isnan(curves_of(RunRecords(tmp_path))[1].points[0][1])
    write_run(tmp_path / "sweep" / "tau-1.15", {1: 1.0})
    curves = curves_of(RunRecords(tmp_path))  # the run's own is the row's
    assert [curve.name for curve in curves] == ["ours, tau 0.5", "ours, tau 1.15"]
    quoted = quoted_curve("take-cover")
    figure = draw_curves(curves, quoted)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [quoted.name, "ours, tau 0.5", "ours, tau 1.15"]
    figure.savefig(tmp_path / "figure.png")


def test_without_the_logs_what_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("WMF_PUBLISHED", str(tmp_path))
    assert published_folder() == tmp_path
    assert authors_curve("take-cover") == quoted_curve("take-cover")
    assert quoted_curve("take-cover").name == "the authors, tau 1.25, 64 cores (quoted)"
    assert authors_curve("car-racing") == quoted_curve("car-racing")
    assert authors_curve("pong") is None


def test_a_run_in_the_game_has_no_temperature(tmp_path):
    write_run(tmp_path, {1: -20.0, 3: 500.0}, 1.0)
    config = {"evolve": {"temperature": 1.0, "where": "game"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (curve,) = curves_of(RunRecords(tmp_path))
    assert curve.name == "ours"
    figure = draw_curves([curve], None, "reward in the game")
    assert figure.axes[0].get_ylabel() == "score of the mean: reward in the game"


@pytest.mark.parametrize("environment", ["take-cover", "car-racing"])
@pytest.mark.skipif(
    not (published_folder() / "doom").is_dir(), reason="the authors' logs are not here"
)
def test_what_is_quoted_is_what_their_logs_say(environment):
    curve = authors_curve(environment)
    assert isinstance(curve, Curve)
    assert [point[0] for point in curve.points] == list(range(25, 1801, 25))
    for generations, hours, best in quoted_curve(environment).points:
        until = [point for point in curve.points if point[0] <= generations]
        assert max(point[2] for point in until) == pytest.approx(best, abs=1)
        assert math.isnan(hours) or until[-1][1] == pytest.approx(hours, rel=0.1)

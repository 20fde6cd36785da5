"""The folders' order: each imports only from those above it, and modules form no circle."""

import sys

import pytest
from folders import ROOT

sys.path.insert(0, str(ROOT / "tools"))
layers = pytest.importorskip("layers", reason="tests are run without the repository's tools")


def test_folders_import_only_from_those_above():
    order, known = layers.layers(), layers.modules()
    assert len(order) > 15
    assert len(known) > 150
    assert layers.wrong_folders(order, known) == []


def test_modules_form_no_circle():
    floor, circles = layers.floors(layers.modules())
    assert circles == []
    assert floor["worldmodels_fast.types"] == 0 < floor["worldmodels_fast.cli.main"]


def test_an_import_that_goes_up_and_a_circle_are_found(tmp_path, monkeypatch):
    for name, text in {
        "ops/a": "def f():\n    from worldmodels_fast.cli import b\n",
        "cli/b": "from worldmodels_fast.ops.a import f\n",
        "odd/c": "",
    }.items():
        path = tmp_path / "worldmodels_fast" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    known = layers.modules()
    assert layers.wrong_folders(["ops", "cli"], known) == [
        "odd: not in CONTRIBUTING.md's list of layers",
        "worldmodels_fast.ops.a imports worldmodels_fast.cli.b: cli is below ops",
    ]
    assert layers.floors(known)[1] == ["worldmodels_fast.cli.b", "worldmodels_fast.ops.a"]

"""The precision that "auto" and "fastest" mean is decided in one place, by the backend."""

import ast
from pathlib import Path

import pytest
from backends import BACKENDS, LEVELS
from random_models import random_weights
from small_worlds import small_world

import worldmodels_fast
from worldmodels_fast import VAE, ops
from worldmodels_fast.rollout.encoder import PackedEncoder
from worldmodels_fast.rollout.players import Players

EXPECTED = {
    "generic": ("fp32", "fp32", "fp32"),
    "avx2": ("fp32", "fp32", "fp32"),
    "avx512": ("fp32", "fp32", "fp32"),
    "avx512_bf16": ("bf16", "int8", "bf16"),
    "cuda": ("fp16", "fp16", "bf16"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["argument", "variable"])
def test_the_backend_decides(backend, how, monkeypatch):
    if how == "variable":
        monkeypatch.setenv("WMF_BACKEND", backend)
    given = backend if how == "argument" else None
    assert ops.resolve_precision("auto", backend=given) == EXPECTED[backend][0]
    assert ops.resolve_precision("fastest", "mdn_rnn", given) == EXPECTED[backend][1]
    if backend != "cuda" or given:
        assert ops.resolve_precision("auto", "vae_encoder", given) == EXPECTED[backend][2]
    for precision in ("fp32", "fp16", "bf16", "int8"):
        assert ops.resolve_precision(precision, backend=given) == precision


@pytest.mark.parametrize("level", LEVELS)
def test_everything_that_plays_follows_the_variable(level, monkeypatch):
    monkeypatch.setenv("WMF_BACKEND", level)
    m, fastest, v = EXPECTED[level]
    weights, world = random_weights(4, 1, 8, 3, True), small_world()
    assert ops.pack_mdn_rnn(weights, precision="auto").precision == m
    assert ops.pack_mdn_rnn(weights, precision="fastest").precision == fastest
    assert ops.pack_vae_encoder(VAE(4).encoder_weights(), precision="auto").precision == v
    assert PackedEncoder(world.vae, "auto").precision == v
    assert world.dream(precision="auto").model.precision == m
    assert world.dream(precision="fastest").model.precision == fastest
    players = Players(world.vae, world.mdn_rnn, world.controller.spec, vae_precision="auto")
    assert players._vae.precision == v


def test_torch_is_asked_for_training_alone():
    """`products_in_bf16` asks torch about its own matrix products, not about the kernels."""
    folder = Path(worldmodels_fast.__file__).parent
    users = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "products_in_bf16"
    }
    assert users <= {"training", "experiments"}
    stages = folder / "experiments" / "stages"
    assert not [
        path
        for path in stages.glob("*.py")
        if "products_in_bf16" in path.read_text(encoding="utf-8")
    ]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="precision: expected"):
        ops.resolve_precision("fp8")
    with pytest.raises(ValueError, match="precision: expected 'fp32', 'bf16' or"):
        ops.resolve_precision("int8", "vae_encoder")
    with pytest.raises(ValueError, match="kernel: expected 'mdn_rnn' or 'vae_encoder', got 'c'"):
        ops.resolve_precision("auto", "c")
    with pytest.raises(ValueError, match="backend: expected one of"):
        ops.resolve_precision("auto", backend="mmx")

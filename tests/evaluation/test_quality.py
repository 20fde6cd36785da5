"""The dream measured on held-out episodes: each measure on made-up data whose answer is known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import ndimage, stats
from small_episodes import ENV_ID
from small_worlds import small_mdn_rnn, small_world

from worldmodels_fast import VAE, data, ops
from worldmodels_fast.cli import main as cli
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.fidelity.survival import hazard, kaplan_meier, log_rank, survival
from worldmodels_fast.evaluation.quality import tables, take_cover
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.contents import contents_module, contents_of
from worldmodels_fast.evaluation.quality.deaths import (
    alarms,
    deaths,
    judge,
    reliability,
    rise,
    wilson,
)
from worldmodels_fast.evaluation.quality.dreaming import decode, dream_episodes, dream_on, follow
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.measure import measure
from worldmodels_fast.evaluation.quality.prediction import frame_error, horizons, prediction
from worldmodels_fast.experiments.config import save_config
from worldmodels_fast.experiments.pipeline import run_stage
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.models.mdn_rnn import mixture_nll
from worldmodels_fast.training.encode import encode_episodes

SMALL = QualityConfig(episodes=9, windows=6, warm_up=5, horizon=4, samples=3, frames=20, dreams=5)


def write_episodes(folder, vae, lengths, seed=0):
    """Shards of episodes with walls, fire and long pushes, and their latents."""
    rng = np.random.default_rng(seed)
    for shard, steps in enumerate(lengths):
        episodes = []
        for n in steps:
            frames = np.full((n, 64, 64, 3), 80, np.uint8)
            frames[:, 20:44] = (110, 80, 60)
            for t in range(n):
                row, column = rng.integers(0, 60, 2)
                frames[t, row : row + 4, column : column + 4] = 240
            side = np.where(np.arange(n) // 70 % 2, 1.0, -1.0)
            episodes.append(
                data.Episode(
                    frames=frames,
                    actions=side[:, None].astype(np.float32),
                    rewards=np.ones(n, np.float32),
                    terminated=n % 2 == 1,
                    seed=n,
                )
            )
        data.write_episodes(folder / "episodes", shard, episodes, ENV_ID)
    encode_episodes(folder / "episodes", folder / "latents", vae, precision="fp32")


@pytest.fixture(scope="module")
def world():
    return small_world(environment="take-cover")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, world):
    folder = tmp_path_factory.mktemp("held-out")
    write_episodes(folder, world.vae, [[31, 80], [95, 12, 150]])
    return folder


@pytest.fixture(scope="module")
def held_out(folder):
    return HeldOut(folder / "episodes", folder / "latents", [0, 1], 9)


def test_held_out_episodes_end_to_end(folder, held_out):
    assert held_out.lengths.tolist() == [31, 80, 95, 12, 150]
    assert len(held_out) == len(held_out.mu) == 368
    assert held_out.terminated.tolist() == [True, False, True, False, False]
    assert np.flatnonzero(held_out.dies).tolist() == [30, 31 + 80 + 95 - 1]
    assert held_out.in_episode[[0, 30, 31, 111]].tolist() == [0, 30, 0, 0]
    for tic in held_out.windows(50, before=10, after=20, seed=1):
        episode = np.searchsorted(held_out.starts, tic, side="right") - 1
        assert 10 <= held_out.in_episode[tic] < held_out.lengths[episode] - 20
    wanted = np.array([367, 0, 110, 0, 205])
    frames = held_out.frames(wanted)
    every = data.read_frames(folder / "episodes", 0, 1)
    np.testing.assert_array_equal(frames, every[wanted])
    few = HeldOut(folder / "episodes", folder / "latents", [0, 1], 1)
    assert few.lengths.tolist() == [31]
    np.testing.assert_array_equal(few.frames(np.array([30])), every[[30]])


def test_other_episodes_than_those_encoded_are_noticed(tmp_path, folder, world):
    write_episodes(tmp_path, world.vae, [[31, 70]])
    mixed = HeldOut(tmp_path / "episodes", folder / "latents", [0], 9)
    with pytest.raises(ValueError, match="70 tics, its latents 80; encode these episodes again"):
        mixed.frames(np.array([40]))


def test_following_is_what_torch_says(world, held_out):
    z = held_out.sampled(3)
    tics = np.array([0, 31 + 17, 111 + 40])
    dream = world.dream(temperature=1.0)
    followed = follow(dream, held_out, z, tics)
    for start, length in zip(held_out.starts, held_out.lengths, strict=True):
        mine = slice(start, start + length)
        restart = torch.zeros(length, 1)
        restart[0] = 1
        out = world.mdn_rnn(
            torch.from_numpy(z[mine, None]),
            torch.from_numpy(held_out.actions[mine, None]),
            restart=restart,
        )
        np.testing.assert_allclose(followed.logit[mine], out.done_logit[:, 0], atol=2e-3)
        nll = mixture_nll(out, torch.from_numpy(np.roll(z[mine, None], -1, axis=0))).mean((1, 2))
        np.testing.assert_allclose(followed.nll[mine][:-1], nll[:-1], atol=2e-3)
        assert np.isnan(followed.nll[start + length - 1])
    assert not followed.h[0].any()
    # Dreaming on with mean paths from the remembered state is what following does from there.
    out = ops.mdn_rnn_step(
        dream.model, z[tics], held_out.actions[tics], followed.h, followed.c, np.float32([1, 0, 0])
    )
    np.testing.assert_allclose(out.done_logit[1:], followed.logit[tics][1:], atol=1e-5)


def test_dreaming_on():
    dream = Dream(small_mdn_rnn(), None, (np.zeros((1, 4), "f4"),) * 2, temperature=1.0)
    rng = np.random.default_rng(0)
    z, h, c = (rng.normal(size=(3, n)).astype(np.float32) for n in (4, 8, 8))
    actions = rng.uniform(-1, 1, (6, 3, 1)).astype(np.float32)
    one, two = (dream_on(dream, z, h, c, actions, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.z, two.z)
    assert one.z.shape == (6, 3, 4)
    assert one.logit.shape == one.done.shape == (6, 3)
    np.testing.assert_array_equal(one.done, one.logit > 0)
    mean = dream_on(dream, z, h, c, actions, seed=None).z
    many = [np.repeat(part, 4000, axis=0) for part in (z[:1], h[:1], c[:1])]
    sampled = dream_on(dream, *many, np.repeat(actions[:1, :1], 4000, axis=1), seed=1).z
    np.testing.assert_allclose(sampled[0].mean(0), mean[0, 0], atol=0.1)


def test_whole_dreams_last_as_long_as_the_dream_says(world):
    dream = world.dream(temperature=1.0, max_steps=60)
    dreamt = dream_episodes(dream, ("left",), 40, seed=2)
    np.testing.assert_array_equal(dreamt.lengths, dream.survival_of("left", 40, seed=2))
    assert len(dreamt.z) == dreamt.lengths.sum()
    assert (dreamt.died | (dreamt.lengths == 60)).all()
    mixed = dream_episodes(dream, ("left", "uniform"), 5, seed=2)
    assert len(mixed.lengths) == 5
    assert len(mixed.z) == mixed.lengths.sum()


# --- prediction -------------------------------------------------------------------------------


def test_prediction_errors_are_measured_against_the_real_future(world, held_out):
    z = held_out.mu
    dream = world.dream(temperature=1.0)
    tics = held_out.windows(6, 5, 4, seed=0)
    followed = follow(dream, held_out, z, tics)
    settings = {"horizon": 4, "samples": 3, "seed": 1}
    memory = followed.h, followed.c
    result = prediction(world, dream, held_out, z, tics, memory, **settings)
    assert result["tics"] == [1, 2, 3, 4]
    assert result["pixel_tics"] == [1, 2]
    # The untrained V of these tests uses no dimension: all of them count.
    variance = held_out.mu.var(0)
    copy = [((z[tics] - z[tics + k]) ** 2 / variance).mean() for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(result["latent"]["copy"], copy, rtol=1e-4)
    path = dream_on(dream, z[tics], *memory, held_out.actions[tics + np.zeros((4, 1), int)], None).z
    first = ((path[0] - z[tics + 1]) ** 2 / variance).mean()
    assert result["latent"]["mean path"][0] == pytest.approx(first, rel=1e-3)
    real, start = held_out.frames(tics + 2), held_out.frames(tics)
    assert result["pixel"]["copy"][1] == pytest.approx(frame_error(start, real))
    own = frame_error(decode(world.vae, held_out.mu[tics + 2]), real)
    assert result["pixel"]["reconstruction"][1] == pytest.approx(own)


def test_horizons():
    errors = {"mean of samples": [0.5, 0.4, 0.95, 0.5], "unconditional": [1.0] * 4}
    assert horizons({**errors, "copy": [0.1, 0.5, 1.0, 1.0]}) == (2, 2)
    assert horizons({**errors, "copy": [1.0] * 4})[0] == 1
    assert horizons({**errors, "copy": [0.1] * 4})[0] is None
    good = {"mean of samples": [0.1, 0.2], "unconditional": [1.0, 1.0], "copy": [1.0, 1.0]}
    assert horizons(good) == (1, 2)


# --- deaths -----------------------------------------------------------------------------------


class Made:
    """Episodes of these lengths without frames."""

    def __init__(self, lengths, terminated):
        self.lengths = np.array(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.terminated = np.array(terminated)

    def __len__(self):
        return int(self.lengths.sum())

    dies = HeldOut.dies
    in_episode = HeldOut.in_episode


@pytest.fixture(scope="module")
def made_deaths():
    """Episodes drawn with a known chance of dying in each tic, and the logit of a weight of 10."""
    rng = np.random.default_rng(0)
    lengths, terminated, parts = [], [], []
    for _ in range(1500):
        p = np.clip(rng.beta(0.1, 8.0, 200), 1e-9, 1 - 1e-9)
        dies = rng.random(200) < p
        n = int(dies.argmax()) + 1 if dies.any() else 200
        lengths.append(n)
        terminated.append(bool(dies.any()))
        parts.append(p[:n])
    p = np.concatenate(parts)
    return Made(lengths, terminated), (np.log(p / (1 - p)) + np.log(10)).astype(np.float32)


def dream_of(**settings):
    return Dream(small_mdn_rnn(), None, (np.zeros((1, 4), "f4"),) * 2, **settings)


def test_a_right_logit_is_found_to_be_right(made_deaths):
    made, logit = made_deaths
    result = deaths(logit, made, 10.0, dream_of(done_threshold=np.log(10), done_temperature=1.0))
    undone, own = result["judged"]["weight undone"], result["judged"]["the dream's"]
    assert own["log_loss"] == pytest.approx(undone["log_loss"], rel=1e-4)
    assert result["deaths"] == made.terminated.sum()
    assert abs(undone["expected_deaths"] - result["deaths"]) < 3 * undone["expected_deaths_std"]
    assert undone["log_loss"] < result["judged"]["constant"]["log_loss"]
    calibrated = result["judged"]["calibrated"]
    assert calibrated["log_loss"] == pytest.approx(undone["log_loss"], rel=0.01)
    inside = [row["low"] <= row["predicted"] <= row["high"] for row in undone["reliability"]]
    assert np.mean(inside) >= 0.7
    assert sum(row["deaths"] for row in undone["reliability"]) == result["deaths"]
    # Where the weight is not undone the chances are far too high.
    wrong = deaths(logit, made, 1.0, dream_of())["judged"]
    assert wrong["weight undone"]["expected_deaths"] > 2 * result["deaths"]
    assert wrong["calibrated"]["log_loss"] == pytest.approx(undone["log_loss"], rel=0.01)
    assert "the dream's" not in wrong
    assert result["ends_above"] == pytest.approx(0.5)
    assert deaths(logit, made, 10.0, dream_of())["ends_above"] == pytest.approx(1 / 11)
    json.dumps(result, allow_nan=False)


def test_judging_by_hand():
    made = Made([3, 2], [True, False])
    known = np.array([1, 1, 1, 1, 0], bool)
    p = np.array([0.5, 0.0, 1.0, 0.5, 0.9])
    judged = judge(p, made, known)
    assert judged["expected_deaths"] == pytest.approx(2.0)
    assert judged["brier"] == pytest.approx((0.25 + 0 + 0 + 0.25) / 4)
    assert judged["over_time"] == [[0, 4, 1, 2.0]]
    assert judged["log_loss"] == pytest.approx(2 * np.log(2) / 4, rel=1e-6)


def test_reliability_counts_every_tic_once():
    p = np.array([0.0, 1e-5, 0.05, 0.05, 0.7, 1.0])
    died = np.array([0, 0, 0, 1, 1, 1], bool)
    rows = reliability(p, died)
    assert sum(row["tics"] for row in rows) == 6
    middle = next(row for row in rows if row["from"] == 0.03)
    assert (middle["tics"], middle["deaths"], middle["observed"]) == (2, 1, 0.5)
    low, high = wilson(3, 10)
    exact = stats.binomtest(3, 10).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-4)


def test_alarms_by_hand():
    made = Made([20, 10, 15], [True, False, True])
    logit = np.full(45, -9.0, np.float32)
    logit[16] = 0.5  # 3 tics before the first death
    logit[25] = 0.5  # nobody dies in this episode
    rows = {(r["threshold"], r["tolerance"]): r for r in alarms(logit, made)}
    strict, loose = rows[0.0, 0], rows[0.0, 5]
    assert (strict["alarms"], strict["precision"], strict["recall"]) == (2, 0.0, 0.0)
    assert (loose["precision"], loose["recall"]) == (0.5, 0.5)
    assert strict["stopped early"] == pytest.approx(2 / 3)
    assert loose["stopped early"] == pytest.approx(1 / 3)
    assert rows[1.0, 5]["alarms"] == 0


def test_when_the_logit_rises():
    made = Made([100, 100, 30], [True, True, False])
    left = np.concatenate([np.arange(100)[::-1], np.arange(100)[::-1], np.arange(30)[::-1]])
    result = rise(np.where(left < 7, 2.0, -5.0).astype(np.float32), made)
    assert (result["notice"], result["usual"], result["deaths"]) == (7, -5.0, 2)
    assert result["before"][0] == [2.0, 2.0, 2.0]


# --- survival ---------------------------------------------------------------------------------

LIVES = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=2, max_size=40)


@given(LIVES)
@settings(max_examples=60, deadline=None)
def test_kaplan_meier_is_scipys(lives):
    times, died = map(np.array, zip(*lives, strict=True))
    at, alive = kaplan_meier(times, died)
    expected = stats.ecdf(stats.CensoredData.right_censored(times, ~died)).sf
    np.testing.assert_allclose(alive, expected.evaluate(at), atol=1e-12)


@given(LIVES, LIVES)
@settings(max_examples=60, deadline=None)
def test_log_rank_is_scipys(one, two):
    (a, da), (b, db) = (map(np.array, zip(*lives, strict=True)) for lives in (one, two))
    p = log_rank(a, da, b, db)
    x, y = (stats.CensoredData.right_censored(t, ~d) for t, d in ((a, da), (b, db)))
    with np.errstate(all="ignore"):
        expected = stats.logrank(x, y).pvalue
    if np.isfinite(expected):
        assert p == pytest.approx(expected, abs=1e-9)
    else:  # nobody dies while both live
        assert p == 1.0


def test_hazards_by_hand():
    times, died = [50, 150, 250, 250], [True, True, False, True]
    assert hazard(times, died) == [(0, 1, 350.0), (100, 1, 250.0), (200, 1, 100.0)]


def test_survival_of_fidelity_rows():
    rng = np.random.default_rng(0)
    same = FidelityRow.compare("same", rng.exponential(200, 150), rng.exponential(200, 150))
    safer = FidelityRow.compare(
        "safer", rng.exponential(200, 150), np.minimum(rng.exponential(500, 150), 2100)
    )
    first, second = survival([same, safer], 2100, 2100)
    assert first["p"] > 0.01
    assert second["p"] < 1e-6
    assert second["dream"]["median"] > 1.5 * second["game"]["median"]
    assert second["dream"]["censored"] == sum(s >= 2100 for s in safer.dream_scores)
    head, lines = tables.survivals([first, second])
    assert lines[1][2] == "< 0.001"
    assert all(len(line) == len(head) for line in lines)


# --- take cover -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.7))
@settings(max_examples=25, deadline=None)
def test_blobs_are_scipys(seed, density):
    mask = np.random.default_rng(seed).random((3, 12, 15)) < density
    label, picture, size = take_cover.blobs(mask)
    assert (label > 0).tolist() == mask.tolist()
    number = 0
    for n, one in enumerate(mask):
        expected, count = ndimage.label(one, structure=np.ones((3, 3)))
        assert (picture == n).sum() == count
        for k in range(1, count + 1):
            assert len(np.unique(label[n][expected == k])) == 1
            assert size[label[n][expected == k][0] - 1] == (expected == k).sum()
        number += count
    assert label.max(initial=0) == number == len(size)


def empty_room(n):
    frames = np.full((n, 64, 64, 3), 80, np.uint8)
    frames[:, 28:36] = (110, 80, 60)
    return frames


def test_walls_and_fire_are_told_by_their_colours():
    frames = empty_room(3)
    frames[1, :, :16] = (110, 80, 60)
    frames[2, 40:50, 30:40] = (255, 250, 150)
    np.testing.assert_allclose(take_cover.wall(frames)[:, 0], [0, 0.5, 0], atol=0.01)
    assert not take_cover.wall(frames)[:, 1].any()
    assert take_cover.fire(frames).sum((1, 2)).tolist() == [0, 0, 100]


def test_which_fireballs_are_kept():
    real = empty_room(4)
    real[0, 10:12, 10:12] = 240  # 4 pixels, lost
    real[1, 10:20, 10:20] = 240  # 100 pixels, kept
    real[1, 40:42, 40:43] = 240  # 6 pixels, kept
    real[2, 0:2, 0:2] = 240  # 4 pixels, a quarter of its brightness left
    seen = empty_room(4)
    seen[1] = real[1]
    seen[2, 0:2, 0:2] = 120
    seen[3, 30:33, 30:33] = 240  # there was none
    rows = {row["from"]: row for row in take_cover.fireballs_kept(real, seen)}
    assert set(rows) == {4, 64}
    assert (rows[64]["fireballs"], rows[64]["kept"]) == (1, 1.0)
    assert (rows[4]["fireballs"], rows[4]["kept"]) == (3, pytest.approx(1 / 3))
    assert rows[4]["brightness"] == pytest.approx((0 + 1 + 0.25) / 3)
    assert take_cover.fireballs_invented(real, seen) == pytest.approx(1 / 3)
    assert take_cover.fireballs_kept(empty_room(2), seen[:2]) == []
    assert take_cover.fireballs_invented(real, empty_room(4)) is None


def test_pushes_are_found(held_out):
    found = take_cover.pushes(held_out)
    # 80, 95 and 150 tics long; left for 70 tics, then right for 70, then left.
    assert found == [(31 + 10, 60, 0), (111 + 10, 60, 0), (218 + 10, 60, 0), (218 + 70, 70, 1)]
    for begin, tics, side in found:
        assert (held_out.actions[begin : begin + tics] == (-1.0, 1.0)[side]).all()


# --- all of it --------------------------------------------------------------------------------


def test_everything_is_measured_and_said(world, held_out):
    parts = []
    settings = {"done_weight": 10.0, "policies": ("left", "uniform"), "seed": 3}
    result = measure(world, held_out, SMALL, **settings, on_part=parts.append)
    assert len(parts) == 5
    assert result == measure(world, held_out, SMALL, **settings)
    json.dumps(result, allow_nan=False)
    contents = result["contents"]
    # Each made-up frame has one fireball of up to 16 pixels.
    assert contents["fire"]["game"]["fireballs"] == 1.0
    assert sum(row["fireballs"] for row in contents["kept"]) == 20
    assert contents["hits"]["deaths"] == 2
    assert contents["walls"]["pushes"] == 4
    assert contents["walls"]["slipped"]["game"] is None  # nobody has reached a wall
    result["held_out"] = True
    text = tables.summary(result)
    for words in (
        "V: squared error of a frame",
        "error / variance after",
        "deaths expected (were 2)",
        "kept by V",
    ):
        assert words in text
    assert tables.headline(result)["deaths"] == 2.0


def test_a_world_of_another_game_whose_m_predicts_no_end(held_out):
    world = small_world(predicts_done=False, environment="car-racing")
    result = measure(world, held_out, SMALL, done_weight=10.0, policies=("left",), seed=3)
    assert set(result) & {"deaths", "contents"} == set()
    assert "prediction" in result
    assert "error / variance" in tables.summary(result)


EARLIER = Path(__file__).parents[2] / "benchmarks" / "results" / "runs"


@pytest.mark.parametrize("run", ["take-cover-quick", "take-cover-second-round"])
def test_files_from_before_there_was_the_key_contents_are_read(run):
    result = json.loads((EARLIER / run / "quality.json").read_text(encoding="utf-8"))
    assert "take_cover" in result
    module, contents = contents_of(result)
    assert module is take_cover
    assert contents == result["take_cover"]
    text = tables.summary(result)
    for words in ("the paper's log", "| 0.0005 ", "pushes that slip off the wall", "kept by V"):
        assert words in text
    assert len(module.figure(contents).axes) == 3


def test_a_game_without_a_module_has_no_contents():
    result = json.loads((EARLIER / "car-racing-quick" / "quality.json").read_text(encoding="utf-8"))
    assert contents_of(result) is None
    assert "the paper's log" not in tables.summary(result)
    assert contents_module(None) is None


def test_bad_settings_are_named(held_out, world):
    with pytest.raises(ValueError, match=r"--quality\.windows: expected at least 1, got 0"):
        QualityConfig(windows=0).check()


def small_run(folder):
    """A run whose V and M are small and untrained, as the stage `quality` finds it."""
    smoke = make_recipe("take-cover-smoke")
    config = dataclasses.replace(
        smoke,
        vae=dataclasses.replace(smoke.vae, latent_dim=4),
        rnn=dataclasses.replace(smoke.rnn, hidden_dim=8, n_mixtures=3),
        quality=SMALL,
    )
    vae = VAE(4)
    write_episodes(folder, vae, [[40, 80], [31, 90]])
    for module, name in ((vae, "vae"), (small_mdn_rnn(), "mdn_rnn")):
        weights = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(weights, folder / f"{name}.safetensors")
    save_config(config, folder / "config.json")
    return Run(folder, config)


def test_the_stage_takes_what_was_held_out(tmp_path, capsys):
    run = small_run(tmp_path)
    run_stage("quality", run)
    result = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))
    assert result["held_out"] is True
    assert (result["episodes"], result["tics"]) == (2, 121)  # those of the last shard
    assert run.record("quality")["figures"]["deaths"] == 1.0
    assert "on held-out episodes" in capsys.readouterr().out
    (tmp_path / "latents" / "shard-00001.safetensors").unlink()
    (tmp_path / "stages" / "quality.json").unlink()
    (tmp_path / "quality.json").unlink()
    run_stage("quality", run)
    assert json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))["held_out"] is False


def test_a_run_without_v_and_m_is_told_so(tmp_path):
    run = small_run(tmp_path)
    (tmp_path / "mdn_rnn.safetensors").unlink()
    with pytest.raises(ValueError, match="not there yet; run the stage `train-rnn` first"):
        run_stage("quality", run)


@pytest.mark.slow
def test_a_finished_world_is_measured_on_fresh_episodes(tmp_path, capsys):
    world = small_world(environment="take-cover", env_kwargs={"skill": 4, "max_steps": 150})
    world.save(tmp_path / "w")
    folder = tmp_path / "out"
    arguments = ["quality", str(tmp_path / "w"), "--folder", str(folder), "--policies", "left"]
    few = ["--measure.frames", "20", "--measure.dreams", "3", "--measure.windows", "3"]
    few += ["--measure.horizon", "20", "--episodes", "2", "--workers", "1"]
    assert cli.main([*arguments, *few]) == 0
    assert "on held-out episodes" in capsys.readouterr().out
    result = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    assert (result["episodes"], result["policies"]) == (2, ["left"])
    assert {path.name for path in folder.glob("*.png")} == {
        "foresight.png",
        "deaths.png",
        "contents.png",
    }
    assert cli.main([*arguments, *few, "--seed", "4"]) == 2
    assert "name another folder, or delete that one" in capsys.readouterr().err

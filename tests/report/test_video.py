"""Reality beside dreams, as pictures and as files."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from small_worlds import small_world

from worldmodels_fast.cli import main as cli
from worldmodels_fast.cli import video as cli_video
from worldmodels_fast.cli.video import make_video
from worldmodels_fast.experiments.config import save_config
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.report import video
from worldmodels_fast.report.pictures import reconstruct
from worldmodels_fast.report.side_by_side import beside, pictures_of
from worldmodels_fast.report.video import VideoOptions, write_video


@pytest.fixture(scope="module")
def world():
    return small_world(environment="take-cover", env_kwargs={"max_steps": 40})


@pytest.fixture(scope="module")
def episode():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    return frames, rng.uniform(-1, 1, (12, 1)).astype(np.float32)


def test_dreams_begin_where_the_watching_ends(world, episode):
    scene = beside(world, *episode, temperatures=(0.5, 2.0), warm_up=5, seed=1, died=True)
    game, seen, *dreams = scene.rows
    assert len(scene) == 12
    np.testing.assert_array_equal(game.frames, episode[0])
    np.testing.assert_array_equal(seen.frames, reconstruct(world, episode[0]))
    assert [row.caption for row in dreams] == ["dream, tau 0.5", "dream, tau 2"]
    for row in dreams:
        # Frame 5 is the last that is seen: its action is the first one that is dreamt.
        np.testing.assert_array_equal(row.frames[:6], seen.frames[:6])
        assert (row.frames[6:] != seen.frames[6:]).any((1, 2, 3)).all()
        assert len(row.frames) == len(row.chance) == 12
        np.testing.assert_array_equal(row.chance[:5], game.chance[:5])
        assert row.chance[5] == pytest.approx(game.chance[5], rel=1e-5)
        assert row.over is None or row.over >= 5
    assert (dreams[0].frames[6:] != dreams[1].frames[6:]).any()


def test_the_bar_and_the_end_follow_the_dreams_rule(episode):
    drawn = small_world(dream={"done_threshold": 2.0, "done_temperature": 4.0})
    hard = small_world(dream={"done_threshold": 2.0})
    arguments = {"temperatures": (1.0,), "warm_up": 3, "seed": 4}
    chances = []
    for world, spread in ((drawn, 4.0), (hard, 1.0)):
        row = beside(world, *episode, **arguments).rows[2]
        logit = spread * np.log(row.chance / (1 - row.chance)) + 2.0
        chances.append(logit)
        if spread == 1.0:
            above = 3 + np.flatnonzero(row.chance[3:] > 0.5)
            assert row.over == (above[0] if above.size else None)
    np.testing.assert_allclose(chances[0], chances[1], atol=1e-4)
    never = small_world(predicts_done=False)
    row = beside(never, *episode, **arguments).rows[2]
    assert (row.chance, row.over) == (None, None)


def test_c_acts_in_the_dream(episode):
    world = small_world(predicts_done=False)
    constant = np.full_like(episode[1], np.tanh(0.7))
    arguments = {"temperatures": (1.0,), "warm_up": 4, "seed": 2}
    controller = LinearController(latent_dim=4, hidden_dim=8, action_dim=1, bias=True)
    params = np.zeros(controller.n_params, np.float32)
    params[0] = 0.7  # whatever it sees
    steady = dataclasses.replace(world, controller=controller.set_flat(params))
    given = beside(steady, episode[0], constant, **arguments).rows[2]
    own = beside(steady, episode[0], constant, **arguments, own_actions=True).rows[2]
    assert own.caption == "dream, tau 1, C acts"
    np.testing.assert_array_equal(own.frames, given.frames)
    # A C that looks does something else than was done in the game.
    other = beside(world, episode[0], constant, **arguments, own_actions=True).rows[2]
    np.testing.assert_array_equal(other.frames[:5], given.frames[:5])
    assert (other.frames[6:] != given.frames[6:]).any()


@pytest.mark.parametrize("warm_up", [0, 12])
def test_something_must_be_left_to_dream(world, episode, warm_up):
    with pytest.raises(ValueError, match="warm_up: expected 1 to 11 tics"):
        beside(world, *episode, temperatures=(1.0,), warm_up=warm_up, seed=0)


def test_pictures_hold_every_row_and_its_bar(world, episode):
    scene = beside(world, *episode, temperatures=(1.0,), warm_up=5, seed=1)
    pictures = list(pictures_of(scene, scale=2))
    assert len(pictures) == 12
    height, width, _ = pictures[0].shape
    assert (height % 2, width % 2) == (0, 0)
    large = episode[0][3].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(pictures[3][28 : 28 + 128, :128], large)
    red = (pictures[3][156:, :128] == (255, 0, 0)).all(-1).any(0).sum()
    assert red == pytest.approx(scene.rows[0].chance[3] * 126, abs=1.5)


def test_a_gif(tmp_path):
    pictures = [np.full((10, 20, 3), 40 * k, np.uint8) for k in range(5)]
    path = tmp_path / "new" / "a.gif"
    write_video(iter(pictures), path, fps=25)
    with Image.open(path) as image:
        assert image.n_frames == 5
        assert image.size == (20, 10)
        assert image.info["duration"] == 40
        image.seek(3)
        np.testing.assert_allclose(np.asarray(image.convert("RGB")), pictures[3], atol=6)


def test_a_webp(tmp_path):
    pictures = [np.full((10, 20, 3), 40 * k, np.uint8) for k in range(5)]
    write_video(iter(pictures), tmp_path / "a.webp", fps=25)
    with Image.open(tmp_path / "a.webp") as image:
        assert image.n_frames == 5
        image.seek(3)
        np.testing.assert_allclose(np.asarray(image.convert("RGB")), pictures[3], atol=6)


# imageio-ffmpeg's reader leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_mp4(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pictures = [np.full((50, 70, 3), 40 * k, np.uint8) for k in range(6)]
    write_video(pictures, tmp_path / "a.mp4", fps=7)
    reader = ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    meta = next(reader)
    assert meta["size"] == (70, 50)
    assert meta["fps"] == 7
    shown = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    np.testing.assert_allclose(shown, [40 * k for k in range(6)], atol=5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "has_ffmpeg", lambda: False)
    with pytest.raises(
        ValueError, match=r"pip install 'worldmodels-fast\[video\]', or name a .gif"
    ):
        write_video([], tmp_path / "a.mp4", fps=35)
    with pytest.raises(ValueError, match=r"out: expected a name ending in .mp4, .gif or .webp"):
        write_video([], tmp_path / "a.avi", fps=35)


def test_a_video_of_a_world(tmp_path, world, monkeypatch, capsys):
    for module in (video, cli_video):
        monkeypatch.setattr(module, "has_ffmpeg", lambda: False)
    world.save(tmp_path / "w")
    arguments = ["video", str(tmp_path / "w"), "--taus", "0.5", "1", "--tics", "20", "--warm-up"]
    assert cli.main([*arguments, "8", "--fps", "10", "--scale", "1"]) == 0
    assert "dream.gif, 20 of 40 tics played by agent" in capsys.readouterr().out
    with Image.open(tmp_path / "w" / "dream.gif") as image:
        assert image.n_frames >= 20  # Pillow joins equal frames, those of the last second
        assert image.size[0] == 4 * 64 + 3 * 4
    assert cli.main([*arguments, "8", "--first", "12", "--fps", "1", "--scale", "1"]) == 0
    with Image.open(tmp_path / "w" / "dream.gif") as image:
        assert image.n_frames <= 9  # tics 12 to 19, and the last one's second
    assert cli.main([*arguments, "20"]) == 2
    assert "--warm-up: expected fewer tics than --tics, 20, got 20" in capsys.readouterr().err
    assert cli.main([*arguments[:-3], "--warm-up", "40"]) == 2  # the episode is too short
    assert "warm_up: expected 1 to 39 tics, got 40" in capsys.readouterr().err


def test_a_run_without_a_controller_is_played_by_a_policy(tmp_path, world, monkeypatch):
    run = Run(tmp_path, make_recipe("take-cover-smoke"))
    save_config(run.config, tmp_path / "config.json")
    monkeypatch.setattr(Run, "load", lambda folder: run)
    monkeypatch.setattr(Run, "unevolved_world", lambda run: world)
    with pytest.raises(ValueError, match=r"player: no controller has evolved in .*; name a policy"):
        make_video(str(tmp_path), VideoOptions(player="agent"))
    options = VideoOptions(taus=(1.0,), tics=10, warm_up=4, scale=1, out=tmp_path / "v.gif")
    assert make_video(str(tmp_path), options) == tmp_path / "v.gif"
    assert (tmp_path / "v.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["video"], "usage: worldmodels-fast video RUN_OR_WORLD"),
        (["video", "nowhere"], "nowhere: no run and no world in here; name a run's folder"),
        (["video", "take-covr"], "did you mean 'take-cover'?"),
        (["video", "take-cover", "--out", "a.avi"], "a name ending in .mp4, .gif or .webp"),
        (["video", "take-cover", "--scale", "0"], "--scale: expected at least 1, got 0"),
        (["video", "take-cover", "--tics", "-5"], "--tics: expected at least 2, got -5"),
        (["video", "take-cover", "--first", "700"], "--first: expected less than --tics, 700"),
        (["video", "take-cover", "--fps", "0"], "--fps: expected at least 1, got 0"),
        (["video", "take-cover", "--warm-up", "-1"], "--warm-up: expected at least 1, got -1"),
        (["video", "take-cover", "--seed", "-1"], "--seed: expected 0 <= --seed"),
        (["video", "take-cover", "--taus"], "--taus: expected at least one temperature, got none"),
        (["video", "take-cover", "--taus", "1", "0"], "--taus: expected a finite number above 0"),
        (["video", "take-cover", "--player", "dancer"], "--player: expected one of agent, uniform"),
    ],
)
def test_misuse(capsys, tmp_path, monkeypatch, args, words):
    def play(*args, **kwargs):
        raise AssertionError("the game was played before the options were checked")

    monkeypatch.setattr(cli_video, "play_one", play)
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert (out, words in err) == ("", True), err
    assert err.count("\n") == 1 or "usage:" in err

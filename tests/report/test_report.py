import json

import numpy as np
import pytest
from PIL import Image
from small_episodes import write_made_up_episodes
from small_worlds import small_world

from worldmodels_fast import envs
from worldmodels_fast.evaluation.fidelity.file import write_fidelity
from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.quality.config import QualityConfig
from worldmodels_fast.evaluation.quality.held_out import HeldOut
from worldmodels_fast.evaluation.quality.measure import measure
from worldmodels_fast.evaluation.scores import EpisodeScore, Evaluation
from worldmodels_fast.report import dream_strips, pictures, plots
from worldmodels_fast.report.page import write_report
from worldmodels_fast.training.encode import encode_episodes


def read_picture(path):
    with Image.open(path) as image:
        return np.array(image)


def evaluation(scores):
    settings = {
        "player": "agent",
        "env_id": "worldmodels_fast/TakeCover-v0",
        "environment": {"skill": 4, "resolution": "160x120"},
        "seed": 3,
        "versions": {"vizdoom": "1.3"},
    }
    episodes = (EpisodeScore(i, i, float(s), int(s), True) for i, s in enumerate(scores))
    return Evaluation(settings, tuple(episodes)).to_json()


def a_quality(folder):
    """What the stage `quality` finds of a small world in made-up episodes."""
    world = small_world(environment="take-cover")
    write_made_up_episodes(folder / "episodes", [[60, 61]])
    encode_episodes(folder / "episodes", folder / "latents", world.vae)
    held_out = HeldOut(folder / "episodes", folder / "latents", [0], 2)
    config = QualityConfig(windows=4, warm_up=5, horizon=5, samples=2, frames=9, dreams=3)
    result = measure(world, held_out, config, done_weight=10.0, policies=("left",), seed=0)
    return {**result, "held_out": True}


@pytest.fixture
def folder(tmp_path):
    """A run of everything but a world."""
    folder = tmp_path / "<run>"
    folder.mkdir()
    (folder / "config.json").write_text('{"recipe": "a <b> c"}', encoding="utf-8")
    (folder / "evaluation.json").write_text(
        json.dumps({"agent": evaluation([500, 700, 2100]), "random": evaluation([200, 250, 180])}),
        encoding="utf-8",
    )
    with (folder / "history.jsonl").open("w", encoding="utf-8") as file:
        for generation in range(4):
            record = {
                "generation": generation,
                "seconds": 1.5,
                "mean": 100.0 + generation,
                "min": 50.0,
                "max": 200.0,
                "std": 30.0,
                "sigma": 0.1,
                "steps": 12345,
            }
            if generation % 2:
                record["mean_score"] = 120.0
            file.write(json.dumps(record) + "\n")
        file.write('{"generation": 4, "sec')  # a kill
    rows = [FidelityRow.compare("still", [150, 170, 160], [200, 180, 190]).__dict__]
    for row in rows:
        row["game"], row["dream"] = row["game"].__dict__, row["dream"].__dict__
    (folder / "fidelity.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    with (folder / "vae.log.jsonl").open("w", encoding="utf-8") as file:
        file.write('{"step": 5, "held_out_reconstruction": 40.0}\n')
        for step in (10, 20):
            row = {"step": step, "reconstruction": 300 / step, "held_out_reconstruction": 31.0}
            file.write(json.dumps(row) + "\n")
    return folder


def test_a_page_of_what_there_is(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    page = path.read_text(encoding="utf-8")
    headings = ("In the real game", "Evolution in the dream", "Learning, beside the paper")
    for heading in (*headings, "Training V", "Settings"):
        assert f"<h2>{heading}" in page
    for heading in ("The dream beside the game", "Training M"):
        assert heading not in page
    assert "<td>agent</td><td>3</td><td>1100</td>" in page
    assert "skill 4" in page
    assert "4 generations, 49,380 dream steps in 6 s, 8,230 steps/s" in page
    assert "a &lt;b&gt; c" in page
    assert "&lt;run&gt;" in page
    assert "<run>" not in page
    assert "src=" in page
    assert page.count('src="data:image/png;base64,') == page.count("src=")  # nothing from outside
    figures = {p.name for p in (folder / "figures").iterdir()}
    assert figures == {
        "scores.png",
        "evolution.png",
        "fidelity.png",
        "learning-curves.png",
        "survival.png",
        "vae-reconstruction.png",
    }
    for name in figures:
        assert read_picture(folder / "figures" / name).shape[1] > 250


def test_a_run_in_the_game(folder):
    config = {"environment": "car-racing", "evolve_in": "game", "dream": {"temperature": 1.0}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "fidelity.json").unlink()
    (folder / "stages").mkdir()
    record = {"processors": 2, "figures": {"core_hours": 1.25}}
    (folder / "stages" / "evolve.json").write_text(json.dumps(record), encoding="utf-8")
    other = evaluation([498, 700, 2101])
    other["settings"]["env_id"] = envs.ENVIRONMENTS["car-racing"].unmodified_id
    scores = {"agent": evaluation([500, 700, -20]), "agent-unmodified": other}
    (folder / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Evolution in the game" in page
    assert "49,380 game steps in 6 s, 8,230 steps/s in all; 1.2 core-hours on 2 processors" in page
    assert "heights do not compare" not in page
    assert "<td>the paper: z and h</td><td>100</td><td>906</td><td>21</td>" in page
    assert page.count("(skill 4, resolution 160x120), seed 3") == 2  # a line for each environment
    assert "+706.3 on average over 3 episodes" in page
    assert "33% are the same" in page


def test_nothing_to_report(tmp_path):
    with pytest.raises(ValueError, match="nothing to report yet; run the stages first"):
        write_report(tmp_path)


def test_the_world_is_drawn(folder, monkeypatch):
    world = small_world(environment="take-cover", env_kwargs={"max_steps": 30})
    world.save(folder / "world")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "The dream beside the game" in page
    assert "at temperatures 1 and 1.15" in page
    picture = read_picture(folder / "figures" / "dream.png")
    assert picture.shape[0] == 4 * 130 - 2  # the game, V's picture and two dreams
    assert picture.shape[1] == 12 * 130 - 2
    # A short episode has fewer frames than a row of pictures holds.
    monkeypatch.setattr(dream_strips, "STRIP_FRAMES", 50)
    frames, actions = pictures.play_one(world, seed=7)
    picture, note = dream_strips.dream_beside_reality(world, frames, actions)
    assert picture.shape[1] == 30 * 130 - 2
    assert "one real episode of 30 tics" in note


def test_the_end_of_an_episode_is_dreamt(monkeypatch):
    world = small_world(dream={"temperature": 1.15})
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (70, 64, 64, 3), dtype=np.uint8)
    actions = rng.uniform(-1, 1, (70, 1)).astype(np.float32)
    picture, note = dream_strips.end_beside_reality(world, frames, actions)
    assert "The last 36 tics of that episode, one in 3" in note
    assert picture.shape[:2] == (5 * 130 - 2, 12 * 130 - 2)  # game, V, and dreams at three tau
    # The last picture of the first row is the episode's last frame.
    np.testing.assert_array_equal(picture[:128:2, 11 * 130 :: 2], frames[-1])
    monkeypatch.setattr(dream_strips, "WATCHED_TICS", 1)
    assert dream_strips.end_beside_reality(world, frames, actions)[0].shape == picture.shape


def test_controllers_and_policies_are_told_apart(folder):
    rows = [
        FidelityRow.compare("still", [150, 170], [200, 180]),
        FidelityRow.compare("agent", [900, 1100], [1500, 2100], kind="controller"),
    ]
    write_fidelity(folder / "fidelity.json", rows)
    figure = plots.fidelity_scatter(rows)
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert "evolved controllers" in labels
    page = write_report(folder).read_text(encoding="utf-8")
    assert "p is below 0.05 for" in page
    assert "(first 200 tics)" in page
    assert "(later tics)" in page


def test_the_dreams_quality_is_told(folder, tmp_path_factory):
    (folder / "quality.json").write_text(
        json.dumps(a_quality(tmp_path_factory.mktemp("quality"))), encoding="utf-8"
    )
    page = write_report(folder).read_text(encoding="utf-8")
    for heading in ("How far M predicts", "Does M know when one dies?", "Contents of the dream"):
        assert f"<h3>{heading}</h3>" in page
    assert "held out from the training" in page
    figures = {p.name for p in (folder / "figures").iterdir()}
    assert {"foresight.png", "deaths.png", "contents.png"} <= figures


def test_a_world_of_no_environment():
    with pytest.raises(ValueError, match=r"environment: .* got None"):
        pictures.play_one(small_world(), seed=0)


def test_playing_one_episode():
    world = small_world(environment="take-cover", env_kwargs={"max_steps": 5})
    frames, actions = pictures.play_one(world, seed=1)
    assert frames.shape == (5, 64, 64, 3)
    assert actions.shape == (5, 1)
    np.testing.assert_array_equal(frames, pictures.play_one(world, seed=1)[0])
    assert len(pictures.play_one(world, seed=1, env_kwargs={"max_steps": 3})[0]) == 3


def test_dreaming_along():
    world = small_world()
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    actions = np.zeros((20, 1), np.float32)
    frames, ended = pictures.dream_along(world, frame, actions, temperature=1.0, seed=2)
    assert frames.shape == (20, 64, 64, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[0], pictures.reconstruct(world, frame[None])[0])
    assert ended.shape == (20,)
    assert (np.diff(ended.astype(int)) >= 0).all()  # once it is over it stays over
    some, _ = pictures.dream_along(
        world, frame, actions, temperature=1.0, seed=2, shown=slice(0, 9, 3)
    )
    np.testing.assert_allclose(some, frames[:9:3], atol=1)


def test_strips():
    rows = [np.full((3, 2, 2, 3), value, np.uint8) for value in (10, 20)]
    picture = pictures.strip(rows, scale=2, gap=1)
    assert picture.shape == (2 * 5 - 1, 3 * 5 - 1, 3)
    assert (picture[:4, :4] == 10).all()
    assert (picture[5:, 10:] == 20).all()
    assert (picture[4] == 255).all()
    assert (picture[:, 4] == 255).all()

"""Whichever file of a run is damaged: an error of one line that names it."""

import re

import pytest
from damage import damaged
from small_runs import TOY, finish, small_config, write_small_run

from worldmodels_fast import envs
from worldmodels_fast.evaluation.fidelity.file import read_fidelity, write_fidelity
from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.scores import (
    EpisodeScore,
    Evaluation,
    load_evaluations,
    save_evaluations,
)
from worldmodels_fast.evolution.cma import load_means
from worldmodels_fast.experiments.pipeline import open_run, run_stage
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.report.temperatures import read_temperatures
from worldmodels_fast.utils.files import write_json
from worldmodels_fast.world.world import World


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the toy game whose C is evolved; the scores of later stages are made up."""
    patch = pytest.MonkeyPatch()
    patch.setitem(envs.ENVIRONMENTS, "toy", TOY)
    run = write_small_run(tmp_path_factory.mktemp("damaged") / "run", small_config())
    run_stage("evolve", run)
    scores = [3.0, 4.0, 8.0]
    episodes = tuple(EpisodeScore(i, i, score, int(score), True) for i, score in enumerate(scores))
    evaluation = Evaluation({"player": "agent", "env_id": "toy", "seed": 0}, episodes)
    save_evaluations({"agent": evaluation}, run.folder / "evaluation.json")
    write_fidelity(run.folder / "fidelity.json", [FidelityRow.compare("still", scores, scores)])
    summary = evaluation.to_json()
    row = {"temperature": 1.15, "dream": summary, "game": summary}
    settings = {"environment": {}, "env_id": "toy", "versions": {}, "seed": 0, "temperature": 1.15}
    table = {"settings": settings, "rows": [row], "random": summary}
    write_json(run.folder / "temperatures.json", table)
    for stage in FINISHED[5:]:
        finish(run, stage)
    yield run
    patch.undo()


FINISHED = ("collect", "train-vae", "encode", "train-rnn", "evolve", "fidelity", "evaluate")


def load_run(run):
    return Run.load(run.folder)


READERS = {
    "config.json": load_run,
    **{
        f"stages/{name}.json": lambda run, name=name: open_run(run.folder, run.config).record(name)
        for name in FINISHED
    },
    "vae.safetensors": Run.load_vae,
    "mdn_rnn.safetensors": Run.load_mdn_rnn,
    "latents/shard-00002.safetensors": Run.held_out_latents,
    "latents/shard-00001.safetensors": Run.first_latents,
    "means.safetensors": lambda run: load_means(run.folder / "means.safetensors"),
    "evaluation.json": lambda run: load_evaluations(run.folder / "evaluation.json"),
    "fidelity.json": lambda run: read_fidelity(run.folder / "fidelity.json"),
    "temperatures.json": lambda run: read_temperatures(run.folder),
    "world/config.json": lambda run: World.load(run.world),
    "world/mdn_rnn.safetensors": lambda run: World.load(run.world),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_by_its_reader(finished, name):
    path = finished.folder / name
    READERS[name](finished)
    for way in damaged(path):
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            READERS[name](finished)
        assert "\n" not in str(caught.value), way

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from folders import HELPERS

from worldmodels_fast.evolution.cma import EvolveConfig, evolve, load_means
from worldmodels_fast.utils.seeding import derive_seed

CONFIG = EvolveConfig(population=8, generations=7, rollouts=3, eval_every=3, eval_rollouts=5)


@dataclass
class Scores:
    returns: np.ndarray
    lengths: np.ndarray


def sphere(population, rollouts, seed):
    """A noisy bowl around 0.5; the noise depends on the seed alone, as the dream's."""
    assert population.dtype == np.float32
    assert population.flags.c_contiguous
    noise = np.random.default_rng(seed).normal(size=rollouts)
    distance = ((population.astype(np.float64) - 0.5) ** 2).sum(axis=1)
    returns = 100 - distance[:, None] * (1 + 0.1 * noise)
    return Scores(returns, np.full(returns.shape, 7, np.int32))


class Stop(Exception):
    pass


def stop_at(call):
    """`sphere` until it has been called so often."""
    calls = 0

    def evaluate(population, rollouts, seed):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Stop
        np.random.rand(calls)  # noqa: NPY002 (somebody else uses numpy's generator)
        return sphere(population, rollouts, seed)

    return evaluate


def paths(folder):
    return {"state_path": folder / "state.pkl", "history_path": folder / "history.jsonl"}


def without_seconds(folder):
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_it_climbs_and_records_every_generation(tmp_path):
    config = replace(CONFIG, generations=60, population=16, eval_every=20)
    seen = []
    result = evolve(sphere, 5, config, **paths(tmp_path), on_generation=seen.append)
    assert result.score > 99.9
    np.testing.assert_allclose(result.params, 0.5, atol=0.1)
    assert result.params.dtype == np.float32
    assert result.stopped == "generations"
    lines = [
        json.loads(line)
        for line in (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert lines == seen == result.history
    assert [line["generation"] for line in lines] == list(range(60))
    assert [line["generation"] for line in lines if "mean_score" in line] == [19, 39, 59]
    first = lines[0]
    assert first["min"] < first["mean"] < first["max"]
    assert first["steps"] == 16 * 3 * 7
    assert first["std"] > 0
    assert first["seconds"] >= 0
    assert first["sigma"] == pytest.approx(0.1, rel=0.3)


def test_the_controller_is_the_best_scored_mean(tmp_path):
    def deceptive(population, rollouts, seed):
        scores = sphere(population, rollouts, seed)
        if rollouts == CONFIG.eval_rollouts:  # the mean is being scored: the first is the best
            deceptive.scored.append(population[0].copy())
            scores.returns[:] = -len(deceptive.scored)
        return scores

    deceptive.scored = []
    result = evolve(deceptive, 5, CONFIG, **paths(tmp_path))
    assert len(deceptive.scored) == 3
    assert (result.score, result.generation) == (-1.0, 2)
    np.testing.assert_array_equal(result.params, deceptive.scored[0])
    np.testing.assert_array_equal(result.last_mean, deceptive.scored[-1])


def test_seeds_are_common_to_a_generation_and_never_shared_with_the_score(tmp_path):
    calls = []

    def evaluate(population, rollouts, seed):
        calls.append((len(population), rollouts, seed))
        return sphere(population, rollouts, seed)

    evolve(evaluate, 5, CONFIG, **paths(tmp_path), seed=3)
    assert [call[:2] for call in calls].count((8, 3)) == 7
    assert [call[:2] for call in calls].count((1, 5)) == 3
    seeds = [call[2] for call in calls]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == derive_seed(3, "evolve/fitness", 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("call", [1, 4, 5, 9])
def test_interrupted_and_resumed_is_as_if_never_interrupted(tmp_path, call):
    whole = evolve(sphere, 6, CONFIG, **paths(tmp_path / "whole"), seed=1)
    cut = tmp_path / "cut"
    with pytest.raises(Stop):
        evolve(stop_at(call), 6, CONFIG, **paths(cut), seed=1)
    np.random.seed(99)  # noqa: NPY002
    resumed = evolve(sphere, 6, CONFIG, **paths(cut), seed=1)
    np.testing.assert_array_equal(resumed.params, whole.params)
    np.testing.assert_array_equal(resumed.last_mean, whole.last_mean)
    assert (resumed.score, resumed.generation) == (whole.score, whole.generation)
    assert without_seconds(cut) == without_seconds(tmp_path / "whole")


KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
from test_evolution import CONFIG, paths, sphere
from worldmodels_fast.evolution.cma import evolve
from pathlib import Path

def die(record):
    if record["generation"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

evolve(sphere, 6, CONFIG, **paths(Path({folder!r})), seed=1, on_generation=die)
"""


def test_kill_9_and_continue_bit_for_bit(tmp_path):
    whole = evolve(sphere, 6, CONFIG, **paths(tmp_path / "whole"), seed=1)
    cut = tmp_path / "cut"
    script = KILLED.format(
        tests=[str(Path(__file__).parent), str(HELPERS)],
        folder=str(cut),
    )
    process = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert process.returncode == -signal.SIGKILL
    # The kill may have come between the state and the history, or in the middle of a line.
    history = cut / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 4
    history.write_text("".join(lines[:3]) + lines[3][:10], encoding="utf-8")
    resumed = evolve(sphere, 6, CONFIG, **paths(cut), seed=1)
    np.testing.assert_array_equal(resumed.params, whole.params)
    np.testing.assert_array_equal(resumed.last_mean, whole.last_mean)
    assert without_seconds(cut) == without_seconds(tmp_path / "whole")


@pytest.mark.slow
def test_resuming_is_exact_at_the_papers_size_where_cma_uses_numpys_generator(tmp_path):
    config = replace(CONFIG, population=64, generations=5, eval_every=5)
    whole = evolve(sphere, 1088, config, **paths(tmp_path / "whole"))
    with pytest.raises(Stop):
        evolve(stop_at(3), 1088, config, **paths(tmp_path / "cut"))
    np.random.seed(99)  # noqa: NPY002
    resumed = evolve(sphere, 1088, config, **paths(tmp_path / "cut"))
    np.testing.assert_array_equal(resumed.params, whole.params)
    assert without_seconds(tmp_path / "cut") == without_seconds(tmp_path / "whole")


def test_numpys_global_generator_is_neither_used_nor_changed(tmp_path):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    one = evolve(sphere, 6, CONFIG, **paths(tmp_path / "one"))
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.random.seed(6)  # noqa: NPY002
    two = evolve(sphere, 6, CONFIG, **paths(tmp_path / "two"))
    np.testing.assert_array_equal(one.params, two.params)
    other = evolve(sphere, 6, CONFIG, **paths(tmp_path / "three"), seed=1)
    assert (one.params != other.params).any()


def test_a_finished_run_comes_back_at_once_and_can_be_made_longer(tmp_path):
    first = evolve(sphere, 6, CONFIG, **paths(tmp_path))

    def never(population, rollouts, seed):
        raise AssertionError

    again = evolve(never, 6, CONFIG, **paths(tmp_path))
    np.testing.assert_array_equal(first.params, again.params)
    assert again.score == first.score
    longer = evolve(sphere, 6, replace(CONFIG, generations=9), **paths(tmp_path))
    assert len(longer.history) == 9
    shorter = evolve(never, 6, replace(CONFIG, generations=2), **paths(tmp_path))
    assert len(shorter.history) == 9


def test_a_run_cut_before_its_first_score_still_gives_a_scored_controller(tmp_path):
    config = replace(CONFIG, eval_every=100)
    with pytest.raises(Stop):
        evolve(stop_at(4), 6, config, **paths(tmp_path))
    result = evolve(sphere, 6, replace(config, generations=2), **paths(tmp_path))
    assert len(result.history) == 3
    assert result.generation == 2
    assert np.isfinite(result.score)


def test_stop_and_max_minutes_end_it_with_a_scored_mean(tmp_path):
    stopped = evolve(sphere, 6, CONFIG, **paths(tmp_path / "a"), stop=lambda: True)
    assert (stopped.stopped, len(stopped.history)) == ("stop", 1)
    assert stopped.generation == 0
    timed = evolve(sphere, 6, replace(CONFIG, max_minutes=1e-9), **paths(tmp_path / "b"))
    assert (timed.stopped, len(timed.history)) == ("max_minutes", 1)
    assert "mean_score" in timed.history[-1]


def test_cma_options_are_passed_through(tmp_path):
    options = {"CMA_diagonal": True, "ftarget": -90.0}
    config = replace(CONFIG, generations=200, cma_options=options)
    result = evolve(sphere, 6, config, **paths(tmp_path))
    assert result.stopped == "ftarget"
    assert len(result.history) < 200
    with pytest.raises(ValueError, match=r"--evolve.cma-options: cma refuses"):
        evolve(sphere, 6, replace(CONFIG, cma_options={"nonsense": 1}), **paths(tmp_path / "b"))


def test_rollouts_grow_by_a_schedule(tmp_path):
    config = replace(CONFIG, rollout_schedule=((2, 5), (4, 6)))
    assert [config.rollouts_in(g) for g in range(6)] == [3, 3, 5, 5, 6, 6]
    whole = evolve(sphere, 6, config, **paths(tmp_path / "whole"))
    assert [record["rollouts"] for record in whole.history] == [3, 3, 5, 5, 6, 6, 6]
    assert [record["steps"] for record in whole.history[1:3]] == [8 * 3 * 7, 8 * 5 * 7]
    with pytest.raises(Stop):
        evolve(stop_at(4), 6, config, **paths(tmp_path / "cut"))
    resumed = evolve(sphere, 6, config, **paths(tmp_path / "cut"))
    np.testing.assert_array_equal(resumed.params, whole.params)
    with pytest.raises(ValueError, match=r"rollout_schedule: generation 2 .* 5 .* now it .* 3;"):
        evolve(sphere, 6, CONFIG, **paths(tmp_path / "cut"))


def test_a_schedule_may_change_for_what_is_to_come(tmp_path):
    planned = replace(CONFIG, rollout_schedule=((5, 6),))
    with pytest.raises(Stop):
        evolve(stop_at(4), 6, planned, **paths(tmp_path / "changed"))
    config = replace(CONFIG, rollout_schedule=((4, 5),))
    changed = evolve(sphere, 6, config, **paths(tmp_path / "changed"))
    whole = evolve(sphere, 6, config, **paths(tmp_path / "whole"))
    np.testing.assert_array_equal(changed.params, whole.params)
    assert without_seconds(tmp_path / "changed") == without_seconds(tmp_path / "whole")


def test_means_may_be_scored_elsewhere(tmp_path):
    scored = []

    def score(population, rollouts, seed):
        scored.append((population[0].copy(), rollouts))
        return Scores(np.full((1, rollouts), len(scored)), np.full((1, rollouts), 9, np.int32))

    plain = evolve(sphere, 6, CONFIG, **paths(tmp_path / "plain"))
    other = evolve(sphere, 6, CONFIG, **paths(tmp_path / "other"), score=score)
    np.testing.assert_array_equal(other.last_mean, plain.last_mean)  # the search is the same
    assert [n for _, n in scored] == [5, 5, 5]
    assert (other.score, other.generation) == (3.0, 6)
    np.testing.assert_array_equal(other.params, scored[-1][0])
    row = other.history[2]
    assert (row["mean_score"], row["score_std"], row["score_steps"]) == (1.0, 0.0, 5 * 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"population": 3}, "--evolve.population: expected at least 4, since CMA-ES"),
        ({"rollout_schedule": ((5, 2), (3, 4))}, "--evolve.rollout-schedule: expected pairs"),
        ({"rollout_schedule": ((0, 0),)}, "--evolve.rollout-schedule: expected pairs"),
        ({"generations": 0}, "--evolve.generations: expected at least 1, got 0"),
        ({"rollouts": 0}, "--evolve.rollouts"),
        ({"eval_every": 0}, "--evolve.eval-every: expected at least 1, got 0"),
        ({"sigma0": 0.0}, "--evolve.sigma0"),
        ({"sigma0": float("nan")}, "--evolve.sigma0: expected a finite number above 0, got nan"),
        ({"max_minutes": -1.0}, "--evolve.max-minutes"),
        ({"cma_options": {"popsize": 9}}, "--evolve.cma-options: .* without popsize"),
    ],
)
def test_bad_settings_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        evolve(sphere, 6, replace(CONFIG, **change), **paths(tmp_path))
    with pytest.raises(ValueError, match="n_params"):
        evolve(sphere, 1, CONFIG, **paths(tmp_path))


def test_returns_that_are_not_numbers_or_misshapen_are_named(tmp_path):
    def with_nan(population, rollouts, seed):
        scores = sphere(population, rollouts, seed)
        scores.returns[2, 1] = np.nan
        return scores

    with pytest.raises(ValueError, match="member 2, rollout 1 of generation 0"):
        evolve(with_nan, 6, CONFIG, **paths(tmp_path))

    def too_few(population, rollouts, seed):
        return sphere(population[1:], rollouts, seed)

    with pytest.raises(ValueError, match=r"\(8, 3\) in generation 0, got \(7, 3\)"):
        evolve(too_few, 6, CONFIG, **paths(tmp_path))


def test_a_state_of_other_settings_or_a_broken_one_is_refused(tmp_path):
    evolve(sphere, 6, CONFIG, **paths(tmp_path))
    with pytest.raises(ValueError, match=r"rollouts, .*: generation 0 .* 3 rollouts .* 4; only"):
        evolve(sphere, 6, replace(CONFIG, rollouts=4), **paths(tmp_path))
    with pytest.raises(ValueError, match="n_params: 6, now 7"):
        evolve(sphere, 7, CONFIG, **paths(tmp_path))
    (tmp_path / "state.pkl").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        evolve(sphere, 6, CONFIG, **paths(tmp_path))


def test_means_are_watched_and_kept_and_nothing_depends_on_it(tmp_path):
    plain = evolve(sphere, 5, CONFIG, **paths(tmp_path / "plain"))
    seen = []

    def watch(record, mean):
        seen.append((record, mean.copy()))
        mean[:] = np.nan  # a copy: the search has its own
        return {"real_score": 1} if record.pop("generation") == 1 else {}

    means = tmp_path / "means.safetensors"
    result = evolve(sphere, 5, CONFIG, **paths(tmp_path / "b"), watch=watch, means_path=means)
    np.testing.assert_array_equal(result.params, plain.params)
    np.testing.assert_array_equal(result.last_mean, plain.last_mean)
    assert len(seen) == CONFIG.generations
    rows = without_seconds(tmp_path / "b")
    assert [row.pop("real_score", None) for row in rows] == [None, 1, None, None, None, None, None]
    assert rows == without_seconds(tmp_path / "plain")
    kept = load_means(means)
    assert list(kept) == list(result.means) == [1, 2, 5, 6]  # watched; scored every third, last
    for generation, mean in kept.items():
        np.testing.assert_array_equal(mean, result.means[generation])
        np.testing.assert_array_equal(mean, seen[generation][1])
    np.testing.assert_array_equal(kept[result.generation], result.params)
    with pytest.raises(ValueError, match=r"nothing: no means of an evolution"):
        load_means(tmp_path / "nothing")
    (tmp_path / "b" / "nonsense").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"nonsense: damaged, or of another version"):
        load_means(tmp_path / "b" / "nonsense")


def test_a_kill_while_the_mean_is_watched(tmp_path):
    def watch(record, mean):
        if watch.dies and record["generation"] == 3:
            raise Stop
        return {"first": float(mean[0])}

    watch.dies = False
    whole = {**paths(tmp_path / "whole"), "means_path": tmp_path / "whole" / "means"}
    evolve(sphere, 6, CONFIG, **whole, watch=watch)
    watch.dies = True
    cut = {**paths(tmp_path / "cut"), "means_path": tmp_path / "cut" / "means"}
    with pytest.raises(Stop):
        evolve(sphere, 6, CONFIG, **cut, watch=watch)
    watch.dies = False
    evolve(sphere, 6, CONFIG, **cut, watch=watch)
    assert without_seconds(tmp_path / "cut") == without_seconds(tmp_path / "whole")
    assert (tmp_path / "cut/means").read_bytes() == (tmp_path / "whole/means").read_bytes()


def test_a_state_of_an_earlier_version_takes_the_defaults(tmp_path):
    evolve(sphere, 6, replace(CONFIG, generations=2), **paths(tmp_path))
    path = tmp_path / "state.pkl"
    state = pickle.loads(path.read_bytes())
    del state["identity"]["sigma0"], state["means"]
    path.write_bytes(pickle.dumps(state))
    assert len(evolve(sphere, 6, CONFIG, **paths(tmp_path)).history) == 7
    path.write_bytes(pickle.dumps(state))
    with pytest.raises(ValueError, match=r"sigma0: 0.1, now 0.2"):
        evolve(sphere, 6, replace(CONFIG, sigma0=0.2), **paths(tmp_path))


def test_a_state_belongs_to_what_the_evaluation_depends_on(tmp_path):
    short, depends_on = replace(CONFIG, generations=2), {"temperature": 1.0, "form": ("z", "h")}
    evolve(sphere, 6, short, **paths(tmp_path), depends_on=depends_on)
    evolve(sphere, 6, replace(CONFIG, generations=3), **paths(tmp_path), depends_on=depends_on)
    with pytest.raises(ValueError, match=r"other settings \(temperature: 1.0, now 1.5\)"):
        evolve(sphere, 6, CONFIG, **paths(tmp_path), depends_on={"temperature": 1.5})
    # Under a name of before; a setting that the state does not hold is not compared, but kept.
    now = {"tau": 1.0, "device": "cpu"}

    def read(identity):
        return {"tau" if name == "temperature" else name: v for name, v in identity.items()}

    more = replace(CONFIG, generations=4)
    evolve(sphere, 6, more, **paths(tmp_path), depends_on=now, read_identity=read)
    with pytest.raises(ValueError, match=r"other settings \(device: 'cpu', now 'cuda'\)"):
        evolve(sphere, 6, CONFIG, **paths(tmp_path), depends_on={**now, "device": "cuda"})

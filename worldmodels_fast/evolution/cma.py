"""CMA-ES around one batched evaluation: ask -> evaluate -> tell.

This module knows no model, dream or game: a generation is one call of ``evaluate(population,
rollouts, seed)``, for instance `Dream.evaluate` or `Game.evaluate`. Fitness is the mean return over
a member's rollouts and is maximised; ``cma`` minimises, so it gets the negative.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from worldmodels_fast.utils.files import append_json_line, reading, write_bytes, write_json_lines
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.utils.settings import SettingsCheck
from worldmodels_fast.utils.tensors import load_tensors, save_tensors

Record = dict[str, Any]


Params = npt.NDArray[np.float32]


Watch = Callable[[Record, Params], Record]
"""Called with a generation's record (mean_score included, where the mean was scored) and a copy of
the distribution's mean after it; what it returns is added to the record."""


@dataclass(frozen=True)
class EvolveConfig:
    """Settings of CMA-ES; the defaults are the paper's, but for fewer generations.

    Attributes:
        population: members P of a generation.
        generations: generations in all.
        rollouts: rollouts R of each member in a generation.
        rollout_schedule: pairs (generation from 0, rollouts from there on), in order: early on,
            when members differ much, few rollouts distinguish them. Before the first pair, and
            without any, there are `rollouts`.
        sigma0: standard deviation of the first generation, around x0 = 0.
        eval_every: every so many generations, and after the last, the distribution's mean is
            scored; the mean with the best score is the final controller.
        eval_rollouts: rollouts of that score.
        max_minutes: stop after the generation in which this much time has been used, in all (the
            time of `evolve`'s ``watch`` is not counted).
        cma_options: passed through to ``cma.CMAEvolutionStrategy``; its termination criteria
            count only if they are named here.
    """

    population: int = 64
    generations: int = 200
    rollouts: int = 16
    rollout_schedule: tuple[tuple[int, int], ...] = ()
    sigma0: float = 0.1
    eval_every: int = 25
    eval_rollouts: int = 1024
    max_minutes: float | None = None
    cma_options: dict[str, Any] = field(default_factory=dict)

    def rollouts_in(self, generation: int) -> int:
        """Return the number of rollouts of each member in a generation (from 0)."""
        begun = [rollouts for first, rollouts in self.rollout_schedule if first <= generation]
        return begun[-1] if begun else self.rollouts

    def check(self, prefix: str = "--evolve.") -> None:
        """Raise ValueError or TypeError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        check = SettingsCheck(self, prefix)
        check.integers("population", low=1)
        if self.population < 4:
            check.refuse("population", "at least 4, since CMA-ES ranks half of them (paper: 64)")
        check.integers("generations", "rollouts", "eval_every", "eval_rollouts", low=1)
        check.numbers("sigma0", above=0)
        check.numbers("max_minutes", above=0, or_none=True)
        firsts = [first for first, _ in self.rollout_schedule]
        if sorted(set(firsts)) != firsts or any(
            first < 0 or rollouts < 1 for first, rollouts in self.rollout_schedule
        ):
            check.refuse("rollout_schedule", "pairs (generation from 0, rollouts from 1) in order")
        if taken := {"popsize", "seed", "randn"} & set(self.cma_options):
            check.refuse(
                "cma_options",
                f"options of cma without {', '.join(sorted(taken))}, which the population and the "
                "run's seed decide",
            )


def check_cma_options(config: EvolveConfig) -> None:
    """Raise ValueError if cma knows no option of a name in `cma_options`; imports cma for that."""
    if not config.cma_options:
        return
    import cma

    known = cma.CMAOptions.defaults()
    for name in config.cma_options:
        if name not in known:
            raise ValueError(
                f"--evolve.cma-options: expected options of cma ({', '.join(sorted(known))}), got "
                f"{name!r}"
            )


@dataclass(frozen=True, repr=False)
class EvolutionResult:
    """The result of an evolution.

    Attributes:
        params: (n_params,) float32, the mean with the best score: the final controller.
        score: its mean return over ``eval_rollouts`` rollouts.
        generation: after which generation (from 0) it was the mean.
        last_mean: (n_params,) float32, the mean after the last generation.
        means: (n_params,) float32 by generation: every mean that was scored or watched.
        history: one record per generation, as in ``history.jsonl``.
        stopped: reason of its end: "generations", "max_minutes", "stop", or a criterion of ``cma``.
    """

    params: Params
    score: float
    generation: int
    last_mean: Params
    means: dict[int, Params]
    history: list[Record]
    stopped: str

    def __repr__(self) -> str:
        return (
            f"EvolutionResult(n_params={self.params.size}, generations={len(self.history)}, "
            f"score={self.score:g}, generation={self.generation}, means={len(self.means)}, "
            f"stopped={self.stopped!r})"
        )


class Scores(Protocol):
    """Returns and lengths of (P, R) rollouts, e.g. a `DreamResult`."""

    @property
    def returns(self) -> Any:
        """(P, R) undiscounted returns."""

    @property
    def lengths(self) -> Any:
        """(P, R) numbers of steps."""


class Evaluate(Protocol):
    """One generation in one call; `Dream.evaluate` is one of these."""

    def __call__(self, population: Params, rollouts: int, seed: int, /) -> Scores:
        """Play R ``rollouts`` of each row of ``population`` (P, n_params)."""


def evolve(
    evaluate: Evaluate,
    n_params: int,
    config: EvolveConfig,
    *,
    state_path: Path | str,
    history_path: Path | str,
    means_path: Path | str | None = None,
    score: Evaluate | None = None,
    seed: int = 0,
    on_generation: Callable[[Record], None] | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
    depends_on: Mapping[str, Any] | None = None,
    read_identity: Callable[[Record], Record] = lambda identity: identity,
) -> EvolutionResult:
    """Evolve ``n_params`` parameters; continue from ``state_path`` if it exists.

    All members of a generation share their noise (common random numbers): generation g is played
    with seed ``derive_seed(seed, "evolve/fitness", g)``, and the mean after it is scored with
    ``derive_seed(seed, "evolve/mean", g)``. No real reward is used to choose the controller.

    The state is saved after every generation, atomically. A run that was killed goes on bit for
    bit as if it had not been (on the same machine and libraries); more ``generations`` or
    ``max_minutes`` than before continue a finished run.

    Args:
        evaluate: plays a generation, see `Evaluate`; called with a C-contiguous float32
            population.
        n_params: length of a controller's flat parameter vector.
        config: see `EvolveConfig`.
        state_path: file of the state of CMA-ES. Only ever read from a run of one's own (pickle).
        history_path: one JSON line per generation: generation, seconds, mean, min, max and std of
            the members' fitness, sigma, rollouts of each member, steps, where the mean was scored
            mean_score, score_std of its rollouts and score_steps, and what ``watch`` returned.
            Seconds are of all of that but ``watch``.
        means_path: where to keep the means that were scored or watched, see `load_means`.
        score: plays the rollouts that the mean is scored by; None for ``evaluate``.
        seed: the run's seed.
        on_generation: called with each generation's record.
        watch: called with the mean after every generation, see `Watch`. Its result is recorded and
            not used: the search and the choice of the controller are the same without it. After a
            kill during the call, the generation is evaluated, and `watch` called, again.
        stop: called after every generation; True ends the run early, with a scored mean.
        depends_on: settings that ``evaluate`` depends on, by name. They are saved with the state,
            and a state of others is refused; one that the state does not hold is not compared.
        read_identity: takes the settings that a state was saved with, by name, to today's names.

    Raises:
        ValueError: bad settings, returns of the wrong shape or with NaN or infinity, or a state
            that other settings made.
    """
    config.check()
    if n_params < 2:
        raise ValueError(f"n_params: CMA-ES needs at least 2 parameters, got {n_params}")
    score_by = score or evaluate
    state_path, history_path = Path(state_path), Path(history_path)
    identity = {**_identity(n_params, config, seed), **(depends_on or {})}
    if state_path.exists():
        state = _load(state_path, identity, read_identity)
        _check_rollouts(state.history, config)
    else:
        state = _State(
            identity, _start(n_params, config, seed), np.random.RandomState(seed % 2**32)
        )
    write_json_lines(history_path, state.history)  # a kill can fall between the two
    _write_means(means_path, state.means)

    reason = _finished(state, config)
    while reason is None:
        began = time.perf_counter()
        generation = len(state.history)
        with _at_home(state.random):
            candidates = state.es.ask()
        population = np.ascontiguousarray(candidates, dtype=np.float32)
        rollouts = config.rollouts_in(generation)
        scores = evaluate(population, rollouts, derive_seed(seed, "evolve/fitness", generation))
        returns = _checked(scores.returns, (config.population, rollouts), generation)
        fitness = returns.mean(axis=1)
        with _at_home(state.random):
            state.es.tell(candidates, list(-fitness))  # cma minimises
            criteria = dict(state.es.stop())
            mean = np.ascontiguousarray(state.es.result.xfavorite, dtype=np.float32)
        record: Record = {
            "generation": generation,
            "seconds": 0.0,
            "mean": float(fitness.mean()),
            "min": float(fitness.min()),
            "max": float(fitness.max()),
            "std": float(fitness.std()),
            "sigma": float(state.es.sigma),
            "rollouts": rollouts,
            "steps": _steps(scores),
        }
        state.history.append(record)
        state.mean = mean
        state.stopped = next((name for name in criteria if name in config.cma_options), None)

        record["seconds"] = time.perf_counter() - began
        reason = _finished(state, config)
        if reason is None and stop is not None and stop():
            reason = "stop"
        if reason is not None or (generation + 1) % config.eval_every == 0:
            scored = _score_mean(score_by, mean, config, seed, generation)
            record.update(scored)
            record["seconds"] = time.perf_counter() - began
            state.means[generation] = mean
            if state.best is None or scored["mean_score"] > state.best[0]:
                state.best = (scored["mean_score"], generation, mean)
        if watch is not None and (seen := watch(dict(record), mean.copy())):
            record.update(seen)
            state.means[generation] = mean

        _save(state_path, state)
        if generation in state.means:
            _write_means(means_path, state.means)
        append_json_line(history_path, record)
        if on_generation is not None:
            on_generation(record)

    assert state.mean is not None
    if state.best is None:  # a run that was killed before its first score, asked for no more
        generation = len(state.history) - 1
        scored = _score_mean(score_by, state.mean, config, seed, generation)
        state.best = (scored["mean_score"], generation, state.mean)
        state.means[generation] = state.mean
        _save(state_path, state)
        _write_means(means_path, state.means)
    best_score, generation, params = state.best
    return EvolutionResult(
        params, best_score, generation, state.mean, dict(state.means), list(state.history), reason
    )


def load_means(path: Path) -> dict[int, Params]:
    """Read the means (n_params,) that an evolution has kept, by generation (from 0).

    Raises:
        ValueError: the file is missing or is something else.
    """
    advice = "run the stage `evolve` again"
    if not path.is_file():
        raise ValueError(f"{path}: no means of an evolution, there is no such file; {advice}")
    tensors = load_tensors(path, advice)
    with reading(path, advice):
        pairs = zip(tensors["generations"].tolist(), tensors["means"], strict=True)
        return dict(pairs)


@dataclass
class _State:
    """The state of an evolution, saved after every generation; the history is a part of it."""

    identity: Record
    es: Any  # cma.CMAEvolutionStrategy
    random: np.random.RandomState  # NumPy's global generator while cma runs
    history: list[Record] = field(default_factory=list)
    mean: Params | None = None
    best: tuple[float, int, Params] | None = None  # score, generation, mean
    means: dict[int, Params] = field(default_factory=dict)  # those scored or watched
    stopped: str | None = None  # a termination criterion of cma that the user asked for


class _Normals:
    """cma's source of normal deviates: of its own, and pickled with the state."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def __call__(self, *shape: int) -> Any:
        return self._generator.standard_normal(shape)


@contextmanager
def _at_home(own: np.random.RandomState) -> Iterator[None]:
    """Run cma with a generator and a processor of its own.

    Here and there it draws from NumPy's global generator, to which `own` is lent. And with one
    BLAS thread its matrices of a thousand rows are a matter of 0.3 seconds, the same to the bit
    for any number of processors; several threads on a busy one have been seen to spin for 15.
    """
    others = np.random.get_state()  # noqa: NPY002
    np.random.set_state(own.get_state())  # noqa: NPY002
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        own.set_state(np.random.get_state())  # noqa: NPY002
        np.random.set_state(others)  # noqa: NPY002


def _start(n_params: int, config: EvolveConfig, seed: int) -> Any:
    import cma

    options = {
        "verbose": -9,  # neither prints nor log files
        "verb_disp": 0,
        "verb_log": 0,
        **config.cma_options,
        "popsize": config.population,
        "randn": _Normals(derive_seed(seed, "evolve/cma")),
        "seed": np.nan,  # cma's word for "do not touch numpy's seed"
    }
    try:
        return cma.CMAEvolutionStrategy(np.zeros(n_params), config.sigma0, options)
    except Exception as error:
        raise ValueError(
            f"--evolve.cma-options: cma refuses {config.cma_options!r} for {n_params} parameters: "
            f"{error}"
        ) from error


def _identity(n_params: int, config: EvolveConfig, seed: int) -> Record:
    """Return the settings that a state belongs to: all but those that say how long to go on."""
    settings = asdict(config)
    del settings["generations"], settings["max_minutes"]
    del settings["rollouts"], settings["rollout_schedule"]  # see `_check_rollouts`
    return {"n_params": n_params, "seed": seed, **settings}


def _check_rollouts(history: list[Record], config: EvolveConfig) -> None:
    """Refuse a schedule by which other generations would have been played; the rest may change."""
    for record in history:
        generation, now = record["generation"], config.rollouts_in(record["generation"])
        if (played := record.get("rollouts", now)) != now:  # earlier versions did not record them
            raise ValueError(
                f"rollouts, rollout_schedule: generation {generation} was played with {played} "
                f"rollouts of each member, now it would be {now}; only generations from "
                f"{len(history)} on may have others. Use the same, or another run folder, or "
                "delete the state to begin anew"
            )


def _finished(state: _State, config: EvolveConfig) -> str | None:
    """Why the run ends here, or None."""
    if not state.history:
        return None
    if len(state.history) >= config.generations:
        return "generations"
    minutes = sum(record["seconds"] for record in state.history) / 60
    if config.max_minutes is not None and minutes >= config.max_minutes:
        return "max_minutes"
    return state.stopped


def _score_mean(
    evaluate: Evaluate,
    mean: Params,
    config: EvolveConfig,
    seed: int,
    generation: int,
) -> Record:
    """Score the distribution's mean, on seeds that no generation was played with."""
    stream = derive_seed(seed, "evolve/mean", generation)
    scores = evaluate(mean[None], config.eval_rollouts, stream)
    returns = _checked(scores.returns, (1, config.eval_rollouts), generation)
    return {
        "mean_score": float(returns.mean()),
        "score_std": float(returns.std()),
        "score_steps": _steps(scores),
    }


def _steps(scores: Scores) -> int:
    """All steps of some rollouts."""
    return int(np.asarray(scores.lengths, dtype=np.int64).sum())


def _checked(returns: Any, shape: tuple[int, int], generation: int) -> npt.NDArray[np.float64]:
    """The returns as float64 (P, R), or a ValueError that says what is wrong with them."""
    array = np.asarray(returns, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(
            f"evaluate: expected returns of shape (members, rollouts) = {shape} in generation "
            f"{generation}, got {array.shape}"
        )
    if not np.isfinite(array).all():
        member, rollout = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(
            f"evaluate: returns must be finite, but member {member}, rollout {rollout} of "
            f"generation {generation} returned {array[member, rollout]}; check the world model's "
            "weights for NaN"
        )
    return array


def _write_means(path: Path | str | None, means: dict[int, Params]) -> None:
    if path is not None and means:
        arrays = {"generations": np.array(list(means)), "means": np.stack(list(means.values()))}
        save_tensors(Path(path), arrays)


def _save(path: Path, state: _State) -> None:
    write_bytes(path, pickle.dumps({**vars(state), "es": state.es.pickle_dumps()}))


def _load(path: Path, identity: Record, read_identity: Callable[[Record], Record]) -> _State:
    try:
        record = pickle.loads(path.read_bytes())
        record["es"] = pickle.loads(record["es"])
        state = _State(**record)
        earlier = {**asdict(EvolveConfig()), **read_identity(state.identity)}
    except Exception as error:
        raise ValueError(
            f"state_path: {path} cannot be read as the state of an evolution ({error}); "
            "delete it to begin anew"
        ) from error
    # Settings that a later version has added are at their defaults, as in `load_config`.
    changed = [key for key in identity if key in earlier and earlier[key] != identity[key]]
    if changed:
        raise ValueError(
            f"state_path: {path} was made with other settings ("
            + ", ".join(f"{k}: {earlier.get(k)!r}, now {identity[k]!r}" for k in changed)
            + "); use those, or another run folder, or delete the file to begin anew"
        )
    state.identity = identity
    return state

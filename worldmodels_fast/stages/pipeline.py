"""Which stages there are, what each depends on, and how they are run, resumed and shared."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch

from worldmodels_fast.agent import World
from worldmodels_fast.memory import PeakMemory
from worldmodels_fast.progress import console
from worldmodels_fast.recipes import RunConfig, load_config, save_config
from worldmodels_fast.scoring import (
    compare_controller,
    print_fidelity,
    read_fidelity,
    write_controller_rows,
    write_fidelity,
)
from worldmodels_fast.stages.dream_quality import stage_fidelity, stage_quality
from worldmodels_fast.stages.evaluate import stage_evaluate
from worldmodels_fast.stages.evolve import stage_evolve
from worldmodels_fast.stages.run import Run, read_json, write_json
from worldmodels_fast.stages.world_model import (
    stage_collect,
    stage_encode,
    stage_train_rnn,
    stage_train_vae,
)


def stage_sweep(run: Run) -> dict[str, Any]:
    """Evolve C at every temperature, score it in the dream and in the game: the paper's table."""
    from worldmodels_fast.sweep import sweep

    return sweep(run, run.config.sweep.temperatures)


def stage_report(run: Run) -> dict[str, Any]:
    """Draw everything into one page, `report.html`, and write the world's model card."""
    from worldmodels_fast.card import write_card
    from worldmodels_fast.report import write_report

    if run.world.is_dir():
        write_card(run.folder)
    console.print(f"report: {write_report(run.folder)}")
    return {}


@dataclass(frozen=True)
class Stage:
    """A stage, and what its result depends on.

    Attributes:
        function: does it, and returns the figures for its record.
        settings: the sections of the configuration that it alone depends on.
        reads: the stages whose results it reads.
        writes: its files and folders in the run's folder.
        needs: those that only it reads, to go on after a kill.
        resumes_blindly: its half-done work does not say with which settings it was begun.
        always: it is done again each time.
        wanted: whether a run of this configuration has this stage; alone it can be run anyway.
    """

    function: Callable[[Run], dict[str, Any]]
    settings: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    resumes_blindly: bool = False
    always: bool = False
    wanted: Callable[[RunConfig], bool] = lambda config: True


STAGES: dict[str, Stage] = {
    "collect": Stage(stage_collect, ("collect", "round"), (), ("episodes",), resumes_blindly=True),
    "train-vae": Stage(
        stage_train_vae,
        ("vae",),
        ("collect",),
        ("vae.log.jsonl", "vae.safetensors"),
        ("vae.checkpoint",),
        resumes_blindly=True,
    ),
    "encode": Stage(stage_encode, (), ("collect", "train-vae"), ("latents",), resumes_blindly=True),
    "train-rnn": Stage(
        stage_train_rnn,
        ("rnn",),
        ("encode",),
        ("mdn_rnn.log.jsonl", "mdn_rnn.safetensors"),
        ("mdn_rnn.checkpoint",),
        resumes_blindly=True,
    ),
    "fidelity": Stage(
        stage_fidelity,
        ("fidelity", "death"),
        ("encode", "train-rnn"),
        ("fidelity.json",),
        wanted=lambda config: config.rnn.predicts_done or config.rnn.predicts_reward,
    ),
    "quality": Stage(
        stage_quality,
        ("quality", "death"),
        ("collect", "train-vae", "encode", "train-rnn"),
        ("quality.json",),
    ),
    "evolve": Stage(
        stage_evolve,
        ("evolve", "death", "controller", "gap"),
        ("train-vae", "encode", "train-rnn"),
        ("history.jsonl", "means.safetensors", "controller.safetensors", "world"),
        ("evolution_state.pickle",),
    ),
    "evaluate": Stage(
        stage_evaluate,
        ("evaluate",),
        ("evolve",),
        (
            "game/evaluate-agent.jsonl",
            "game/evaluate-agent-unmodified.jsonl",
            "game/evaluate-best-by-real.jsonl",
            "game/evaluate-random.jsonl",
            "evaluation.json",
        ),
    ),
    "sweep-temperature": Stage(
        stage_sweep,
        ("evolve", "death", "controller", "gap", "sweep"),
        ("train-vae", "encode", "train-rnn"),
        ("temperatures.json", "temperatures.md"),
        wanted=lambda config: bool(config.sweep.temperatures),
    ),
    "report": Stage(stage_report, always=True),
}
"""In the order of a run."""

_NOT_OF_THE_RESULT = {"workers", "checkpoint_every", "device"}
"""Settings that may change without a stage's result changing."""


def open_run(folder: Path, config: RunConfig) -> Run:
    """Open a run to work on it: make the folder if need be, and write the configuration into it.

    Raises:
        ValueError: the folder holds a run of another recipe, or stages that were done with
            other settings; or the environment refuses its settings.
    """
    path = folder / "config.json"
    if path.is_file() and (earlier := load_config(path).recipe) != config.recipe:
        raise ValueError(
            f"{folder} is a run of {earlier}, not of {config.recipe}; use another folder"
        )
    run = Run(folder, config)
    used = {"env_kwargs": config.env_kwargs}
    if config.evolve.where == "game":
        used["evolve.max_steps, evolve.patience"] = run.members_env_kwargs()
    for name, kwargs in used.items():
        try:
            gymnasium.make(run.card.env_id, **kwargs).close()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {config.environment} refuses them: {error}") from error
    if problems := [problem for name in STAGES for problem in _problems(name, run)]:
        raise ValueError("\n".join(problems))
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, path)
    return run


def run_stage(name: str, run: Run) -> None:
    """Run one stage, unless it is finished.

    Raises:
        ValueError: no such stage, the stage before it is missing, or it was done with other
            settings or from other results.
    """
    if name not in STAGES:
        raise ValueError(f"stage: expected one of {', '.join(STAGES)}, got {name!r}")
    stage = STAGES[name]
    if problems := _problems(name, run):
        raise ValueError("\n".join(problems))
    if run.record(name) is not None and not stage.always:
        console.print(f"{name}: finished before")
        return
    identity = {"stage": name, "settings": _settings(name, run), "inputs": _inputs(name, run)}
    begun = _begun_path(name, run)
    write_json(begun, identity)
    began = time.monotonic()
    with PeakMemory() as memory:
        figures = stage.function(run)
    write_json(
        run.folder / "stages" / f"{name}.json",
        {
            "id": uuid.uuid4().hex,
            **identity,
            "figures": figures,
            "seconds": time.monotonic() - began,
            "peak_rss_mb": memory.megabytes(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "torch": torch.__version__,
        },
    )
    begun.unlink(missing_ok=True)


def run_all(run: Run) -> None:
    """Run every stage that is not finished and that the configuration asks for, in order."""
    for name, stage in STAGES.items():
        if stage.wanted(run.config):
            run_stage(name, run)


def adopt(run: Run, base: Run) -> list[str]:
    """Begin a run with what another one has finished; return the names of those stages.

    A stage is taken if this run would do the same: the same settings, and all that it reads taken,
    too. Its record is copied with its id, its files are copied, episodes and latents linked. Doing
    so again does nothing, or finds out that the other run has meanwhile done a stage anew.

    Raises:
        ValueError: a stage here was taken from an earlier result of `base`, or what `base` holds
            is not what its configuration says.
    """
    adopted: list[str] = []
    for name, stage in STAGES.items():
        if stage.always or not set(stage.reads) <= set(adopted):
            continue
        if problems := _problems(name, base):
            raise ValueError("\n".join(problems))
        own, record = run.record(name), base.record(name)
        if own is not None:
            taken = own.get("adopted_from")
            if taken is not None and own["id"] != (record or {}).get("id"):
                raise ValueError(
                    f"{run.folder}: its {name} is that of {taken}, where it has been deleted or "
                    "done anew since; delete this folder, or use another one"
                )
            if taken is not None:
                adopted.append(name)
        elif (
            record is not None
            and not _begun_path(name, run).exists()
            and not _differences(_recorded(name, record), _settings(name, run))
        ):
            for file in stage.writes:
                _take(base.folder / file, run.folder / file)
            record["adopted_from"] = str(base.folder)
            write_json(run.folder / "stages" / f"{name}.json", record)
            adopted.append(name)
    return adopted


def _take(source: Path, target: Path) -> None:
    """Copy a stage's file or world, or link a folder of shards; one that is there is replaced."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    if source.name in ("episodes", "latents"):
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    elif source.is_dir():
        shutil.copytree(source, target)
    elif source.name == "fidelity.json":  # without the other run's controllers
        write_fidelity(target, [row for row in read_fidelity(source) if row.kind == "policy"])
    else:
        shutil.copyfile(source, target)


def _settings(name: str, run: Run) -> dict[str, Any]:
    """What the stage's result depends on of the configuration, as JSON gives it back."""
    everything = dataclasses.asdict(run.config)
    settings = {key: everything[key] for key in ("environment", "env_kwargs", "seed")}
    for key in STAGES[name].settings:
        section = everything[key].items()
        settings[key] = {k: v for k, v in section if k not in _NOT_OF_THE_RESULT}
    return _without_idle(json.loads(json.dumps(settings)))


def _without_idle(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out settings that decide nothing: those of a further round, where there is none."""
    if "round" in settings and not settings["round"].get("base"):
        settings["round"] = {}
    return settings


def _inputs(name: str, run: Run) -> dict[str, str | None]:
    """Which results the stage reads: each has an id of its own, a new one if it is done again."""
    ids = {stage: (run.record(stage) or {}).get("id") for stage in STAGES[name].reads}
    base = run.config.round.base
    if name == "collect" and base and (Path(base) / "config.json").is_file():
        # V and M are taken, too, but all that is done here comes after this.
        ids["base"] = (Run.load(Path(base)).record("evolve") or {}).get("id")
    return ids


def _begun_path(name: str, run: Run) -> Path:
    return run.folder / "stages" / f"{name}.begun.json"


def _problems(name: str, run: Run) -> list[str]:
    """Why what the folder holds of this stage is not what this run would make."""
    stage = STAGES[name]
    files = (*stage.writes, *stage.needs)
    written = [file for file in files if (run.folder / file).exists()]
    before, state = run.record(name), "finished"
    if before is None and written:
        before, state = read_json(_begun_path(name, run)), "half done"
    if before is None or stage.always:
        return []
    differences = []
    if state == "finished" or stage.resumes_blindly:  # else its own state knows its settings
        differences = _differences(_recorded(name, before), _settings(name, run))
    ids = _inputs(name, run)
    stale = [i for i, old in before.get("inputs", {}).items() if i in ids and ids[i] != old]
    if stale:
        differences.append(f"from an earlier {' and '.join(stale)}")
    if not differences:
        return []
    delete = " ".join([f"stages/{name}.json", *written])
    return [
        f"{name} is {state} in {run.folder} with other settings ({', '.join(differences)}); use "
        f"another folder, or delete {delete} in there to do it again"
    ]


def _recorded(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A record's settings of a stage; those that a later version added have their defaults."""
    defaults = json.loads(json.dumps(dataclasses.asdict(RunConfig(recipe=""))))
    settings: dict[str, Any] = dict(record["settings"])
    for key in STAGES[name].settings:
        known = {k: v for k, v in defaults[key].items() if k not in _NOT_OF_THE_RESULT}
        settings[key] = {**known, **settings.get(key, {})}
    return _without_idle(settings)


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old!r}, now {new!r}")
    return found


def compare_run(run: Run) -> None:
    """Compare dream and game: the stage `fidelity`, and the evolved controller if there is one."""
    run_stage("fidelity", run)
    path = run.folder / "fidelity.json"
    if (run.world / "config.json").is_file():
        row = compare_controller(
            "agent",
            World.load(run.world),
            run.config.environment,
            run.config.fidelity,
            seed=run.config.seed,
            env_kwargs=run.config.env_kwargs,
            folder=run.folder / "game",
        )
        write_controller_rows(path, [row])
    print_fidelity(read_fidelity(path), run.config.fidelity.warn_factor)

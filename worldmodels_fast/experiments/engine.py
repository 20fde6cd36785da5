"""The stage engine: how stages are run, resumed, checked and shared between runs.

A finished stage leaves `stages/NAME.json` in the run's folder: its settings, time, machine and
figures. Running it again does nothing, unless its settings have changed: then it is an error that
says what to delete, so that nothing is lost by accident.

A run may begin with stages that another run has finished (`adopt`): an ablation shares what it does
not change, and each row of the temperature table is a run that shares V and M.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldmodels_fast.envs.registry import make_environment
from worldmodels_fast.evaluation.fidelity.file import read_fidelity, write_fidelity
from worldmodels_fast.experiments.config import RunConfig, load_config, save_config
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.utils.files import read_json, write_json
from worldmodels_fast.utils.memory import PeakMemory
from worldmodels_fast.utils.progress import console


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


_NOT_OF_THE_RESULT = {"workers", "checkpoint_every", "device"}
"""Settings that may change without a stage's result changing."""


class Pipeline:
    """A table of stages, and how a run goes through it.

    Args:
        stages: by name, in the order of a run.
    """

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self.stages = stages

    def open_run(self, folder: Path, config: RunConfig) -> Run:
        """Open a run to work on: make its folder if need be, and write the configuration.

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
                make_environment(run.environment.env_id, **kwargs).close()
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {config.environment} refuses them: {error}") from error
        if problems := [problem for name in self.stages for problem in self._problems(name, run)]:
            raise ValueError("\n".join(problems))
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, path)
        return run

    def run_stage(self, name: str, run: Run) -> None:
        """Run one stage, unless it is finished.

        Raises:
            ValueError: no such stage, the stage before it is missing, or it was done with other
                settings or from other results.
        """
        if name not in self.stages:
            raise ValueError(f"stage: expected one of {', '.join(self.stages)}, got {name!r}")
        stage = self.stages[name]
        if problems := self._problems(name, run):
            raise ValueError("\n".join(problems))
        if run.record(name) is not None and not stage.always:
            console.print(f"{name}: finished before")
            return
        identity = {
            "stage": name,
            "settings": self._settings(name, run),
            "inputs": self._inputs(name, run),
        }
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

    def run_all(self, run: Run) -> None:
        """Run every stage that is not finished and that the configuration asks for, in order."""
        for name, stage in self.stages.items():
            if stage.wanted(run.config):
                self.run_stage(name, run)

    def adopt(self, run: Run, base: Run) -> list[str]:
        """Begin a run with what another one has finished; return the names of those stages.

        A stage is adopted if this run would do the same: its settings are the same, and every
        stage that it reads is adopted, too. The record is copied with its id, files are copied,
        episodes and latents linked. Adopting again does nothing, or finds out that the other run
        has meanwhile done a stage anew.

        Raises:
            ValueError: a stage here was adopted from an earlier result of `base`, or the results
                in `base` are not those of its configuration.
        """
        adopted: list[str] = []
        for name, stage in self.stages.items():
            if stage.always or not set(stage.reads) <= set(adopted):
                continue
            if problems := self._problems(name, base):
                raise ValueError("\n".join(problems))
            own, record = run.record(name), base.record(name)
            if own is not None:
                taken = own.get("adopted_from")
                if taken is not None and own["id"] != (record or {}).get("id"):
                    raise ValueError(
                        f"{run.folder}: its {name} is that of {taken}, where it has been deleted "
                        "or done anew since; delete this folder, or use another one"
                    )
                if taken is not None:
                    adopted.append(name)
            elif (
                record is not None
                and not _begun_path(name, run).exists()
                and not _differences(self._recorded(name, record), self._settings(name, run))
            ):
                for file in stage.writes:
                    _take(base.folder / file, run.folder / file)
                record["adopted_from"] = str(base.folder)
                write_json(run.folder / "stages" / f"{name}.json", record)
                adopted.append(name)
        return adopted

    def _settings(self, name: str, run: Run) -> dict[str, Any]:
        """What the stage's result depends on of the configuration, as JSON gives it back."""
        everything = dataclasses.asdict(run.config)
        settings = {key: everything[key] for key in ("environment", "env_kwargs", "seed")}
        for key in self.stages[name].settings:
            section = everything[key].items()
            settings[key] = {k: v for k, v in section if k not in _NOT_OF_THE_RESULT}
        return _without_idle(json.loads(json.dumps(settings)))

    def _inputs(self, name: str, run: Run) -> dict[str, str | None]:
        """Return the ids of the results that the stage reads; a stage done again has a new one."""
        ids = {stage: (run.record(stage) or {}).get("id") for stage in self.stages[name].reads}
        base = run.config.round.base
        if name == "collect" and base and (Path(base) / "config.json").is_file():
            # V and M are taken, too, but all that is done here comes after this.
            ids["base"] = (Run.load(Path(base)).record("evolve") or {}).get("id")
        return ids

    def _problems(self, name: str, run: Run) -> list[str]:
        """Why what the folder holds of this stage is not what this run would make."""
        stage = self.stages[name]
        files = (*stage.writes, *stage.needs)
        written = [file for file in files if (run.folder / file).exists()]
        before, state = run.record(name), "finished"
        if before is None and written:
            begun = _begun_path(name, run)
            before, state = read_json(begun), "half done"
            if before is not None and not isinstance(before.get("settings"), dict):
                raise ValueError(
                    f"{begun}: expected the settings of a stage, got {before!r}; delete "
                    f"{' '.join([begun.name, *written])} in {run.folder} to do {name} again"
                )
        if before is None or stage.always:
            return []
        differences = []
        if state == "finished" or stage.resumes_blindly:  # else its own state knows its settings
            differences = _differences(self._recorded(name, before), self._settings(name, run))
        ids = self._inputs(name, run)
        stale = [i for i, old in before.get("inputs", {}).items() if i in ids and ids[i] != old]
        if stale:
            differences.append(f"from an earlier {' and '.join(stale)}")
        if not differences:
            return []
        delete = " ".join([f"stages/{name}.json", *written])
        return [
            f"{name} is {state} in {run.folder} with other settings ({', '.join(differences)}); "
            f"use another folder, or delete {delete} in there to do it again"
        ]

    def _recorded(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """A record's settings of a stage; those that a later version added have their defaults."""
        defaults = json.loads(json.dumps(dataclasses.asdict(RunConfig(recipe=""))))
        settings: dict[str, Any] = dict(record["settings"])
        for key in self.stages[name].settings:
            known = {k: v for k, v in defaults[key].items() if k not in _NOT_OF_THE_RESULT}
            settings[key] = {**known, **settings.get(key, {})}
        return _without_idle(settings)


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


def _without_idle(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out settings that decide nothing: those of a further round, where there is none."""
    if "round" in settings and not settings["round"].get("base"):
        settings["round"] = {}
    return settings


def _begun_path(name: str, run: Run) -> Path:
    return run.folder / "stages" / f"{name}.begun.json"


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old!r}, now {new!r}")
    return found

"""The stage engine: how stages are run, resumed, checked and shared between runs.

A finished stage leaves `stages/NAME.json` in the run's folder: its settings, time, machine and
figures. Running it again does nothing, unless its settings have changed: then it is an error that
says what to delete, so that nothing is lost by accident.

A stage's identity is made of the settings that it declares (`Stage.settings` and `more_settings`)
and of the ids of the results that it reads. Settings that it reads and does not declare are those
of a stage that it reads, whose new result has a new id.

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
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch

from worldmodels_fast.envs.registry import make_environment
from worldmodels_fast.evaluation.fidelity.file import read_fidelity, write_fidelity
from worldmodels_fast.evolution.cma import check_cma_options
from worldmodels_fast.experiments.config import RunConfig, load_config, save_config
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.migration import FORMAT, recorded_settings
from worldmodels_fast.utils.files import read_json, write_json
from worldmodels_fast.utils.memory import PeakMemory
from worldmodels_fast.utils.progress import console
from worldmodels_fast.utils.settings import option_of


@dataclass(frozen=True)
class Stage:
    """A stage, and the settings and stages that its result depends on.

    Attributes:
        function: does it, and returns the figures for its record.
        settings: settings that its result depends on, "section.name" or a whole "section".
        more_settings: returns those that count only under this configuration; the settings that
            decide so are in `settings`.
        reads: the stages whose results it reads.
        writes: its files and folders in the run's folder.
        needs: checkpoint files, read only by this stage to resume.
        resumes_blindly: its half-done work does not say with which settings it was begun.
        may_change: settings that may be others when a half-done stage goes on.
        always: it is done again each time.
        wanted: whether a run of this configuration has this stage; alone it can be run anyway.
    """

    function: Callable[[Run], dict[str, Any]]
    settings: tuple[str, ...] = ()
    more_settings: Callable[[RunConfig], tuple[str, ...]] = lambda config: ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    resumes_blindly: bool = False
    may_change: tuple[str, ...] = ()
    always: bool = False
    wanted: Callable[[RunConfig], bool] = lambda config: True


SETTINGS_OF_ALL = ("environment", "env_kwargs", "seed")
"""Settings that every stage depends on."""

NOT_OF_THE_RESULT = {"workers", "checkpoint_every", "device"}
"""Names of settings, in any section, that may change without a stage's result changing."""


class StageEngine:
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
                other settings; or the environment or cma refuses its settings.
        """
        path = folder / "config.json"
        earlier = load_config(path) if path.is_file() else None
        if earlier is not None and earlier.recipe != config.recipe:
            raise ValueError(
                f"{folder} is a run of {earlier.recipe}, not of {config.recipe}; use another folder"
            )
        run = Run(folder, config)
        used = {"--env-kwargs": config.env_kwargs}
        if config.evolve_in == "game":
            used["--game.max-steps, --game.patience"] = run.members_env_kwargs()
        for name, kwargs in used.items():
            try:
                make_environment(run.environment.env_id, **kwargs).close()
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {config.environment} refuses them: {error}") from error
        check_cma_options(config.evolve)
        problems = [p for name in self.stages for p in self._problems(name, run, earlier)]
        if problems:
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
            "format": FORMAT,
            "stage": name,
            "settings": self.settings_of(name, run.config),
            "inputs": self._inputs(name, run),
        }
        begun = _begun_path(name, run)
        unclaimed = not begun.exists() and bool(self._written(name, run))
        write_json(begun, identity)
        began = time.monotonic()
        try:
            with PeakMemory() as memory:
                figures = stage.function(run)
        except ValueError:
            if unclaimed:  # the stage refuses what was there, which is not of these settings
                begun.unlink(missing_ok=True)
            raise
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
            ValueError: a stage here was adopted from an earlier result of `base`, the results in
                `base` are not those of its configuration, or files of a stage are here that no
                record tells of.
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
                if taken is not None and own.get("id") != (record or {}).get("id"):
                    raise ValueError(
                        f"{run.folder}: its {name} is that of {taken}, where it has been deleted "
                        "or done anew since; delete this folder, or use another one"
                    )
                if taken is not None:
                    adopted.append(name)
            elif (
                record is not None
                and not _begun_path(name, run).exists()
                and not self._differences(name, record, run, base.config)
            ):
                adopting = run.folder / "stages" / f"{name}.adopting.json"
                files = (*stage.writes, *stage.needs)
                there = [file for file in files if (run.folder / file).exists()]
                if there and not adopting.exists():
                    raise ValueError(
                        f"{run.folder}: {', '.join(there)} of {name} are there, without a record "
                        "that says where they come from; move or delete them, or use another folder"
                    )
                write_json(adopting, {"from": str(base.folder)})
                for file in stage.writes:
                    _take(base.folder / file, run.folder / file)
                record["adopted_from"] = str(base.folder)
                write_json(run.folder / "stages" / f"{name}.json", record)
                adopting.unlink()
                adopted.append(name)
        return adopted

    def settings_of(self, name: str, config: RunConfig) -> dict[str, Any]:
        """Return the settings that the stage's result depends on, by name, as JSON gives them."""
        stage, values = self.stages[name], _flat(config)
        declared = {*SETTINGS_OF_ALL, *stage.settings, *stage.more_settings(config)}
        return {
            key: value
            for key, value in values.items()
            if declared & {key, key.partition(".")[0]}
            and key.rpartition(".")[2] not in NOT_OF_THE_RESULT
        }

    def _inputs(self, name: str, run: Run) -> dict[str, str | None]:
        """Return the ids of the results that the stage reads; a stage done again has a new one."""
        ids = {stage: (run.record(stage) or {}).get("id") for stage in self.stages[name].reads}
        base = run.config.round.base
        if name == "collect" and base and (Path(base) / "config.json").is_file():
            # V and M are taken, too, but all that is done here comes after this.
            ids["base"] = (Run.load(Path(base)).record("evolve") or {}).get("id")
        return ids

    def _written(self, name: str, run: Run) -> list[str]:
        """Return those of the stage's files and folders that are there."""
        stage = self.stages[name]
        files = (*stage.writes, *stage.needs)
        return [file for file in files if (run.folder / file).exists()]

    def _problems(self, name: str, run: Run, earlier: RunConfig | None = None) -> list[str]:
        """Return why the folder's result of this stage is not what this run would make.

        Args:
            name: the stage.
            run: the run.
            earlier: the configuration that the folder had; see `_differences`.
        """
        stage, written = self.stages[name], self._written(name, run)
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
            may_change = stage.may_change if state == "half done" else ()
            differences = self._differences(name, before, run, earlier, may_change)
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

    def _differences(
        self,
        name: str,
        record: dict[str, Any],
        run: Run,
        earlier: RunConfig | None,
        may_change: tuple[str, ...] = (),
    ) -> list[str]:
        """Return the settings of a stage in which its record differs from the run.

        Settings that the record does not hold are taken from `earlier`, the configuration of the
        folder that the record is in; without it they count as the same.
        """
        now = self.settings_of(name, run.config)
        before = {
            **(_flat(earlier) if earlier is not None else now),
            **recorded_settings(name, record, now, _flat(RunConfig(recipe=""))),
        }
        return [
            difference
            for key, value in now.items()
            if key not in may_change
            for difference in _changes(option_of("--", key), before[key], value)
        ]


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


def _flat(config: RunConfig) -> dict[str, Any]:
    """Return all settings by name, {"seed": 1, "vae.steps": 150}, with values as JSON has them."""
    sections = {f.name for f in dataclasses.fields(config) if is_dataclass(f.default_factory)}
    flat: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(dataclasses.asdict(config))).items():
        if key in sections:
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    return flat


def _begun_path(name: str, run: Run) -> Path:
    return run.folder / "stages" / f"{name}.begun.json"


def _changes(option: str, before: Any, now: Any) -> list[str]:
    """Return how a setting has changed, in words; none if it has not."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for key in {**before, **now}
            for change in _changes(f"{option}.{key}", before.get(key), now.get(key))
        ]
    return [] if before == now else [f"{option}: {before!r}, now {now!r}"]

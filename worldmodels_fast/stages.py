"""The stages of a run: each reads what the one before wrote, can be run alone, and resumes.

frames -> V -> latents -> M -> dream -> C -> CMA-ES -> real game -> report

A stage that is finished leaves `stages/NAME.json` in the run's folder: its settings, how long it
took, on what machine, and its figures. Running it again does nothing, unless its settings have
changed: then it is an error that says what to delete, so that nothing is lost by accident.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from worldmodels_fast import data, envs
from worldmodels_fast.agent import World
from worldmodels_fast.collection import collect
from worldmodels_fast.controller import LinearController
from worldmodels_fast.dream import Dream
from worldmodels_fast.evaluation import save_evaluations
from worldmodels_fast.evolution import Record, derive_seed, evolve
from worldmodels_fast.mdn_rnn import MDNRNN
from worldmodels_fast.progress import StageProgress, console, format_metrics, sparkline
from worldmodels_fast.recipes import RunConfig, load_config, save_config
from worldmodels_fast.scoring import compare_with_game, play_beside_random
from worldmodels_fast.training import (
    encode_episodes,
    load_checkpoint,
    steps_in_epoch,
    train_mdn_rnn,
    train_vae,
)
from worldmodels_fast.vae import VAE

FIRST_LATENTS = 1000
"""Stored first frames from which dreams begin (the authors kept as many)."""


@dataclass(frozen=True)
class Run:
    """A run: its folder and its configuration."""

    folder: Path
    config: RunConfig

    @classmethod
    def open(cls, folder: Path, config: RunConfig) -> Run:
        """Make the folder if need be, and write the configuration into it.

        Raises:
            ValueError: the folder holds a run of another recipe, or stages that were done with
                other settings; or the environment refuses its settings.
        """
        path = folder / "config.json"
        if path.is_file() and (earlier := load_config(path).recipe) != config.recipe:
            raise ValueError(
                f"{folder} is a run of {earlier}, not of {config.recipe}; use another folder"
            )
        run = cls(folder, config)
        try:
            gymnasium.make(run.card.env_id, **config.env_kwargs).close()
        except (TypeError, ValueError) as error:
            raise ValueError(f"env_kwargs: {config.environment} refuses them: {error}") from error
        if problems := [problem for name in STAGES for problem in _problems(name, run)]:
            raise ValueError("\n".join(problems))
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, path)
        return run

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Open a run that exists.

        Raises:
            ValueError: the folder holds none.
        """
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder}: no run in here (no config.json)")
        return cls(folder, load_config(folder / "config.json"))

    @property
    def card(self) -> envs.EnvironmentCard:
        """The environment's card."""
        return envs.ENVIRONMENTS[self.config.environment]

    @property
    def episodes(self) -> Path:
        """Folder of the collected episodes."""
        return self.folder / "episodes"

    @property
    def latents(self) -> Path:
        """Folder of the encoded episodes."""
        return self.folder / "latents"

    @property
    def world(self) -> Path:
        """Folder of the finished world: V, M, C and first latents in 16 bits."""
        return self.folder / "world"

    def record(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has left, or None."""
        return _read_json(self.folder / "stages" / f"{stage}.json")

    def new_controller(self) -> LinearController:
        """Return an untrained controller of this run's form."""
        c, rnn, vae = self.config.controller, self.config.rnn, self.config.vae
        return LinearController(
            features=c.features,
            latent_dim=vae.latent_dim,
            hidden_dim=rnn.hidden_dim,
            action_dim=self.card.action_dim,
            bias=c.bias,
            hidden_units=c.hidden_units,
        )

    def load_vae(self) -> VAE:
        """Return the trained V.

        Raises:
            ValueError: it is not trained yet.
        """
        model = VAE(self.config.vae.latent_dim)
        model.load_state_dict(_weights(self.folder / "vae.safetensors", "train-vae"))
        return model.eval()

    def load_mdn_rnn(self) -> MDNRNN:
        """Return the trained M.

        Raises:
            ValueError: it is not trained yet.
        """
        rnn = self.config.rnn
        model = MDNRNN(
            self.config.vae.latent_dim,
            self.card.action_dim,
            rnn.hidden_dim,
            rnn.n_mixtures,
            rnn.predicts_done,
        )
        model.load_state_dict(_weights(self.folder / "mdn_rnn.safetensors", "train-rnn"))
        return model.eval()

    def first_latents(self) -> tuple[data.Floats, data.Floats]:
        """Return mu, logvar (I, Z) of stored first frames."""
        shards, _ = data.split_held_out(data.finished_shards(self.latents, ".safetensors"))
        if not shards:
            raise ValueError(f"{self.latents}: no latents; run the stage `encode` first")
        per_shard = self.config.collect.shard_episodes
        latents = data.read_latents(self.latents, shards[: -(-FIRST_LATENTS // per_shard)])
        return data.first_latents(latents, FIRST_LATENTS)


def _weights(path: Path, stage: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: not there yet; run the stage `{stage}` first")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); delete stages/{stage}.json and run `{stage}` again"
        ) from error


def _save_weights(module: torch.nn.Module, path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    # `save_file` would leave a file that only its owner may read.
    unfinished.write_bytes(save({k: v.contiguous() for k, v in module.state_dict().items()}))
    os.replace(unfinished, path)


# --- the stages: each returns the figures that its record keeps -------------------------------


def stage_collect(run: Run) -> dict[str, Any]:
    """Play episodes of the real game under policies that look at nothing."""
    config = run.config.collect
    done = len(data.finished_shards(run.episodes)) * config.shard_episodes
    seen_now = kept_now = 0
    episodes = min(done, config.episodes)
    began = time.monotonic()
    with StageProgress("collect", config.episodes, "episodes", episodes) as progress:

        def on_shard(n: int, seen: int, kept: int) -> None:
            nonlocal episodes, seen_now, kept_now
            episodes, seen_now, kept_now = episodes + n, seen_now + seen, kept_now + kept
            rate = seen_now / (time.monotonic() - began)
            progress.update(episodes, f"{kept_now:,} frames kept, {rate:,.0f} frames/s")

        collect(
            run.episodes,
            run.config.environment,
            config,
            seed=run.config.seed,
            env_kwargs=run.config.env_kwargs,
            on_shard=on_shard,
        )
    seconds = time.monotonic() - began
    frames = sum(data.shard_steps(run.episodes, s) for s in data.finished_shards(run.episodes))
    return {
        "frames_kept": frames,
        "frames_seen": seen_now,  # these two of this run of the stage, were it killed in between
        "frames_per_second": seen_now / seconds,
    }


def stage_train_vae(run: Run) -> dict[str, Any]:
    """Train V on the frames."""
    checkpoint = run.folder / "vae.checkpoint"
    before = load_checkpoint(checkpoint)
    done = before["step"] if before else 0
    last: dict[str, float] = {}
    with StageProgress("train-vae", run.config.vae.steps, "batches", done) as progress:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            progress.update(step, metrics)

        model = train_vae(
            run.episodes, checkpoint, run.config.vae, seed=run.config.seed, on_step=on_step
        )
    _save_weights(model, run.folder / "vae.safetensors")
    return last


def stage_encode(run: Run) -> dict[str, Any]:
    """Write V's view of every frame."""
    model = run.load_vae()
    shards = len(data.finished_shards(run.episodes))
    done = len(data.finished_shards(run.latents, ".safetensors"))
    frames = 0
    with StageProgress("encode", shards, "shards", done) as progress:

        def on_shard(n: int) -> None:
            nonlocal frames, done
            frames, done = frames + n, done + 1
            progress.update(done, f"{frames:,} frames")

        encode_episodes(
            run.episodes,
            run.latents,
            model,
            precision=run.config.vae.precision,
            on_shard=on_shard,
        )
    return {"frames": frames}


def stage_train_rnn(run: Run) -> dict[str, Any]:
    """Train M on the latents."""
    checkpoint = run.folder / "mdn_rnn.checkpoint"
    before = load_checkpoint(checkpoint)
    done = before["step"] if before else 0
    config = run.config.rnn
    training, _ = data.split_held_out(data.finished_shards(run.latents, ".safetensors"))
    total = config.epochs * steps_in_epoch(data.read_latents(run.latents, training), config)
    last: dict[str, float] = {}
    with StageProgress("train-rnn", total, "batches", done) as progress:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            progress.update(step, metrics)

        model = train_mdn_rnn(
            run.latents, checkpoint, config, seed=run.config.seed, on_step=on_step
        )
    _save_weights(model, run.folder / "mdn_rnn.safetensors")
    return last


def stage_fidelity(run: Run) -> dict[str, Any]:
    """Compare how long fixed policies survive in the dream and in the game."""
    config = run.config.fidelity
    dream = Dream(
        run.load_mdn_rnn(),
        None,
        run.first_latents(),
        temperature=1.0,
        max_steps=run.config.evolve.max_steps,
        done_threshold=run.config.evolve.done_threshold,
    )
    rows = compare_with_game(
        dream,
        run.config.environment,
        config,
        seed=run.config.seed,
        env_kwargs=run.config.env_kwargs,
        folder=run.folder / "game",
    )
    result = {"rows": [dataclasses.asdict(row) for row in rows]}
    _write_json(run.folder / "fidelity.json", result)
    return {row.player: row.ratio for row in rows}


def stage_evolve(run: Run) -> dict[str, Any]:
    """Evolve C in the dream, and put the finished world together."""
    config = run.config.evolve
    controller = run.new_controller()
    vae, mdn_rnn, latents = run.load_vae(), run.load_mdn_rnn(), run.first_latents()
    dream = Dream(
        mdn_rnn,
        controller,
        latents,
        temperature=config.temperature,
        max_steps=config.max_steps,
        precision=config.precision,
        done_threshold=config.done_threshold,
    )
    means: list[float] = []
    with StageProgress("evolve", config.generations, "generations") as progress:

        def on_generation(record: Record) -> None:
            means.append(record["mean"])
            rate = record["steps"] / record["seconds"]
            scored = record.get("mean_score")
            progress.update(
                record["generation"] + 1,
                f"mean {record['mean']:.0f} best {record['max']:.0f} {sparkline(means)} "
                f"{rate:,.0f} steps/s" + ("" if scored is None else f"  scored {scored:.0f}"),
            )

        result = evolve(
            dream.evaluate,
            controller.n_params,
            config,
            state_path=run.folder / "evolution_state.pickle",
            history_path=run.folder / "history.jsonl",
            seed=run.config.seed,
            on_generation=on_generation,
        )
    with torch.no_grad():
        controller.flat.copy_(torch.from_numpy(result.params))
    _save_weights(controller, run.folder / "controller.safetensors")
    World(
        vae=vae,
        mdn_rnn=mdn_rnn,
        controller=controller,
        initial_latents=latents,
        config={
            "environment": run.config.environment,
            "env_kwargs": run.config.env_kwargs,
            "dream": {
                "temperature": config.temperature,
                "max_steps": config.max_steps,
                "done_threshold": config.done_threshold,
            },
            "recipe": run.config.recipe,
            "seed": run.config.seed,
        },
    ).save(run.world)
    return {
        "score_in_the_dream": result.score,
        "from_generation": result.generation,
        "generations": len(result.history),
        "stopped_by": result.stopped,
        "dream_steps": sum(record["steps"] for record in result.history),
        "precision": dream.model.precision,
    }


def stage_evaluate(run: Run) -> dict[str, Any]:
    """Play the real game with the world's agent, on fresh seeds, beside the random policy."""
    config = run.config.evaluate
    if not (run.world / "config.json").is_file():
        raise ValueError(f"{run.world}: no finished world yet; run the stage `evolve` first")
    evaluations = play_beside_random(
        run.world,
        run.config.environment,
        episodes=config.episodes,
        random_episodes=config.random_episodes,
        seed=derive_seed(run.config.seed, "evaluate"),
        workers=config.workers,
        env_kwargs=run.config.env_kwargs,
        progress_folder=run.folder / "game",
    )
    save_evaluations(evaluations, run.folder / "evaluation.json")
    return {name: evaluation.summary().mean for name, evaluation in evaluations.items()}


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
        resumes_blindly: its half-done work does not say with which settings it was begun.
        always: it is done again each time.
    """

    function: Callable[[Run], dict[str, Any]]
    settings: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    resumes_blindly: bool = False
    always: bool = False


STAGES: dict[str, Stage] = {
    "collect": Stage(stage_collect, ("collect",), (), ("episodes",), resumes_blindly=True),
    "train-vae": Stage(
        stage_train_vae,
        ("vae",),
        ("collect",),
        ("vae.checkpoint", "vae.safetensors"),
        resumes_blindly=True,
    ),
    "encode": Stage(stage_encode, (), ("collect", "train-vae"), ("latents",), resumes_blindly=True),
    "train-rnn": Stage(
        stage_train_rnn,
        ("rnn",),
        ("encode",),
        ("mdn_rnn.checkpoint", "mdn_rnn.safetensors"),
        resumes_blindly=True,
    ),
    "fidelity": Stage(stage_fidelity, ("fidelity",), ("encode", "train-rnn"), ("fidelity.json",)),
    "evolve": Stage(
        stage_evolve,
        ("evolve", "controller"),
        ("train-vae", "encode", "train-rnn"),
        ("evolution_state.pickle", "controller.safetensors", "world"),
    ),
    "evaluate": Stage(
        stage_evaluate,
        ("evaluate",),
        ("evolve",),
        ("game/evaluate-agent.jsonl", "game/evaluate-random.jsonl", "evaluation.json"),
    ),
    "report": Stage(stage_report, always=True),
}
"""In the order of a run."""

_NOT_OF_THE_RESULT = {"workers", "checkpoint_every"}
"""Settings that may change without a stage's result changing."""


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
    identity = {"settings": _settings(name, run), "inputs": _inputs(name, run)}
    begun = _begun_path(name, run)
    if stage.resumes_blindly:
        _write_json(begun, identity)
    began = time.monotonic()
    figures = stage.function(run)
    _write_json(
        run.folder / "stages" / f"{name}.json",
        {
            "stage": name,
            "id": uuid.uuid4().hex,
            **identity,
            "figures": figures,
            "seconds": time.monotonic() - began,
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "torch": torch.__version__,
        },
    )
    begun.unlink(missing_ok=True)


def run_all(run: Run) -> None:
    """Run every stage that is not finished, in order."""
    for name in STAGES:
        run_stage(name, run)


def _settings(name: str, run: Run) -> dict[str, Any]:
    """What the stage's result depends on of the configuration, as JSON gives it back."""
    everything = dataclasses.asdict(run.config)
    settings = {key: everything[key] for key in ("environment", "env_kwargs", "seed")}
    for key in STAGES[name].settings:
        section = everything[key].items()
        settings[key] = {k: v for k, v in section if k not in _NOT_OF_THE_RESULT}
    as_json: dict[str, Any] = json.loads(json.dumps(settings))
    return as_json


def _inputs(name: str, run: Run) -> dict[str, str | None]:
    """Which results the stage reads: each has an id of its own, a new one if it is done again."""
    return {stage: (run.record(stage) or {}).get("id") for stage in STAGES[name].reads}


def _begun_path(name: str, run: Run) -> Path:
    return run.folder / "stages" / f"{name}.begun.json"


def _problems(name: str, run: Run) -> list[str]:
    """Why what the folder holds of this stage is not what this run would make."""
    stage = STAGES[name]
    written = [file for file in stage.writes if (run.folder / file).exists()]
    before, state = run.record(name), "finished"
    if before is None and written:
        before, state = _read_json(_begun_path(name, run)), "half done"
    if before is None or stage.always:
        return []
    differences = _differences(before["settings"], _settings(name, run))
    ids = _inputs(name, run)
    stale = [i for i, old in before.get("inputs", {}).items() if i in ids and ids[i] != old]
    if stale:
        differences.append(f"from an earlier {' and '.join(stale)}")
    if not differences:
        return []
    files = " ".join([f"stages/{name}.json", *written])
    return [
        f"{name} is {state} in {run.folder} with other settings ({', '.join(differences)}); use "
        f"another folder, or delete {files} in there to do it again"
    ]


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old!r}, now {new!r}")
    return found


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete it") from error
    return value


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(unfinished, path)


__all__ = ["STAGES", "Run", "format_metrics", "run_all", "run_stage"]

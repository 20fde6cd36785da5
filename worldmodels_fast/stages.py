"""The stages of a run: each reads what the one before wrote, can be run alone, and resumes.

frames -> V -> latents -> M -> dream -> C -> CMA-ES -> real game -> report

A stage that is finished leaves `stages/NAME.json` in the run's folder: its settings, how long it
took, on what machine, and its figures. Running it again does nothing, unless its settings have
changed: then it is an error that says what to delete, so that nothing is lost by accident.

A run may begin with stages that another run has finished (`adopt`): an ablation shares what it does
not change, and each row of the temperature table is a run that shares V and M.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from worldmodels_fast import data, envs
from worldmodels_fast.agent import World
from worldmodels_fast.collection import collect
from worldmodels_fast.controller import LinearController
from worldmodels_fast.dream import Dream
from worldmodels_fast.evaluation import save_evaluations
from worldmodels_fast.evolution import Params, Record, Watch, derive_seed, evolve, load_means
from worldmodels_fast.mdn_rnn import MDNRNN
from worldmodels_fast.memory import PeakMemory
from worldmodels_fast.progress import StageProgress, console, format_metrics, sparkline
from worldmodels_fast.quality import HeldOut, measure
from worldmodels_fast.quality.measure import PARTS
from worldmodels_fast.quality.tables import headline, summary
from worldmodels_fast.recipes import RunConfig, load_config, save_config
from worldmodels_fast.rollout import Game
from worldmodels_fast.scoring import (
    compare_controller,
    compare_with_game,
    controller_row,
    play_beside_random,
    print_fidelity,
    read_fidelity,
    write_controller_rows,
    write_fidelity,
)
from worldmodels_fast.training import (
    calibrate_done,
    encode_episodes,
    load_checkpoint,
    read_metrics,
    steps_in_epoch,
    train_mdn_rnn,
    train_vae,
)
from worldmodels_fast.untrained import beside_untrained, reads_second_half, widen
from worldmodels_fast.vae import VAE

_NO_WIDTH = -60.0
"""A log-variance that adds nothing to a float32."""

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

    def unevolved_world(self) -> World:
        """Return V, M and first latents as a world whose controller is not evolved yet.

        Raises:
            ValueError: V or M is not trained yet.
        """
        config = self.config
        return World(
            vae=self.load_vae(),
            mdn_rnn=self.load_mdn_rnn(),
            controller=self.new_controller(),
            initial_latents=self.first_latents(),
            config={
                "environment": config.environment,
                "env_kwargs": config.env_kwargs,
                "latent": config.controller.latent,
                "dream": self.dream_settings(),
                "seed": config.seed,
            },
        )

    def dream_settings(self) -> dict[str, Any]:
        """Return this run's settings of a `Dream`, as a world's config.json keeps them.

        Raises:
            ValueError: death is to be calibrated, and M has no calibration.
        """
        death = self.config.death
        rule = {"done_threshold": death.threshold, "done_temperature": death.temperature}
        if death.calibrated:
            fit = (self.record("train-rnn") or {}).get("figures", {}).get("death", {})
            if "threshold" not in fit:
                why = fit.get("none", "it was trained before there was one; run `train-rnn` again")
                raise ValueError(f"death.calibrated: M has no calibration: {why}")
            rule = {"done_threshold": fit["threshold"], "done_temperature": fit["temperature"]}
        evolve = self.config.evolve
        return {"temperature": evolve.temperature, "max_steps": evolve.max_steps, **rule}

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

    def player(self) -> tuple[MDNRNN, LinearController, Callable[[Params], Params]]:
        """Return the M of the dream, an untrained C for it, and what makes C's parameters.

        The last takes a population (P, n_params) of `new_controller`, which is what CMA-ES evolves,
        to that of the C returned; they are the same unless C remembers by an untrained M.
        """
        mdn_rnn, controller = self.load_mdn_rnn(), self.new_controller()
        if self.config.controller.memory == "trained":
            return mdn_rnn, controller, lambda population: population
        spec = controller.spec
        both = beside_untrained(mdn_rnn, derive_seed(self.config.seed, "untrained"))
        return both, reads_second_half(spec), lambda population: widen(spec, population)

    def first_latents(self) -> tuple[data.Floats, data.Floats]:
        """Return mu, logvar (I, Z) of stored first frames; of no width if C sees mu alone."""
        shards, _ = data.split_held_out(data.finished_shards(self.latents, ".safetensors"))
        if not shards:
            raise ValueError(f"{self.latents}: no latents; run the stage `encode` first")
        per_shard = self.config.collect.shard_episodes
        latents = data.read_latents(self.latents, shards[: -(-FIRST_LATENTS // per_shard)])
        mu, logvar = data.first_latents(latents, FIRST_LATENTS)
        if self.config.controller.latent == "mu":
            logvar = np.full_like(logvar, _NO_WIDTH)
        return mu, logvar


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
            device=run.config.vae.device,
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
    figures: dict[str, Any] = {**last}
    if config.predicts_done:
        try:
            figures["death"] = calibrate_done(model, run.latents, config)._asdict()
        except ValueError as error:  # which matters only to who wants a calibrated death
            figures["death"] = {"none": str(error)}
    return figures


def stage_fidelity(run: Run) -> dict[str, Any]:
    """Compare how long fixed policies survive in the dream and in the game."""
    config = run.config.fidelity
    dream = Dream(
        run.load_mdn_rnn(),
        None,
        run.first_latents(),
        **{**run.dream_settings(), "temperature": 1.0},
    )
    rows = compare_with_game(
        dream,
        run.config.environment,
        config,
        seed=run.config.seed,
        env_kwargs=run.config.env_kwargs,
        folder=run.folder / "game",
    )
    write_fidelity(run.folder / "fidelity.json", rows)
    return {row.player: row.ratio for row in rows}


def stage_quality(run: Run) -> dict[str, Any]:
    """Measure on held-out episodes how good the dream is: its foresight, deaths, walls and fire."""
    config = run.config
    shards = data.finished_shards(run.latents, ".safetensors")
    training, shards = data.split_held_out(shards)
    held_out = HeldOut(run.episodes, run.latents, shards, config.quality.episodes)
    with StageProgress("quality", PARTS, "parts") as progress:
        result = measure(
            run.unevolved_world(),
            held_out,
            config.quality,
            done_weight=config.rnn.done_weight,
            policies=config.collect.policies,
            seed=config.seed,
            latent=config.rnn.latent,
            on_part=lambda name: progress.update(progress.done + 1, name),
        )
    result["held_out"] = not set(shards) & set(training)
    _write_json(run.folder / "quality.json", result)
    console.print(summary(result))
    return headline(result)


def stage_evolve(run: Run) -> dict[str, Any]:
    """Evolve C in the dream, and put the finished world together."""
    config = run.config.evolve
    vae, latents = run.load_vae(), run.first_latents()
    mdn_rnn, controller, widened = run.player()
    dream = Dream(
        mdn_rnn,
        controller,
        latents,
        precision=config.precision,
        device=config.device,
        **run.dream_settings(),
    )
    means: list[float] = []
    gap = ""
    progress = StageProgress("evolve", config.generations, "generations")
    with progress, _watch_gap(run, vae, mdn_rnn, controller, dream, widened) as watch:

        def on_generation(record: Record) -> None:
            nonlocal gap
            means.append(record["mean"])
            if "gap" in record:
                gap = (
                    f"  dream {record['dream_score']:.0f} - game {record['real_score']:.0f} = gap "
                    f"{record['gap']:.0f}"
                )
            rate = record["steps"] / record["seconds"]
            scored = record.get("mean_score")
            progress.update(
                record["generation"] + 1,
                f"mean {record['mean']:.0f} best {record['max']:.0f} {sparkline(means)} "
                f"{rate:,.0f} steps/s" + ("" if scored is None else f"  scored {scored:.0f}") + gap,
            )

        result = evolve(
            lambda population, rollouts, seed: dream.evaluate(widened(population), rollouts, seed),
            run.new_controller().n_params,
            config,
            state_path=run.folder / "evolution_state.pickle",
            history_path=run.folder / "history.jsonl",
            means_path=run.folder / "means.safetensors",
            seed=run.config.seed,
            on_generation=on_generation,
            watch=watch,
        )
    controller.set_flat(widened(result.params[None])[0])
    _save_weights(controller, run.folder / "controller.safetensors")
    World(
        vae=vae,
        mdn_rnn=mdn_rnn,
        controller=controller,
        initial_latents=latents,
        config={
            "environment": run.config.environment,
            "env_kwargs": run.config.env_kwargs,
            "latent": run.config.controller.latent,
            "dream": run.dream_settings(),
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
        "evolution_seconds": sum(record["seconds"] for record in result.history),
        "gap_seconds": sum(record.get("gap_seconds", 0.0) for record in result.history),
    }


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


@contextlib.contextmanager
def _watch_gap(
    run: Run,
    vae: VAE,
    mdn_rnn: MDNRNN,
    controller: LinearController,
    dream: Dream,
    widened: Callable[[Params], Params],
) -> Iterator[Watch | None]:
    """What measures the exploit gap while C evolves, or None if the run does not ask for it.

    The games are the same after every generation, so that their scores differ by the controller
    and not by luck.
    """
    config, evolve_config, seed = run.config.gap, run.config.evolve, run.config.seed
    if not config.every:
        yield None
        return
    with Game(
        vae,
        mdn_rnn,
        controller,
        run.card.env_id,
        env_kwargs=run.config.env_kwargs,
        latent=run.config.controller.latent,
        workers=run.config.evaluate.workers,
    ) as game:

        def watch(record: Record, mean: Params) -> Record:
            done = record["generation"] + 1
            if done % config.every and done != evolve_config.generations:
                return {}
            began = time.perf_counter()
            member = widened(mean[None])
            real = game.evaluate(member, config.episodes, derive_seed(seed, "gap/game")).returns
            dreamt = record.get("mean_score")
            if dreamt is None:
                noise = derive_seed(seed, "gap/dream", record["generation"])
                returns = dream.evaluate(member, evolve_config.eval_rollouts, noise).returns
                dreamt = float(np.mean(returns, dtype=np.float64))
            return {
                "dream_score": dreamt,
                "real_score": float(real.mean()),
                "real_std": float(real.std()),
                "gap": dreamt - float(real.mean()),
                "gap_seconds": time.perf_counter() - began,
            }

        yield watch


def stage_evaluate(run: Run) -> dict[str, Any]:
    """Play the real game with the world's agent, on fresh seeds, beside the random policy.

    The agent was chosen in the dream alone. Where the gap was watched, the mean that was best in
    the real game then plays, too, for comparison; its score is measured anew, since the one that
    it was picked for is too good.
    """
    config = run.config.evaluate
    if not (run.world / "config.json").is_file():
        raise ValueError(f"{run.world}: no finished world yet; run the stage `evolve` first")
    world = World.load(run.world)
    evolved = run.record("evolve")
    chosen = int(evolved["figures"]["from_generation"]) if evolved else 0
    best = _best_by_real(run) if evolved else None
    others = {}
    if best is not None and best["generation"] != chosen:
        others[BEST_BY_REAL] = _with_mean(run, world, best["generation"])
    evaluations = play_beside_random(
        world,
        run.config.environment,
        episodes=config.episodes,
        random_episodes=config.random_episodes,
        seed=derive_seed(run.config.seed, "evaluate"),
        workers=config.workers,
        env_kwargs=run.config.env_kwargs,
        progress_folder=run.folder / "game",
        latent=run.config.controller.latent,
        others=others,
    )
    figures: dict[str, Any] = {}
    if best is not None:
        evaluations.setdefault(BEST_BY_REAL, evaluations["agent"])
        figures["chosen"] = {
            "agent": {"generation": chosen, "by": "mean score in the dream"},
            BEST_BY_REAL: {**best, "by": f"mean of {run.config.gap.episodes} real episodes"},
        }
        said = "the agent itself" if not others else "scored above on fresh episodes"
        console.print(
            f"The agent is the mean after generation {chosen + 1}, the best in the dream; best in "
            f"{run.config.gap.episodes} real episodes, with {best['real_score']:.0f}, was that "
            f"after generation {best['generation'] + 1}: {said}."
        )
    save_evaluations(evaluations, run.folder / "evaluation.json")
    rows = [
        controller_row(
            name,
            player,
            [episode.steps for episode in evaluations[name].episodes],
            run.config.fidelity.dream_episodes,
            seed=run.config.seed,
        )
        for name, player in {"agent": world, **others}.items()
    ]
    write_controller_rows(run.folder / "fidelity.json", rows)
    means = {name: evaluation.summary().mean for name, evaluation in evaluations.items()}
    return {**means, **figures}


BEST_BY_REAL = "best-by-real"
"""The player whose mean was the best in the real game while C evolved."""


def _best_by_real(run: Run) -> Record | None:
    """Generation and real_score of the watched mean with the best score in the game, or None."""
    watched = [row for row in read_metrics(run.folder / "history.jsonl") if "real_score" in row]
    if not watched:
        return None
    best = max(watched, key=lambda row: float(row["real_score"]))
    return {key: best[key] for key in ("generation", "real_score")}


def _with_mean(run: Run, world: World, generation: int) -> World:
    """Return the world with the mean after `generation` for its controller, in 16 bits, too."""
    mean = load_means(run.folder / "means.safetensors")[generation]
    _, controller, widened = run.player()
    rounded = widened(mean[None])[0].astype(np.float16).astype(np.float32)
    return dataclasses.replace(world, controller=controller.set_flat(rounded))


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
    "collect": Stage(stage_collect, ("collect",), (), ("episodes",), resumes_blindly=True),
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
        stage_fidelity, ("fidelity", "death"), ("encode", "train-rnn"), ("fidelity.json",)
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
    _write_json(begun, identity)
    began = time.monotonic()
    with PeakMemory() as memory:
        figures = stage.function(run)
    _write_json(
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
            _write_json(run.folder / "stages" / f"{name}.json", record)
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
    files = (*stage.writes, *stage.needs)
    written = [file for file in files if (run.folder / file).exists()]
    before, state = run.record(name), "finished"
    if before is None and written:
        before, state = _read_json(_begun_path(name, run)), "half done"
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
    return settings


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


__all__ = ["STAGES", "Run", "adopt", "compare_run", "format_metrics", "run_all", "run_stage"]

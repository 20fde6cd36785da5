"""The stages of a run: frames -> V -> latents -> M -> dream -> C -> real game -> report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from worldmodels_fast.evaluation.fidelity.compare import compare_controller, print_fidelity
from worldmodels_fast.evaluation.fidelity.file import read_fidelity, write_controller_rows
from worldmodels_fast.experiments.config import RunConfig
from worldmodels_fast.experiments.engine import Stage, StageEngine
from worldmodels_fast.experiments.run import Run
from worldmodels_fast.experiments.stages.collect import stage_collect
from worldmodels_fast.experiments.stages.encode import stage_encode
from worldmodels_fast.experiments.stages.evaluate import stage_evaluate
from worldmodels_fast.experiments.stages.evolve import stage_evolve
from worldmodels_fast.experiments.stages.fidelity import stage_fidelity
from worldmodels_fast.experiments.stages.quality import stage_quality
from worldmodels_fast.experiments.stages.report import stage_report
from worldmodels_fast.experiments.stages.sweep import sweep
from worldmodels_fast.experiments.stages.train_rnn import stage_train_rnn
from worldmodels_fast.experiments.stages.train_vae import stage_train_vae
from worldmodels_fast.world.world import World


def stage_sweep(run: Run, temperatures: Sequence[float] = ()) -> dict[str, Any]:
    """Evolve C at every temperature, score it in the dream and in the game: the paper's table.

    Args:
        run: the run.
        temperatures: rows to do now; none for those of the configuration.
    """
    return sweep(run, ENGINE, temperatures or run.config.sweep.temperatures)


DREAM_END = (
    "dream.max_steps",
    "dream.done_threshold",
    "dream.done_temperature",
    "dream.calibrated",
)
"""When a dream ends, whatever its temperature."""


def _of_a_round(*names: str) -> Callable[[RunConfig], tuple[str, ...]]:
    """Settings that count in a further round only."""
    return lambda config: names if config.round.base else ()


def _of_the_evaluation(config: RunConfig) -> tuple[str, ...]:
    """Settings of the dream or of the game, wherever C is evolved."""
    return ("game",) if config.evolve_in == "game" else ("dream.precision",)


STAGES: dict[str, Stage] = {
    "collect": Stage(
        stage_collect,
        settings=("collect", "round.base"),
        more_settings=_of_a_round("round"),
        writes=("episodes",),
        resumes_blindly=True,
    ),
    "train-vae": Stage(
        stage_train_vae,
        settings=("vae",),
        reads=("collect",),
        writes=("vae.log.jsonl", "vae.safetensors"),
        needs=("vae.checkpoint",),
        resumes_blindly=True,
    ),
    "encode": Stage(
        stage_encode,
        settings=("round.base",),
        # A round's links to another run's latents get rewards if M is to predict them.
        more_settings=_of_a_round("rnn.predicts_reward"),
        reads=("collect", "train-vae"),
        writes=("latents",),
        resumes_blindly=True,
    ),
    "train-rnn": Stage(
        stage_train_rnn,
        settings=("rnn",),
        reads=("encode",),
        writes=("mdn_rnn.log.jsonl", "mdn_rnn.safetensors"),
        needs=("mdn_rnn.checkpoint",),
        resumes_blindly=True,
    ),
    "fidelity": Stage(
        stage_fidelity,
        settings=(
            "fidelity.policies",
            "fidelity.real_episodes",
            "fidelity.dream_episodes",
            *DREAM_END,
            "controller.latent",
        ),
        reads=("encode", "train-rnn"),
        writes=("fidelity.json",),
        wanted=lambda config: config.rnn.predicts_done or config.rnn.predicts_reward,
    ),
    "quality": Stage(
        stage_quality,
        settings=("quality", *DREAM_END, "controller.latent"),
        reads=("collect", "train-vae", "encode", "train-rnn"),
        writes=("quality.json",),
    ),
    "evolve": Stage(
        stage_evolve,
        settings=("evolve_in", "evolve", "dream.temperature", *DREAM_END, "controller", "gap"),
        more_settings=_of_the_evaluation,
        reads=("train-vae", "encode", "train-rnn"),
        writes=("history.jsonl", "means.safetensors", "controller.safetensors", "world"),
        needs=("evolution_state.pickle",),
        resumes_blindly=True,
        may_change=(
            "evolve.generations",
            "evolve.max_minutes",
            "evolve.rollouts",  # for generations to come, which the state makes sure of
            "evolve.rollout_schedule",
            "gap.every",
            "gap.episodes",
        ),
    ),
    "evaluate": Stage(
        stage_evaluate,
        settings=("evaluate", "fidelity.dream_episodes"),
        reads=("evolve",),
        writes=(
            "game/evaluate-agent.jsonl",
            "game/evaluate-agent-unmodified.jsonl",
            "game/evaluate-best-by-real.jsonl",
            "game/evaluate-random.jsonl",
            "evaluation.json",
        ),
    ),
    "sweep-temperature": Stage(
        stage_sweep,
        settings=(
            "evolve_in",
            "evolve",
            *DREAM_END,
            "dream.precision",
            "controller",
            "gap",
            "sweep",
            "fidelity.dream_episodes",
        ),
        reads=("train-vae", "encode", "train-rnn"),
        writes=("temperatures.json", "temperatures.md"),
        wanted=lambda config: bool(config.sweep.temperatures),
    ),
    "report": Stage(stage_report, always=True),
}
"""In the order of a run."""

ENGINE = StageEngine(STAGES)
open_run = ENGINE.open_run
run_stage = ENGINE.run_stage
run_all = ENGINE.run_all
adopt = ENGINE.adopt


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

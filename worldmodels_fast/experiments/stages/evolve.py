"""Stage `evolve`: C, and the finished world."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodels_fast import ops
from worldmodels_fast.dream.dream import Dream
from worldmodels_fast.evolution.cma import Evaluate, Params, Record, Scores, Watch, evolve
from worldmodels_fast.experiments.run import Run, save_weights
from worldmodels_fast.migration import migrate_identity
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.models.mdn_rnn import MDNRNN
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.game import Game
from worldmodels_fast.utils.progress import StageProgress, sparkline
from worldmodels_fast.utils.seeding import derive_seed
from worldmodels_fast.world.world import World


@dataclass(frozen=True)
class _Players:
    """A run's V, M and untrained C, and the map from CMA-ES' parameters to C's: `Run.player`."""

    run: Run
    vae: VAE
    mdn_rnn: MDNRNN
    controller: LinearController
    to_params: Callable[[Params], Params]


@dataclass(frozen=True)
class _Evaluators:
    """Functions that evaluate members and means, in the dream or in the game.

    Attributes:
        evaluate: plays a generation's rollouts.
        score: plays the rollouts by which a mean is scored.
        watch: measures the exploit gap; None if the run does not ask for it.
        precision: of M in the dream, of V in the game.
    """

    evaluate: Evaluate
    score: Evaluate
    watch: Watch | None
    precision: str


def stage_evolve(run: Run) -> dict[str, Any]:
    """Evolve C in the dream or in the game, and put the finished world together."""
    config, evolve_in = run.config.evolve, run.config.evolve_in
    vae, latents = run.load_vae(), run.first_latents()
    mdn_rnn, controller, to_params = run.player()
    players = _Players(run, vae, mdn_rnn, controller, to_params)
    means: list[float] = []
    gap = ""
    progress = StageProgress("evolve", config.generations, "generations")
    with progress, (_in_game if evolve_in == "game" else _in_dream)(players) as evaluators:

        def on_generation(record: Record) -> None:
            nonlocal gap
            means.append(record["mean"])
            if "gap" in record:
                gap = (
                    f"  dream {record['dream_score']:.0f} - game {record['real_score']:.0f} = gap "
                    f"{record['gap']:.0f}"
                )
            rate = (record["steps"] + record.get("score_steps", 0)) / record["seconds"]
            scored = record.get("mean_score")
            progress.update(
                record["generation"] + 1,
                f"mean {record['mean']:.0f} best {record['max']:.0f} {sparkline(means)} "
                f"{rate:,.0f} steps/s" + ("" if scored is None else f"  scored {scored:.0f}") + gap,
            )

        result = evolve(
            evaluators.evaluate,
            run.new_controller().n_params,
            config,
            state_path=run.folder / "evolution_state.pickle",
            history_path=run.folder / "history.jsonl",
            means_path=run.folder / "means.safetensors",
            score=evaluators.score,
            seed=run.config.seed,
            on_generation=on_generation,
            watch=evaluators.watch,
            depends_on=_depends_on(run),
            read_identity=migrate_identity,
        )
    controller.set_flat(to_params(result.params[None])[0])
    save_weights(controller, run.folder / "controller.safetensors")
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

    def total(key: str) -> Any:
        return sum(record.get(key, 0) for record in result.history)

    return {
        f"score_in_the_{evolve_in}": result.score,
        "from_generation": result.generation,
        "generations": len(result.history),
        "stopped_by": result.stopped,
        f"{evolve_in}_steps": total("steps"),
        "score_steps": total("score_steps"),
        "steps_per_second": (total("steps") + total("score_steps")) / total("seconds"),
        "precision": evaluators.precision,
        "evolution_seconds": total("seconds"),
        "core_hours": total("seconds") * (os.cpu_count() or 1) / 3600,
        "gap_seconds": total("gap_seconds"),
    }


def _depends_on(run: Run) -> dict[str, Any]:
    """Return the settings that the evaluation of members depends on, for the evolution's state.

    The stage's identity holds them, too; the state is read where its record has been deleted.
    """
    config = run.config
    settings = {
        "evolve_in": config.evolve_in,
        **{f"controller.{name}": value for name, value in vars(config.controller).items()},
    }
    if config.evolve_in == "dream":
        own = {"precision": config.dream.precision, "device": config.dream.device}
        return settings | {f"dream.{k}": v for k, v in {**run.dream_settings(), **own}.items()}
    names = ("max_steps", "patience", "vae_precision", "device")
    return settings | {f"game.{name}": getattr(config.game, name) for name in names}


@contextlib.contextmanager
def _in_dream(players: _Players) -> Iterator[_Evaluators]:
    """Yield what evaluates in M's dream, a generation in one native call."""
    run, config = players.run, players.run.config.dream
    dream = Dream(
        players.mdn_rnn,
        players.controller,
        run.first_latents(),
        precision=config.precision,
        device=config.device,
        **run.dream_settings(),
    )

    def evaluate(population: Params, rollouts: int, seed: int) -> Scores:
        return dream.evaluate(players.to_params(population), rollouts, seed)

    with _watch_gap(players, dream) as watch:
        yield _Evaluators(evaluate, evaluate, watch, dream.model.precision)


@contextlib.contextmanager
def _in_game(players: _Players) -> Iterator[_Evaluators]:
    """Yield what evaluates in the game; only a generation's rollouts are cut, never a score's."""
    run, config = players.run, players.run.config.game
    backend = None if config.device == "cpu" else "cuda"
    precision: VAEPrecision = ops.resolve_precision(config.vae_precision, "vae_encoder", backend)
    make = functools.partial(
        Game,
        players.vae,
        players.mdn_rnn,
        players.controller,
        run.environment.env_id,
        latent=run.config.controller.latent,
        vae_precision=precision,
        workers=config.workers,
        device=config.device,
    )
    whole, cut = run.config.env_kwargs, run.members_env_kwargs()
    with make(env_kwargs=cut) as game:

        def evaluate(population: Params, rollouts: int, seed: int) -> Scores:
            return game.evaluate(players.to_params(population), rollouts, seed)

        def score(population: Params, rollouts: int, seed: int) -> Scores:
            game.close()  # two pools of workers would need twice the memory
            with make(env_kwargs=whole) as uncut:
                return uncut.evaluate(players.to_params(population), rollouts, seed)

        yield _Evaluators(evaluate, evaluate if cut == whole else score, None, precision)


@contextlib.contextmanager
def _watch_gap(players: _Players, dream: Dream) -> Iterator[Watch | None]:
    """Yield a function that measures the exploit gap, or None if the run asks for none.

    The game's episodes are the same after every generation, so that scores differ by the
    controller and not by luck.
    """
    run = players.run
    config, evolve_config, seed = run.config.gap, run.config.evolve, run.config.seed
    if not config.every:
        yield None
        return
    with Game(
        players.vae,
        players.mdn_rnn,
        players.controller,
        run.environment.env_id,
        env_kwargs=run.config.env_kwargs,
        latent=run.config.controller.latent,
        workers=run.config.evaluate.workers,
    ) as game:

        def watch(record: Record, mean: Params) -> Record:
            done = record["generation"] + 1
            if done % config.every and done != evolve_config.generations:
                return {}
            began = time.perf_counter()
            member = players.to_params(mean[None])
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

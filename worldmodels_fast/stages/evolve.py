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

from worldmodels_fast.agent import World
from worldmodels_fast.controller import LinearController
from worldmodels_fast.dream import Dream
from worldmodels_fast.encoder import VAEPrecision
from worldmodels_fast.evolution import Evaluate, Params, Record, Scores, Watch, derive_seed, evolve
from worldmodels_fast.mdn_rnn import MDNRNN
from worldmodels_fast.progress import StageProgress, sparkline
from worldmodels_fast.rollout import Game
from worldmodels_fast.stages.run import Run, save_weights
from worldmodels_fast.training import products_in_bf16
from worldmodels_fast.vae import VAE


@dataclass(frozen=True)
class _Cast:
    """Who plays: a run's V, M, and C without parameters, and what makes those; see `Run.player`."""

    run: Run
    vae: VAE
    mdn_rnn: MDNRNN
    controller: LinearController
    to_params: Callable[[Params], Params]


@dataclass(frozen=True)
class _Place:
    """Where C is evolved: the dream or the game.

    Attributes:
        evaluate: plays a generation.
        score: plays the rollouts that a mean is scored by.
        watch: measures the exploit gap, if the run asks for it.
        precision: in which it is played.
    """

    evaluate: Evaluate
    score: Evaluate
    watch: Watch | None
    precision: str


def stage_evolve(run: Run) -> dict[str, Any]:
    """Evolve C in the dream or in the game, and put the finished world together."""
    config = run.config.evolve
    vae, latents = run.load_vae(), run.first_latents()
    mdn_rnn, controller, to_params = run.player()
    cast = _Cast(run, vae, mdn_rnn, controller, to_params)
    means: list[float] = []
    gap = ""
    progress = StageProgress("evolve", config.generations, "generations")
    with progress, (_in_game if config.where == "game" else _in_dream)(cast) as place:

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
            place.evaluate,
            run.new_controller().n_params,
            config,
            state_path=run.folder / "evolution_state.pickle",
            history_path=run.folder / "history.jsonl",
            means_path=run.folder / "means.safetensors",
            score=place.score,
            seed=run.config.seed,
            on_generation=on_generation,
            watch=place.watch,
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
        f"score_in_the_{config.where}": result.score,
        "from_generation": result.generation,
        "generations": len(result.history),
        "stopped_by": result.stopped,
        f"{config.where}_steps": total("steps"),
        "score_steps": total("score_steps"),
        "steps_per_second": (total("steps") + total("score_steps")) / total("seconds"),
        "precision": place.precision,
        "evolution_seconds": total("seconds"),
        "core_hours": total("seconds") * (os.cpu_count() or 1) / 3600,
        "gap_seconds": total("gap_seconds"),
    }


@contextlib.contextmanager
def _in_dream(cast: _Cast) -> Iterator[_Place]:
    """M's dream, one native call for a generation."""
    run, config = cast.run, cast.run.config.evolve
    dream = Dream(
        cast.mdn_rnn,
        cast.controller,
        run.first_latents(),
        precision=config.precision,
        device=config.device,
        **run.dream_settings(),
    )

    def evaluate(population: Params, rollouts: int, seed: int) -> Scores:
        return dream.evaluate(cast.to_params(population), rollouts, seed)

    with _watch_gap(cast, dream) as watch:
        yield _Place(evaluate, evaluate, watch, dream.model.precision)


@contextlib.contextmanager
def _in_game(cast: _Cast) -> Iterator[_Place]:
    """The real game, in worker processes; rollouts of a generation may be cut, never a score's."""
    run, config = cast.run, cast.run.config.evolve
    precision: VAEPrecision = "bf16" if products_in_bf16(config.vae_precision) else "fp32"
    make = functools.partial(
        Game,
        cast.vae,
        cast.mdn_rnn,
        cast.controller,
        run.card.env_id,
        latent=run.config.controller.latent,
        vae_precision=precision,
        workers=config.workers,
        device=config.device,
    )
    whole, cut = run.config.env_kwargs, run.members_env_kwargs()
    with make(env_kwargs=cut) as game:

        def evaluate(population: Params, rollouts: int, seed: int) -> Scores:
            return game.evaluate(cast.to_params(population), rollouts, seed)

        def score(population: Params, rollouts: int, seed: int) -> Scores:
            game.close()  # two crews would need twice the memory
            with make(env_kwargs=whole) as uncut:
                return uncut.evaluate(cast.to_params(population), rollouts, seed)

        yield _Place(evaluate, evaluate if cut == whole else score, None, precision)


@contextlib.contextmanager
def _watch_gap(cast: _Cast, dream: Dream) -> Iterator[Watch | None]:
    """What measures the exploit gap while C evolves, or None if the run does not ask for it.

    The games are the same after every generation, so that their scores differ by the controller
    and not by luck.
    """
    run = cast.run
    config, evolve_config, seed = run.config.gap, run.config.evolve, run.config.seed
    if not config.every:
        yield None
        return
    with Game(
        cast.vae,
        cast.mdn_rnn,
        cast.controller,
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
            member = cast.to_params(mean[None])
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

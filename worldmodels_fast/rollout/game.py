"""The real game for a population: `Game.evaluate`, the protocol of `Dream.evaluate`.

Each worker process steps some slots by itself (`worker.py`); the scheduler in this process assigns
episodes to slots, and an episode that is done frees its slot for the next one.

An episode depends on its two seeds and its member's parameters alone. It is bitwise the same in
any slot, with any other episodes, with any number of workers, slots and threads, and when `Agent`
plays it: `Agent` and the workers have the same `Players`, whose kernels compute each row
independently of the others (see `ops.encode_frames`, `ops.mdn_rnn_step`).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from worldmodels_fast import ops
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult, OnEpisode, OnStep
from worldmodels_fast.rollout.scheduler import Scheduler
from worldmodels_fast.rollout.slots import Latent
from worldmodels_fast.rollout.worker import PlayerParts, WorkerSettings
from worldmodels_fast.rollout.worker_pool import WorkerPool
from worldmodels_fast.types import Floats
from worldmodels_fast.utils.arguments import checked_integer
from worldmodels_fast.utils.processes import n_workers
from worldmodels_fast.utils.seeding import derive_seed

if TYPE_CHECKING:
    from worldmodels_fast.models.controller import LinearController
    from worldmodels_fast.models.mdn_rnn import MDNRNN
    from worldmodels_fast.models.vae import VAE
    from worldmodels_fast.rollout.device_players import DevicePlayers


SLOTS_PER_WORKER = 8
"""More slots do not make V, M and C faster for each."""


@dataclass(frozen=True)
class GameResult:
    """Returns and lengths of P members in R rollouts each.

    Attributes:
        returns: (P, R) float64, sums of rewards.
        lengths: (P, R) int32, steps.
    """

    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int32]

    def __repr__(self) -> str:
        members, rollouts = self.returns.shape
        return (
            f"GameResult(members={members}, rollouts={rollouts}, "
            f"mean_return={self.returns.mean():.4g}, mean_length={self.lengths.mean():.4g})"
        )


class Game:
    """The real environment, played by many controllers at once.

    Workers and their environments start when they are first needed and stay for the next call;
    `close` stops them, and so does leaving a `with` statement.

    Workers are fresh processes. They know an environment that is registered here, and import the
    module of its class. If that is the main script itself, each worker imports the script: such a
    script plays under `if __name__ == "__main__":`, and cannot come from standard input, a notebook
    or `python -c`. Others need no guard. A worker that dies is replaced, also while it starts.

    Args:
        vae: V.
        mdn_rnn: M; None if the controller sees z alone.
        controller: `LinearController` or `ops.ControllerSpec`: the meaning of a parameter vector.
        env_id: a Gymnasium id whose frames are uint8 (64, 64, 3), e.g.
            "worldmodels_fast/TakeCover-v0".
        env_kwargs: keyword arguments of the environment.
        latent: z is sampled from V's distribution, "sample", or its mean, "mu".
        vae_precision: see `PackedEncoder`.
        workers: processes that play; None for one on each processor.
        slots: environments in all; None for 8 per worker.
        threads: of V's and M's kernels in each worker; more than 1 are of use only if there are
            fewer workers than processors.
        backend: instruction set of V, M and C, see `ops.available_backends`; None for the best one.
        device: of V, M and C: "cpu", in each worker; or "cuda", "cuda:1", ..., in this process for
            all workers, see `device_players`.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range, or parts that do not fit together.
    """

    def __init__(
        self,
        vae: VAE,
        mdn_rnn: MDNRNN | None,
        controller: LinearController | ops.ControllerSpec,
        env_id: str,
        *,
        env_kwargs: dict[str, Any] | None = None,
        latent: Latent = "sample",
        vae_precision: VAEPrecision = "fp32",
        workers: int | None = None,
        slots: int | None = None,
        threads: int = 1,
        backend: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.workers = n_workers(workers)
        self.slots = SLOTS_PER_WORKER * self.workers
        if slots is not None:
            self.slots = checked_integer("slots", slots, low=1)
        threads = checked_integer("threads", threads, low=1)
        self.env_id = env_id
        self.spec = controller if isinstance(controller, ops.ControllerSpec) else controller.spec
        self._players: DevicePlayers | None = None
        parts: PlayerParts | None = None
        if str(device) == "cpu":
            parts = PlayerParts(
                vae.encoder_weights(),
                None if mdn_rnn is None else mdn_rnn.weights(),
                self.spec,
                latent,
                vae_precision,
                threads,
                backend,
            )
            parts.players(1)  # so that an error in them is raised here, not in every worker
        else:
            from worldmodels_fast.rollout.device_players import DevicePlayers

            self._players = DevicePlayers(
                vae,
                mdn_rnn,
                self.spec,
                self.slots,
                latent=latent,
                vae_precision=vae_precision,
                device=str(device),
            )
        self._pool = WorkerPool(
            min(self.workers, self.slots),
            self.slots,
            WorkerSettings(
                env_id, _registered(env_id), dict(env_kwargs or {}), self.spec.action_dim, parts
            ),
        )

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"Game({self.env_id!r}, latent_dim={spec.latent_dim}, hidden_dim={spec.hidden_dim}, "
            f"action_dim={spec.action_dim}, n_params={spec.n_params}, workers={self.workers}, "
            f"slots={self.slots})"
        )

    def __enter__(self) -> Game:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers and close their environments; the next call starts new ones."""
        self._pool.close()

    def evaluate(self, population: Floats, rollouts: int = 16, seed: int = 0) -> GameResult:
        """Play R rollouts of each of P controllers.

        Rollout r of every member has the same game and the same noise (common random numbers).

        Args:
            population: (P, n_params) float32.
            rollouts: R.
            seed: 0 <= seed < 2**64; games and noise depend on it alone.

        Raises:
            ValueError, TypeError: an argument of the wrong type, size or range.
            RuntimeError: an episode failed three times, or a worker cannot start; the message says
                why.
        """
        rollouts = checked_integer("rollouts", rollouts, low=1)
        seed = checked_integer("seed", seed, low=0, high=2**64)
        seeds = [
            (
                derive_seed(seed, "rollout/environment", rollout) % 2**31,
                derive_seed(seed, "rollout/player", rollout),
            )
            for rollout in range(rollouts)
        ]
        episodes = [Episode(*pair, member) for member in range(len(population)) for pair in seeds]
        results = self.play(population, episodes)
        shape = (len(population), rollouts)
        return GameResult(
            np.array([result.score for result in results]).reshape(shape),
            np.array([result.steps for result in results], np.int32).reshape(shape),
        )

    def play(
        self,
        population: Floats,
        episodes: Sequence[Episode],
        on_episode: OnEpisode | None = None,
        on_step: OnStep | None = None,
    ) -> list[EpisodeResult]:
        """Play these episodes; return their results in the same order.

        An episode that raises, or whose worker dies, is played again with a `RuntimeWarning` which
        says what happened.

        Args:
            population: (P, n_params) float32.
            episodes: seeds and members, the rows of the population.
            on_episode: see `OnEpisode`.
            on_step: see `OnStep`.

        Raises:
            ValueError, TypeError: a population of another shape or dtype, or members that are not
                in it.
            RuntimeError: an episode failed three times, or a worker cannot start; the (last) error
                is the cause.
        """
        population = _population(population, self.spec.n_params)
        for episode in episodes:
            if not 0 <= episode.member < len(population):
                raise ValueError(
                    f"episodes: expected members from 0 to {len(population) - 1}, got {episode}"
                )
        try:
            scheduler = Scheduler(
                self._players, self._pool, population, episodes, on_episode, on_step
            )
            return scheduler.play()
        except BaseException:
            self.close()  # its workers are in the middle of episodes that are no longer wanted
            raise


def _registered(env_id: str) -> EnvSpec | str:
    """Return an environment's registration, for workers; its id if they must look it up.

    They do so for "module:Name-v0", an id without a version, and a registration that cannot be
    pickled (its entry point is a local function).
    """
    registered = gymnasium.registry.get(env_id)
    try:
        pickle.dumps(registered)
    except (pickle.PicklingError, AttributeError, TypeError):
        return env_id
    return registered or env_id


def _population(population: Floats, n_params: int) -> Floats:
    """Return the checked population (P, n_params) float32."""
    array = np.asarray(population)
    if array.dtype != np.float32:
        raise TypeError(f"population: expected float32, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != n_params or not len(array):
        raise ValueError(
            f"population: expected shape (P, {n_params}) with at least one row, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("population: expected finite numbers, got NaN or infinity")
    return array

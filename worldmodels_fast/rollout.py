"""Rollouts in the real game: many environments, and V, M and C beside them in worker processes.

`Game` is to the real environment what `Dream` is to the dream: a population of controllers goes in,
returns and lengths come out. Each worker plays some slots by itself (`table.py`); this process
deals the episodes out, and an episode that ends gives its slot to the next one that waits.

An episode depends on its two seeds and its member's parameters alone. It is bitwise the same in
any slot, beside any others, with any number of workers, slots and threads, and when `Agent` plays
it by itself: `Agent` and the workers have the same `Players`, whose kernels treat each row alike
(see `ops.encode_frames`, `ops.mdn_rnn_step`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from ctypes import c_ubyte
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops, table
from worldmodels_fast.encoder import VAEPrecision
from worldmodels_fast.evolution import derive_seed
from worldmodels_fast.players import Players
from worldmodels_fast.slots import Latent, Slots
from worldmodels_fast.table import Deal, Parts, Setting
from worldmodels_fast.workers import (
    MAX_TRIES,
    WorkerProcess,
    dismiss,
    gave_up,
    n_workers,
    say,
)

if TYPE_CHECKING:
    from worldmodels_fast.controller import LinearController
    from worldmodels_fast.device_players import DevicePlayers
    from worldmodels_fast.mdn_rnn import MDNRNN
    from worldmodels_fast.vae import VAE

__all__ = ["Episode", "EpisodeResult", "Game", "GameResult", "Latent", "Players"]

Floats = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]

SLOTS_PER_WORKER = 8
"""V, M and C need no longer, a row, for so many than for more."""

_LOOK_SECONDS = 0.5
"""A dead worker's pipe ends at once, unless a process that it started holds it open; then the
worker's death is noticed after this time."""


@dataclass(frozen=True)
class Episode:
    """An episode that is to be played.

    Attributes:
        env_seed: what the environment is reset with.
        player_seed: of the generator that z is sampled with.
        member: which row of the population plays it.
    """

    env_seed: int
    player_seed: int
    member: int = 0


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went.

    Attributes:
        score: the undiscounted return.
        steps: its length.
        terminated: whether it ended by itself, not by a time limit.
    """

    score: float
    steps: int
    terminated: bool


OnEpisode = Callable[[int, EpisodeResult], None]
"""Called with an episode's place in the list and its result, as soon as it is over."""

OnStep = Callable[[int, int, Frames, Floats, float], None]
"""Called after every step with the episode's place in the list, the step's number, the frame
(64, 64, 3) that was seen before it, the action (A,) and the reward; frame and action are the
callee's to keep. An episode that is played again begins again at step 0."""


@dataclass(frozen=True)
class GameResult:
    """What P members lived through in R rollouts each.

    Attributes:
        returns: (P, R) float64, sums of rewards.
        lengths: (P, R) int32, steps.
    """

    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int32]


class Game:
    """The real environment, played by many controllers at once.

    Workers and their environments start when they are first needed and stay for the next call;
    leave with `close`, or use it as a context manager. Processes are spawned: a script that makes a
    `Game` has an `if __name__ == "__main__":`.

    Args:
        vae: V.
        mdn_rnn: M; None if the controller sees z alone.
        controller: `LinearController` or `ops.ControllerSpec`: what a parameter vector means.
        env_id: a Gymnasium id whose frames are uint8 (64, 64, 3), e.g.
            "worldmodels_fast/TakeCover-v0".
        env_kwargs: settings of the environment.
        latent: "sample" or "mu".
        vae_precision: see `PackedEncoder`.
        workers: processes that play; None for one on each processor.
        slots: environments in all; None for 8 per worker.
        threads: of V's and M's kernels in each worker; more than 1 are of use only if there are
            fewer workers than processors.
        backend: instruction set of V, M and C, see `ops.available_backends`; None for the best one.
        device: of V, M and C: "cpu", in each worker; or "cuda", "cuda:1", ..., in this process for
            all workers, see `device_players`.

    Raises:
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
        self.slots = SLOTS_PER_WORKER * self.workers if slots is None else slots
        for name, value in (("slots", self.slots), ("threads", threads)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.spec = controller if isinstance(controller, ops.ControllerSpec) else controller.spec
        self._players: DevicePlayers | None = None
        parts: Parts | None = None
        if str(device) == "cpu":
            parts = Parts(
                vae.encoder_weights(),
                None if mdn_rnn is None else mdn_rnn.weights(),
                self.spec,
                latent,
                vae_precision,
                threads,
                backend,
            )
            parts.players(1)  # what is wrong with them is an error here, not in every worker
        else:
            from worldmodels_fast.device_players import DevicePlayers

            self._players = DevicePlayers(
                vae,
                mdn_rnn,
                self.spec,
                self.slots,
                latent=latent,
                vae_precision=vae_precision,
                device=str(device),
            )
        self._crew = _Crew(
            min(self.workers, self.slots),
            self.slots,
            Setting(env_id, dict(env_kwargs or {}), self.spec.action_dim, parts),
        )

    def __enter__(self) -> Game:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and their environments; the next call starts new ones."""
        self._crew.close()

    def evaluate(self, population: Floats, rollouts: int = 16, seed: int = 0) -> GameResult:
        """Play R rollouts of each of P controllers.

        Rollout r of every member meets the same game and the same noise (common random numbers).

        Args:
            population: (P, n_params) float32.
            rollouts: R.
            seed: from 0; all that games and noise depend on.

        Raises:
            ValueError, TypeError: an argument of the wrong kind, size or range.
            RuntimeError: an episode failed three times; the message says why.
        """
        if rollouts < 1:
            raise ValueError(f"rollouts: expected at least 1, got {rollouts}")
        if seed < 0:
            raise ValueError(f"seed: expected a number from 0, got {seed}")
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
        """Play these episodes; results in their order.

        An episode that raises, or whose worker dies, is played again with a `RuntimeWarning` which
        says what happened.

        Args:
            population: (P, n_params) float32.
            episodes: what is to be played, and by which row of the population.
            on_episode: see `OnEpisode`.
            on_step: see `OnStep`.

        Raises:
            ValueError, TypeError: a population of another kind, or members that are not in it.
            RuntimeError: an episode failed three times; its last error is the cause.
        """
        population = _population(population, self.spec.n_params)
        for episode in episodes:
            if not 0 <= episode.member < len(population):
                raise ValueError(
                    f"episodes: expected members from 0 to {len(population) - 1}, got {episode}"
                )
        try:
            match = _Match(self._players, self._crew, population, episodes, on_episode, on_step)
            return match.play()
        except BaseException:
            self.close()  # the workers are in the middle of something that nobody waits for
            raise


def _population(population: Floats, n_params: int) -> Floats:
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


class _Match:
    """One call of `Game.play`: which slot plays what, and what is known of it so far."""

    def __init__(
        self,
        players: DevicePlayers | None,
        crew: _Crew,
        population: Floats,
        episodes: Sequence[Episode],
        on_episode: OnEpisode | None,
        on_step: OnStep | None,
    ) -> None:
        self._players = players
        self._crew = crew
        self._population = population
        self._episodes = episodes
        self._on_episode = on_episode
        self._on_step = on_step
        self._results: dict[int, EpisodeResult] = {}
        self._tries = [0] * len(episodes)
        self._waiting = deque(range(len(episodes)))
        self._playing: dict[int, int] = {}  # slot -> episode
        self._looks: dict[int, Slots] = {}  # worker -> slots that wait for actions of a device

    def play(self) -> list[EpisodeResult]:
        """Play all episodes."""
        first: dict[int, list[int]] = {}
        for slot in range(min(self._crew.slots, len(self._episodes))):
            first.setdefault(self._crew.worker_of(slot), []).append(slot)
        for worker, slots in first.items():
            self._deal(worker, slots)
        while self._playing:
            for worker, message in self._crew.listen():
                if message is None:
                    self._worker_died(worker)
                else:
                    self._hear(worker, *message)
            self._think()
        return [self._results[number] for number in range(len(self._episodes))]

    def _deal(self, worker: int, slots: Iterable[int]) -> None:
        """Give a worker that waits the next episodes for these slots, or none if there are none."""
        deals = []
        for slot, number in zip(slots, _taken(self._waiting), strict=False):
            episode = self._episodes[number]
            params = self._population[episode.member]
            self._playing[slot] = number
            if self._players is not None:
                rng = np.random.default_rng(episode.player_seed)
                self._players.begin(slot, params, rng)
            told = self._on_step is not None
            deals.append(Deal(slot, episode.env_seed, episode.player_seed, params, told))
        self._crew.send(worker, deals, len(deals))

    def _hear(self, worker: int, kind: int, *said: Any) -> None:
        """Answer what a worker said; see `table`."""
        if kind == table.TOLD:
            slot, *step = said
            assert self._on_step is not None
            self._on_step(self._playing[slot], *step)
        elif kind == table.LOOK:
            (self._looks[worker],) = said
        elif kind == table.OVER:
            slot, *result = said
            number = self._playing.pop(slot)
            self._results[number] = EpisodeResult(*result)
            self._crew.ended(worker)
            self._deal(worker, [slot])
            if self._on_episode is not None:
                self._on_episode(number, self._results[number])
        else:
            slot, error = said
            self._crew.ended(worker)
            self._again(worker, [slot], [slot], error)

    def _think(self) -> None:
        """Let a device choose actions, for half of the slots or more; the others' workers step."""
        n = sum(map(len, self._looks.values()))
        if self._players is None or n == 0 or n < len(self._playing) // 2:
            return
        workers, groups = zip(*self._looks.items(), strict=True)
        self._looks = {}
        slots = np.concatenate(groups)
        z, actions = self._players.act(slots, self._crew.board["frame"][slots])
        ends = np.cumsum([len(group) for group in groups])
        for worker, part in zip(workers, np.split(actions, ends[:-1]), strict=True):
            self._crew.send(worker, part)
        self._players.remember(slots, z, actions)

    def _worker_died(self, worker: int) -> None:
        error = self._crew.bury(worker)
        self._looks.pop(worker, None)
        lost = [slot for slot in self._playing if self._crew.worker_of(slot) == worker]
        # It was in the middle of one environment, or (killed from outside) of none.
        at_work = self._crew.board["at_work"]
        blamed = [slot for slot in lost if at_work[slot]] or lost
        if lost:
            self._again(worker, lost, blamed, error)

    def _again(
        self, worker: int, slots: Sequence[int], blamed: Sequence[int], error: Exception
    ) -> None:
        """Play again what was being played in these slots."""
        numbers = [self._playing.pop(slot) for slot in slots]
        for slot, number in zip(slots, numbers, strict=True):
            self._tries[number] += slot in blamed
            if self._tries[number] >= MAX_TRIES:
                raise gave_up(f"episode {number}, {self._episodes[number]}", error) from error
        warnings.warn(
            f"a worker failed ({say(error)}); playing again: "
            + ", ".join(f"episode {number}" for number in numbers),
            RuntimeWarning,
            stacklevel=5,
        )
        self._waiting.extendleft(reversed(numbers))
        self._deal(worker, slots)


def _taken(waiting: deque[int]) -> Iterator[int]:
    """Take from the left until nothing is left."""
    while waiting:
        yield waiting.popleft()


# --- the workers ------------------------------------------------------------------------------


class _Crew:
    """The worker processes and their pipes. Slot s belongs to worker s modulo their number."""

    def __init__(self, workers: int, slots: int, setting: Setting) -> None:
        self.slots = slots
        # Memory without a name: it is gone with the last process, whatever ends them.
        context = multiprocessing.get_context("spawn")
        self._memory = context.RawArray(c_ubyte, slots * table.ROW.itemsize)
        self.board = table.board(self._memory)
        self._setting = setting
        self._team: list[WorkerProcess | None] = [None] * workers
        self._episodes = [0] * workers  # that each has to play
        self._pipes = selectors.DefaultSelector()

    def worker_of(self, slot: int) -> int:
        return slot % len(self._team)

    def send(self, number: int, message: Any, episodes: int = 0) -> None:
        """Answer a worker, or give a new or idle one its episodes."""
        worker = self._team[number] or self._start(number)
        self._episodes[number] += episodes
        # A worker that is dead is noticed by `listen`.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(message)

    def ended(self, number: int) -> None:
        """Note that a worker has one episode less to play."""
        self._episodes[number] -= 1

    def listen(self) -> list[tuple[int, Any]]:
        """Wait for news: pairs of a worker and what it said, None if it is dead."""
        while True:
            heard = [
                (key.data, self._read(key.data)) for key, _ in self._pipes.select(_LOOK_SECONDS)
            ]
            if not heard:
                heard = [(n, None) for n, w in enumerate(self._team) if w and w.has_ended]
            if heard:
                return heard

    def _read(self, number: int) -> Any:
        worker = self._team[number]
        assert worker is not None
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            return None

    def _start(self, number: int) -> WorkerProcess:
        """Start a worker in the place of one that is not there."""
        self.board["at_work"][number :: len(self._team)] = False
        worker = WorkerProcess.start(
            table.serve, self._memory, number, len(self._team), self._setting
        )
        self._pipes.register(worker.pipe, selectors.EVENT_READ, number)
        self._team[number] = worker
        self._episodes[number] = 0
        return worker

    def bury(self, number: int) -> Exception:
        """Clear away a worker that has died; return how."""
        worker = self._team[number]
        assert worker is not None
        self._team[number] = None
        self._pipes.unregister(worker.pipe)
        return worker.bury()

    def close(self) -> None:
        """End all workers, whatever they are in the middle of."""
        idle: list[WorkerProcess] = []
        busy: list[WorkerProcess] = []
        for worker, episodes in zip(self._team, self._episodes, strict=True):
            if worker is not None:
                self._pipes.unregister(worker.pipe)
                (busy if episodes else idle).append(worker)
        self._team = [None] * len(self._team)
        dismiss(idle, busy)

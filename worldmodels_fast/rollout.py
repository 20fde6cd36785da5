"""Rollouts in the real game: many environments in worker processes, V, M and C batched in this one.

`Game` is to the real environment what `Dream` is to the dream: a population of controllers goes in,
returns and lengths come out. Workers step environments and leave their frames in shared memory.
While they step one half of them, V, M and C work on the other; an episode that ends gives its slot
to the next one that waits.

An episode depends on its two seeds and its member's parameters alone. It is bitwise the same in
any slot, beside any others, with any number of workers, slots and threads, and when `Agent` plays
it by itself: `Agent` and `Game` are both `Players`, whose kernels treat each row alike (see
`PackedEncoder`, `ops.mdn_rnn_step`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import selectors
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from ctypes import c_ubyte
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from worldmodels_fast import ops
from worldmodels_fast.device_players import DevicePlayers
from worldmodels_fast.encoder import PackedEncoder, VAEPrecision
from worldmodels_fast.envs import FRAME_SIZE
from worldmodels_fast.evolution import derive_seed
from worldmodels_fast.slots import Latent, SlotNoise, Slots, check_parts
from worldmodels_fast.workers import (
    MAX_TRIES,
    WorkerProcess,
    dismiss,
    gave_up,
    n_workers,
    portable,
    say,
)

if TYPE_CHECKING:
    from worldmodels_fast.controller import LinearController
    from worldmodels_fast.mdn_rnn import MDNRNN
    from worldmodels_fast.vae import VAE

__all__ = ["Episode", "EpisodeResult", "Game", "GameResult", "Latent", "Players"]

Floats = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]

FRAME_SHAPE = (FRAME_SIZE, FRAME_SIZE, 3)

SLOTS_PER_WORKER = 16
"""Batches are of about half as many: V, M and C need no longer, a row, for eight than for more."""

_LOOK_SECONDS = 0.5
"""A dead worker's pipe ends at once, unless a process that it started holds it open; then the
worker's death is noticed after this time."""


# --- V, M and C -------------------------------------------------------------------------------


class Players:
    """V, M and C in N slots: an episode each, with its own parameters of C and its own noise.

    As in the paper, C acts on h and c from before M is fed the present z, and z is sampled from
    what V says, not its mean. A step is `act`, then `remember`.

    Args:
        vae: V; it is copied.
        mdn_rnn: M; it is copied. None if the controller sees z alone: then M is not run.
        controller: what a row of parameters means.
        slots: N.
        latent: "sample" or "mu".
        vae_precision: see `PackedEncoder`.
        threads: of V's and M's kernels.
        backend: of V, M and C, see `ops.available_backends`; None for the best one.

    Raises:
        ValueError: parts that do not fit together, or an unknown setting.
    """

    def __init__(
        self,
        vae: VAE,
        mdn_rnn: MDNRNN | None,
        controller: ops.ControllerSpec,
        slots: int = 1,
        *,
        latent: Latent = "sample",
        vae_precision: VAEPrecision = "fp32",
        threads: int = 1,
        backend: str | None = None,
    ) -> None:
        check_parts(vae, mdn_rnn, controller, latent)
        self.spec = controller
        self._vae = PackedEncoder(vae, vae_precision, backend=backend, threads=threads)
        self._model: ops.PackedMDNRNN | None = None
        if mdn_rnn is not None and {"h", "c"} & set(controller.features):
            self._model = ops.pack_mdn_rnn(mdn_rnn.weights(), backend=backend)
        self._backend = backend
        self._threads = threads
        self._latent = latent
        self._params = np.zeros((slots, controller.n_params), np.float32)
        self._h = np.zeros((slots, controller.hidden_dim), np.float32)
        self._c = np.zeros((slots, controller.hidden_dim), np.float32)
        self._restart = np.ones(slots, np.float32)
        self._noise = SlotNoise(slots, vae.latent_dim)

    def begin(self, slot: int, params: Floats, rng: np.random.Generator | None = None) -> None:
        """Begin an episode in a slot.

        Args:
            slot: its number.
            params: (n_params,) float32.
            rng: what z is sampled with; None goes on with the slot's.
        """
        self._params[slot] = params
        self._h[slot] = 0.0
        self._c[slot] = 0.0
        self._restart[slot] = 1.0
        if rng is not None:
            self._noise.begin(slot, rng)

    def act(self, slots: Slots, frames: Frames) -> tuple[Floats, Floats]:
        """See and act: z (n, Z) and actions (n, A) of n different slots.

        Args:
            slots: (n,) their numbers.
            frames: (n, 64, 64, 3) uint8, RGB, C-contiguous.
        """
        mu, logvar = self._vae(frames)
        z: Floats = np.ascontiguousarray(mu)
        if self._latent == "sample":
            z = z + np.exp(0.5 * logvar) * self._noise.next(slots)
        h = self._h[slots] if "h" in self.spec.features else None
        c = self._c[slots] if "c" in self.spec.features else None
        return z, ops.controller_forward(
            self.spec, self._params[slots], z, h, c, backend=self._backend
        )

    def remember(self, slots: Slots, z: Floats, actions: Floats) -> None:
        """Feed M what `act` returned for these slots."""
        if self._model is not None:
            restart = self._restart[slots] if self._model.predicts_done else None
            step = ops.mdn_rnn_step(
                self._model,
                z,
                actions,
                self._h[slots],
                self._c[slots],
                restart,
                threads=self._threads,
            )
            self._h[slots] = step.h
            self._c[slots] = step.c
            self._restart[slots] = 0.0


# --- the game ---------------------------------------------------------------------------------


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
        workers: processes that step environments; None for the processors that `threads` leaves.
        slots: environments in all; None for 16 per worker.
        threads: torch's for V and the kernels' for M; None for half of the processors.
        backend: instruction set of M and C, see `ops.available_backends`; None for the best one.
        device: of V, M and C: "cpu", or "cuda", "cuda:1", ..., see `device_players`.

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
        threads: int | None = None,
        backend: str | None = None,
        device: str = "cpu",
    ) -> None:
        # More of them than processors is worse than idle ones: V's threads wait for each other.
        self.threads = max(1, n_workers(None) // 2) if threads is None else threads
        left = max(1, n_workers(None) - self.threads)
        self.workers = n_workers(left if workers is None else workers)
        self.slots = SLOTS_PER_WORKER * self.workers if slots is None else slots
        for name, value in (("slots", self.slots), ("threads", self.threads)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, or None, got {value}")
        self.spec = controller if isinstance(controller, ops.ControllerSpec) else controller.spec
        self._players: Players | DevicePlayers
        if str(device) == "cpu":
            self._players = Players(
                vae,
                mdn_rnn,
                self.spec,
                self.slots,
                latent=latent,
                vae_precision=vae_precision,
                threads=self.threads,
                backend=backend,
            )
        else:
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
            self.spec.action_dim,
            env_id,
            dict(env_kwargs or {}),
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
            with _torch_threads(self.threads):
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


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Match:
    """One call of `Game.play`: which slot plays what, and what is known of it so far."""

    def __init__(
        self,
        players: Players | DevicePlayers,
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
        self._moves: dict[int, tuple[Frames, Floats]] = {}  # slot -> what it saw and did last
        self._results: dict[int, EpisodeResult] = {}
        self._tries = [0] * len(episodes)
        self._waiting = deque(range(len(episodes)))
        self._playing: dict[int, int] = {}  # slot -> episode
        self._scores = [0.0] * crew.slots
        self._steps = [0] * crew.slots
        self._ready: list[int] = []  # slots whose frame waits for an action; the others step

    def play(self) -> list[EpisodeResult]:
        """Play all episodes."""
        self._fill(range(min(self._crew.slots, len(self._episodes))))
        while self._playing:
            # One half steps while the other is thought about.
            while len(self._ready) < max(1, len(self._playing) // 2):
                self._listen()
                if not self._playing:
                    break
            else:
                self._think()
        return [self._results[number] for number in range(len(self._episodes))]

    def _fill(self, slots: Iterable[int]) -> None:
        """Begin waiting episodes in free slots."""
        begun = []
        for slot, number in zip(slots, _taken(self._waiting), strict=False):
            episode = self._episodes[number]
            rng = np.random.default_rng(episode.player_seed)
            self._players.begin(slot, self._population[episode.member], rng)
            self._playing[slot] = number
            self._scores[slot], self._steps[slot] = 0.0, 0
            self._crew.board["seed"][slot] = episode.env_seed
            self._crew.board["reset"][slot] = True
            begun.append(slot)
        self._crew.send(begun)

    def _think(self) -> None:
        """Let V and C choose actions, send them off, then let M remember them."""
        slots = np.array(self._ready)
        self._ready = []
        board = self._crew.board
        frames = board["frame"][slots]
        z, actions = self._players.act(slots, frames)
        board["action"][slots] = actions
        board["reset"][slots] = False
        self._crew.send(slots)
        if self._on_step is not None:
            self._moves.update(zip(slots, zip(frames, actions, strict=True), strict=True))
        self._players.remember(slots, z, actions)

    def _listen(self) -> None:
        """Wait until some environments have stepped, failed or died, and see to those."""
        for worker, news in self._crew.listen():
            if news is None:
                self._worker_died(worker)
                continue
            slot, error = news
            if error is not None:
                self._again([slot], [slot], error)
            else:
                self._stepped(slot)

    def _stepped(self, slot: int) -> None:
        row = self._crew.board[slot]
        if not row["reset"]:
            reward = float(row["reward"])
            if self._on_step is not None:
                number, step = self._playing[slot], self._steps[slot]
                self._on_step(number, step, *self._moves.pop(slot), reward)
            self._scores[slot] += reward
            self._steps[slot] += 1
            if row["terminated"] or row["truncated"]:
                number = self._playing.pop(slot)
                result = EpisodeResult(
                    self._scores[slot], self._steps[slot], bool(row["terminated"])
                )
                self._results[number] = result
                self._fill([slot])
                if self._on_episode is not None:
                    self._on_episode(number, result)
                return
        self._ready.append(slot)

    def _worker_died(self, worker: int) -> None:
        error = self._crew.bury(worker)
        lost = [slot for slot in self._playing if self._crew.worker_of(slot) == worker]
        self._ready = [slot for slot in self._ready if slot not in lost]
        # It was in the middle of one environment, or (killed from outside) of none.
        blamed = [slot for slot in lost if self._crew.board["at_work"][slot]] or lost
        self._crew.board["at_work"][lost] = False
        if lost:
            self._crew.start(worker)
            self._again(lost, blamed, error)

    def _again(self, slots: Sequence[int], blamed: Sequence[int], error: Exception) -> None:
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
            stacklevel=6,
        )
        self._waiting.extendleft(reversed(numbers))
        self._fill(slots)


def _taken(waiting: deque[int]) -> Iterator[int]:
    """Take from the left until nothing is left."""
    while waiting:
        yield waiting.popleft()


# --- the workers ------------------------------------------------------------------------------


def _row(action_dim: int) -> np.dtype[Any]:
    """What a game and its workers share of each slot.

    It belongs to the worker from the message that names the slot to the answer, else to the game.
    """
    return np.dtype(
        [
            ("frame", np.uint8, FRAME_SHAPE),
            ("action", np.float32, (action_dim,)),
            ("seed", np.int64),
            ("reset", np.bool_),  # whether to reset with that seed, or to step with that action
            ("reward", np.float64),
            ("terminated", np.bool_),
            ("truncated", np.bool_),
            ("at_work", np.bool_),  # whether the worker is in the middle of this environment
        ],
        align=True,
    )


def _board(memory: Any, action_dim: int) -> npt.NDArray[Any]:
    """The rows of all slots, in the memory that is shared."""
    return np.frombuffer(memory, _row(action_dim))


News = tuple[int, Exception | None]
"""A slot whose environment has stepped, or has failed."""


class _Crew:
    """The worker processes and their pipes. Slot s belongs to worker s modulo their number."""

    def __init__(
        self,
        workers: int,
        slots: int,
        action_dim: int,
        env_id: str,
        env_kwargs: dict[str, Any],
    ) -> None:
        self.slots = slots
        # Memory without a name: it is gone with the last process, whatever ends them.
        context = multiprocessing.get_context("spawn")
        memory = context.RawArray(c_ubyte, slots * _row(action_dim).itemsize)
        self.board = _board(memory, action_dim)
        self._arguments = (memory, action_dim, env_id, env_kwargs)
        self._team: list[WorkerProcess | None] = [None] * workers
        self._asked = [0] * workers  # answers that each still owes
        self._pipes = selectors.DefaultSelector()

    def worker_of(self, slot: int) -> int:
        return slot % len(self._team)

    def send(self, slots: Iterable[int]) -> None:
        """Tell workers to reset or step the environments of these slots."""
        by_worker: dict[int, list[int]] = {}
        for slot in slots:
            by_worker.setdefault(self.worker_of(slot), []).append(slot)
        for number, mine in by_worker.items():
            worker = self._team[number] or self.start(number)
            self._asked[number] += len(mine)
            # A worker that is dead is noticed by `listen`.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.pipe.send_bytes(np.array(mine, np.uint16).tobytes())

    def listen(self) -> list[tuple[int, News | None]]:
        """Wait for answers: pairs of a worker and its news, None if it is dead."""
        while True:
            heard = [
                (key.data, self._read(key.data)) for key, _ in self._pipes.select(_LOOK_SECONDS)
            ]
            if not heard:
                heard = [(n, None) for n, w in enumerate(self._team) if w and w.has_ended]
            if heard:
                return heard

    def _read(self, number: int) -> News | None:
        worker = self._team[number]
        assert worker is not None
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            return None
        self._asked[number] -= 1
        error = pickle.loads(message[2:]) if len(message) > 2 else None
        return int.from_bytes(message[:2], sys.byteorder), error

    def start(self, number: int) -> WorkerProcess:
        """Start a worker in the place of one that is not there."""
        worker = WorkerProcess.start(_serve, *self._arguments)
        self._pipes.register(worker.pipe, selectors.EVENT_READ, number)
        self._team[number] = worker
        self._asked[number] = 0
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
        for worker, asked in zip(self._team, self._asked, strict=True):
            if worker is not None:
                self._pipes.unregister(worker.pipe)
                (busy if asked else idle).append(worker)
        self._team = [None] * len(self._team)
        dismiss(idle, busy)
        self.board["at_work"] = False


# --- in the worker ----------------------------------------------------------------------------


def _serve(
    pipe: Connection, memory: Any, action_dim: int, env_id: str, env_kwargs: dict[str, Any]
) -> None:
    """Step the environments that messages name, until the pipe ends."""
    board = _board(memory, action_dim)
    environments: dict[int, Any] = {}
    try:
        while True:
            for slot in np.frombuffer(pipe.recv_bytes(), np.uint16):
                row = board[slot]
                answer = slot.tobytes()
                row["at_work"] = True
                try:
                    if slot not in environments:
                        environments[slot] = _make(env_id, env_kwargs, action_dim)
                    _advance(environments[slot], row)
                except Exception as error:
                    # Whoever plays this episode again gets an environment that has not failed.
                    if slot in environments:
                        environments.pop(slot).close()
                    answer += pickle.dumps(portable(error))
                row["at_work"] = False
                pipe.send_bytes(answer)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing stops it while it tidies up
        for environment in environments.values():
            environment.close()


def _make(env_id: str, env_kwargs: dict[str, Any], action_dim: int) -> Any:
    environment = gymnasium.make(env_id, **env_kwargs)
    frames, actions = environment.observation_space, environment.action_space
    problem = ""
    if frames.shape != FRAME_SHAPE or frames.dtype != np.uint8:
        problem = f"frames uint8 {FRAME_SHAPE}, got {frames}"
    elif actions.shape != (action_dim,):
        problem = f"{action_dim} actions, the controller's, got {actions}"
    if problem:
        environment.close()
        raise ValueError(f"env_id: {env_id}: expected {problem}")
    return environment


def _advance(environment: Any, row: Any) -> None:
    """Reset or step, as the row says, and write what comes into it."""
    if row["reset"]:
        row["frame"], _ = environment.reset(seed=int(row["seed"]))
    else:
        row["frame"], reward, terminated, truncated, _ = environment.step(row["action"].copy())
        row["reward"] = reward
        row["terminated"] = terminated
        row["truncated"] = truncated

"""The environment worker: a process with some slots, their environments, and V, M and C.

The scheduler of a `Game` assigns episodes to slots and receives results. In between a worker works
alone: V, M and C act on the frames of all its slots, then each environment steps. So no step waits
for another process, and every processor is busy until the last episodes.

Where V, M and C are on a device (`device_players`), the scheduler's process holds them for all
workers, and a worker asks for its actions.

Messages of a worker, and the answer that it then waits for:

    STEP    slot, step, frame, action, reward       no answer
    DONE    slot, score, steps, terminated          a list of `Task`s, perhaps empty
    FAILED  slot, error                             a list of `Task`s
    ACT     slots, whose frames wait for actions    actions (n, A)

The scheduler only sends to a worker that waits: tasks to one without episodes, or an answer. So
neither can wait for the other to read.
"""

from __future__ import annotations

import contextlib
import select
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from worldmodels_fast import ops
from worldmodels_fast.envs.registry import FRAME_SIZE, make_environment
from worldmodels_fast.rollout.encoder import VAEPrecision
from worldmodels_fast.rollout.players import Players
from worldmodels_fast.rollout.slots import Latent, Slots
from worldmodels_fast.types import Floats, Frames
from worldmodels_fast.utils.shared_memory import SharedMemory
from worldmodels_fast.utils.worker_main import import_main_script, picklable

__all__ = [
    "ACT",
    "DONE",
    "FAILED",
    "SLOT_DTYPE",
    "STEP",
    "PlayerParts",
    "Task",
    "WorkerSettings",
    "run_worker",
    "shared_slots",
]

STEP, DONE, FAILED, ACT = range(4)

FRAME_SHAPE = (FRAME_SIZE, FRAME_SIZE, 3)

SLOT_DTYPE = np.dtype(
    [
        ("frame", np.uint8, FRAME_SHAPE),
        ("stepping", np.bool_),  # whether the worker is inside this environment's code
    ]
)
"""A slot in memory shared by scheduler and workers. Only the slot's worker writes to it."""


def shared_slots(memory: Any) -> npt.NDArray[Any]:
    """Return the slots in a `SharedMemory`'s buffer, an array (slots,) of `SLOT_DTYPE`."""
    return np.frombuffer(memory, SLOT_DTYPE)


@dataclass(frozen=True)
class PlayerParts:
    """The arguments of `Players`, with weights as NumPy arrays, to be sent to a worker."""

    vae: ops.VAEEncoderWeights
    mdn_rnn: ops.MDNRNNWeights | None
    controller: ops.ControllerSpec
    latent: Latent
    vae_precision: VAEPrecision
    threads: int
    backend: str | None

    def players(self, slots: int) -> Players:
        """Return V, M and C in this number of slots."""
        return Players(
            self.vae,
            self.mdn_rnn,
            self.controller,
            slots,
            latent=self.latent,
            vae_precision=self.vae_precision,
            threads=self.threads,
            backend=self.backend,
        )


@dataclass(frozen=True)
class WorkerSettings:
    """Settings that all workers of a game share.

    Attributes:
        env_id: Gymnasium id of the environment.
        registered: its registration; or its id again, and the workers look it up.
        env_kwargs: its keyword arguments.
        action_dim: A, the number of actions that the controller gives.
        parts: V, M and C of each worker; None if the scheduler's process holds them.
    """

    env_id: str
    registered: EnvSpec | str
    env_kwargs: dict[str, Any]
    action_dim: int
    parts: PlayerParts | None


@dataclass(frozen=True)
class Task:
    """An episode to be played in a slot.

    Attributes:
        slot: number of the slot, of all slots of the game.
        env_seed: seed of the environment's reset.
        player_seed: seed of the generator that z is sampled with.
        params: (n_params,) float32, parameters of C.
        report_steps: send every step to the scheduler.
    """

    slot: int
    env_seed: int
    player_seed: int
    params: Floats
    report_steps: bool


@dataclass
class _Running:
    """An episode in progress, and its environment."""

    task: Task
    environment: Any
    score: float = 0.0
    steps: int = 0


class _RemotePlayers:
    """`Players` whose V, M and C are in the scheduler's process, on a device.

    Args:
        ask: sends a message to the scheduler and returns the answer.
        first: the game's number of this worker's slot 0; the others follow every `stride`.
        stride: see `first`.
    """

    def __init__(self, ask: Any, first: int, stride: int) -> None:
        self._ask, self._first, self._stride = ask, first, stride

    def begin(self, slot: int, params: Floats, rng: np.random.Generator) -> None:
        """Do nothing: the scheduler has begun the episode before it assigned it."""

    def act(self, slots: Slots, frames: Frames) -> tuple[None, Floats]:
        """Return the actions (n, A) of these slots; their frames are in shared memory."""
        return None, self._ask(ACT, self._first + self._stride * slots)

    def remember(self, slots: Slots, z: None, actions: Floats) -> None:
        """Do nothing: the scheduler feeds M."""


@dataclass
class _Worker:
    """The state of a worker process.

    Attributes:
        pipe: to the scheduler.
        settings: see `WorkerSettings`.
        slots: this worker's slots in shared memory: `first`, `first` + `stride`, ... of the game.
        first: see `slots`.
        stride: see `slots`.
    """

    pipe: Connection
    settings: WorkerSettings
    slots: npt.NDArray[Any]
    first: int
    stride: int
    environments: dict[int, Any] = field(default_factory=dict)
    running: dict[int, _Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self.settings.parts
        self.players: Any
        if parts is None:
            self.players = _RemotePlayers(self.ask, self.first, self.stride)
        else:
            self.players = parts.players(len(self.slots))

    def loop(self) -> None:
        """Play assigned episodes until the pipe ends."""
        pending = select.poll()  # at every step: `Connection.poll` takes ten times as long
        pending.register(self.pipe, select.POLLIN)
        while True:
            self.begin(self.pipe.recv())
            while self.running:
                if pending.poll(0):  # no answer is due, so the scheduler is gone
                    raise EOFError
                self.step_all()

    def ask(self, *message: Any) -> Any:
        """Send a message to the scheduler and return its answer."""
        self.pipe.send(message)
        return self.pipe.recv()

    def begin(self, tasks: list[Task]) -> None:
        """Begin these episodes, and those assigned in their place if they fail at once."""
        waiting = list(tasks)
        while waiting:
            task = waiting.pop(0)
            slot = (task.slot - self.first) // self.stride
            row = self.slots[slot]
            row["stepping"] = True
            try:
                if slot not in self.environments:
                    self.environments[slot] = _make(self.settings)
                environment = self.environments[slot]
                row["frame"], _ = environment.reset(seed=task.env_seed)
            except Exception as error:
                waiting += self.failed(slot, task, error)
                continue
            row["stepping"] = False
            self.players.begin(slot, task.params, np.random.default_rng(task.player_seed))
            self.running[slot] = _Running(task, environment)

    def step_all(self) -> None:
        """Act in all slots, then step every environment."""
        slots = np.fromiter(self.running, np.intp)
        z, actions = self.players.act(slots, self.slots["frame"][slots])
        self.players.remember(slots, z, actions)
        for slot, action in zip(slots.tolist(), actions, strict=True):
            self.step(slot, action.copy())

    def step(self, slot: int, action: Floats) -> None:
        """Step one environment; an episode that is done frees its slot for the next task."""
        episode, row = self.running[slot], self.slots[slot]
        task = episode.task
        seen = row["frame"].copy() if task.report_steps else None
        row["stepping"] = True
        try:
            row["frame"], reward, terminated, truncated, _ = episode.environment.step(action)
            reward = float(reward)
        except Exception as error:
            del self.running[slot]
            self.begin(self.failed(slot, task, error))
            return
        row["stepping"] = False
        if task.report_steps:
            self.pipe.send((STEP, task.slot, episode.steps, seen, action, reward))
        episode.score += reward
        episode.steps += 1
        if terminated or truncated:
            del self.running[slot]
            self.begin(self.ask(DONE, task.slot, episode.score, episode.steps, bool(terminated)))

    def failed(self, slot: int, task: Task, error: Exception) -> list[Task]:
        """Report an environment's error; return the tasks to be played now."""
        # The episode is played again in an environment that has not failed.
        if slot in self.environments:
            with contextlib.suppress(Exception):  # it has failed already
                self.environments.pop(slot).close()
        self.slots[slot]["stepping"] = False
        tasks: list[Task] = self.ask(FAILED, task.slot, picklable(error))
        return tasks

    def close(self) -> None:
        """Close all environments."""
        for environment in self.environments.values():
            with contextlib.suppress(Exception):  # the others are closed, too
                environment.close()


def run_worker(
    pipe: Connection, memory: int, first: int, stride: int, settings: WorkerSettings
) -> None:
    """Run the worker of the slots `first`, `first` + `stride`, ..., until the pipe ends.

    Args:
        pipe: to the scheduler.
        memory: file descriptor of the `SharedMemory` of all slots.
        first: see above.
        stride: see above.
        settings: see `WorkerSettings`.
    """
    slots = shared_slots(SharedMemory.open(memory))[first::stride]
    worker = _Worker(pipe, settings, slots, first, stride)
    try:
        worker.loop()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # closing is not interrupted
        worker.close()


def _make(settings: WorkerSettings) -> Any:
    """Make the environment; ValueError if its frames or actions are not what V and C expect."""
    try:
        environment = make_environment(settings.registered, **settings.env_kwargs)
    except gymnasium.error.UnregisteredEnv:
        if not import_main_script():  # which may register it
            raise
        environment = make_environment(settings.registered, **settings.env_kwargs)
    frames, actions = environment.observation_space, environment.action_space
    problem = ""
    if frames.shape != FRAME_SHAPE or frames.dtype != np.uint8:
        problem = f"frames uint8 {FRAME_SHAPE}, got {frames}"
    elif actions.shape != (settings.action_dim,):
        problem = f"{settings.action_dim} actions, the controller's, got {actions}"
    if problem:
        environment.close()
        raise ValueError(f"env_id: {settings.env_id}: expected {problem}")
    return environment

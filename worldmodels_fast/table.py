"""A table in a worker process: some slots, their environments, and V, M and C, which play in them.

A `rollout.Game` gives episodes to its tables and hears how they end. In between a table needs
nobody: V, M and C look at the frames of all its slots, then each environment steps. So nothing is
sent or waited for at a step, and every processor has something to do until the last episodes.

Where V, M and C are on a device (`device_players`), the game itself holds them for all tables, and
a table asks for its actions.

What a table says, and what it then waits for:

    TOLD    slot, step, frame, action, reward       nothing
    OVER    slot, score, steps, terminated          a list of `Deal`s, perhaps empty
    FAILED  slot, error                             a list of `Deal`s
    LOOK    slots, whose frames wait for actions    actions (n, A)

The game speaks only to a table that waits: to one without episodes, which it gives some, or in
answer. So neither can wait for the other to read.
"""

from __future__ import annotations

import select
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from worldmodels_fast import ops
from worldmodels_fast.encoder import VAEPrecision
from worldmodels_fast.envs import FRAME_SIZE
from worldmodels_fast.players import Players
from worldmodels_fast.slots import Latent, Slots
from worldmodels_fast.workers import portable

__all__ = ["FAILED", "LOOK", "OVER", "ROW", "TOLD", "Deal", "Parts", "Setting", "board", "serve"]

Floats = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]

TOLD, OVER, FAILED, LOOK = range(4)

FRAME_SHAPE = (FRAME_SIZE, FRAME_SIZE, 3)

ROW = np.dtype(
    [
        ("frame", np.uint8, FRAME_SHAPE),
        ("at_work", np.bool_),  # whether the worker is in the middle of this environment
    ]
)
"""What a game and its tables share of each slot. Only the table writes to it."""


def board(memory: Any) -> npt.NDArray[Any]:
    """The rows of all slots, in the memory that is shared."""
    return np.frombuffer(memory, ROW)


@dataclass(frozen=True)
class Parts:
    """All that `Players` are made of, as plain arrays; see there."""

    vae: ops.VAEEncoderWeights
    mdn_rnn: ops.MDNRNNWeights | None
    controller: ops.ControllerSpec
    latent: Latent
    vae_precision: VAEPrecision
    threads: int
    backend: str | None

    def players(self, slots: int) -> Players:
        """V, M and C in this number of slots."""
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
class Setting:
    """What is the same for all tables of a game.

    Attributes:
        env_id: Gymnasium's name of the environment.
        env_kwargs: its settings.
        action_dim: A, what V, M and C give it.
        parts: of V, M and C; None if the game itself holds them.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    action_dim: int
    parts: Parts | None


@dataclass(frozen=True)
class Deal:
    """An episode that is to be played in a slot.

    Attributes:
        slot: its number in the game.
        env_seed: what the environment is reset with.
        player_seed: of the generator that z is sampled with.
        params: (n_params,) of C.
        told: whether each step is to be told.
    """

    slot: int
    env_seed: int
    player_seed: int
    params: Floats
    told: bool


@dataclass
class _Seat:
    """An episode that is being played, and its environment."""

    deal: Deal
    environment: Any
    score: float = 0.0
    steps: int = 0


class _AtTheGame:
    """In place of `Players`: V, M and C are in the game's process, which is asked.

    Args:
        ask: sends a message and waits for the answer.
        first: the slot that is this table's slot 0; then every `stride`-th is its.
        stride: see `first`.
    """

    def __init__(self, ask: Any, first: int, stride: int) -> None:
        self._ask, self._first, self._stride = ask, first, stride

    def begin(self, slot: int, params: Floats, rng: np.random.Generator) -> None:
        """The game has begun the episode before it gave it to the table."""

    def act(self, slots: Slots, frames: Frames) -> tuple[None, Floats]:
        """The actions (n, A) of these slots; their frames are in memory that is shared."""
        return None, self._ask(LOOK, self._first + self._stride * slots)

    def remember(self, slots: Slots, z: None, actions: Floats) -> None:
        """The game does it."""


@dataclass
class _Table:
    """See the module; `rows` are those of the board that are this table's slots.

    Attributes:
        pipe: to the game.
        setting: see there.
        rows: slot `first`, `first` + `stride`, ... of the game.
        first: see `rows`.
        stride: see `rows`.
    """

    pipe: Connection
    setting: Setting
    rows: npt.NDArray[Any]
    first: int
    stride: int
    environments: dict[int, Any] = field(default_factory=dict)
    seats: dict[int, _Seat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self.setting.parts
        self.players: Any
        if parts is None:
            self.players = _AtTheGame(self.ask, self.first, self.stride)
        else:
            self.players = parts.players(len(self.rows))

    def play(self) -> None:
        """Play the episodes that are dealt, until the pipe ends."""
        news = select.poll()  # at every step: `Connection.poll` takes ten times as long
        news.register(self.pipe, select.POLLIN)
        while True:
            self.begin(self.pipe.recv())
            while self.seats:
                if news.poll(0):  # nobody has been asked, so the game is gone
                    raise EOFError
                self.step_all()

    def ask(self, *message: Any) -> Any:
        self.pipe.send(message)
        return self.pipe.recv()

    def begin(self, deals: list[Deal]) -> None:
        """Begin these episodes, and those that come in their place if they fail at once."""
        waiting = list(deals)
        while waiting:
            deal = waiting.pop(0)
            slot = (deal.slot - self.first) // self.stride
            row = self.rows[slot]
            row["at_work"] = True
            try:
                if slot not in self.environments:
                    self.environments[slot] = _make(self.setting)
                environment = self.environments[slot]
                row["frame"], _ = environment.reset(seed=deal.env_seed)
            except Exception as error:
                waiting += self.failed(slot, deal, error)
                continue
            row["at_work"] = False
            self.players.begin(slot, deal.params, np.random.default_rng(deal.player_seed))
            self.seats[slot] = _Seat(deal, environment)

    def step_all(self) -> None:
        """See and act in all slots, then step every environment."""
        slots = np.fromiter(self.seats, np.intp)
        z, actions = self.players.act(slots, self.rows["frame"][slots])
        self.players.remember(slots, z, actions)
        for slot, action in zip(slots.tolist(), actions, strict=True):
            self.step(slot, action.copy())

    def step(self, slot: int, action: Floats) -> None:
        seat, row = self.seats[slot], self.rows[slot]
        deal = seat.deal
        seen = row["frame"].copy() if deal.told else None
        row["at_work"] = True
        try:
            row["frame"], reward, terminated, truncated, _ = seat.environment.step(action)
            reward = float(reward)
        except Exception as error:
            del self.seats[slot]
            self.begin(self.failed(slot, deal, error))
            return
        row["at_work"] = False
        if deal.told:
            self.pipe.send((TOLD, deal.slot, seat.steps, seen, action, reward))
        seat.score += reward
        seat.steps += 1
        if terminated or truncated:
            del self.seats[slot]
            self.begin(self.ask(OVER, deal.slot, seat.score, seat.steps, bool(terminated)))

    def failed(self, slot: int, deal: Deal, error: Exception) -> list[Deal]:
        """Say what the environment raised; what is to be played now."""
        # Whoever plays this episode again gets an environment that has not failed.
        if slot in self.environments:
            self.environments.pop(slot).close()
        self.rows[slot]["at_work"] = False
        deals: list[Deal] = self.ask(FAILED, deal.slot, portable(error))
        return deals

    def close(self) -> None:
        for environment in self.environments.values():
            environment.close()


def serve(pipe: Connection, memory: Any, first: int, stride: int, setting: Setting) -> None:
    """Be the table of the slots `first`, `first` + `stride`, ..., until the pipe ends."""
    table = _Table(pipe, setting, board(memory)[first::stride], first, stride)
    try:
        table.play()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing stops it while it tidies up
        table.close()


def _make(setting: Setting) -> Any:
    environment = gymnasium.make(setting.env_id, **setting.env_kwargs)
    frames, actions = environment.observation_space, environment.action_space
    problem = ""
    if frames.shape != FRAME_SHAPE or frames.dtype != np.uint8:
        problem = f"frames uint8 {FRAME_SHAPE}, got {frames}"
    elif actions.shape != (setting.action_dim,):
        problem = f"{setting.action_dim} actions, the controller's, got {actions}"
    if problem:
        environment.close()
        raise ValueError(f"env_id: {setting.env_id}: expected {problem}")
    return environment

"""Playing the real game: steps a second of environment, V, M and C together.

    python benchmarks/play.py [--only car-racing take-cover] [--out play.json]

For CarRacing (V, M and C of the paper's sizes with random weights) and for Take Cover (the bundled
world), in fp32 and with `vae_precision` "auto":

1. a `Game`'s episodes are compared with those that an `Agent` plays by itself: they must be equal;
2. whole games are played, the precisions in turn: steps a second by the clock, and what the
   processors that the game may use would make of its processor time (its own, its workers' and
   their engines'), which other processes disturb least;
3. the parts are timed, each alone in this process: V, M, C and noise on eight slots, as a worker
   has them, and the environment's step.

Takes less than two minutes. Results are printed and written to `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from worldmodels_fast import MDNRNN, VAE, LinearController, World, load_pretrained, ops
from worldmodels_fast.bench.protocol.machine import describe_machine
from worldmodels_fast.envs.registry import ENVIRONMENTS
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult
from worldmodels_fast.rollout.game import SLOTS_PER_WORKER
from worldmodels_fast.rollout.players import Players
from worldmodels_fast.rollout.slots import SlotNoise
from worldmodels_fast.utils.processes import n_workers
from worldmodels_fast.world.agent import Agent

Result = dict[str, Any]

PRECISIONS = ("fp32", "auto")


def random_world() -> World:
    """V, M and C of the paper's CarRacing, as they begin."""
    torch.manual_seed(0)
    vae, mdn_rnn = VAE(32), MDNRNN(32, 3, 256, n_mixtures=5, predicts_done=False)
    controller = LinearController(("z", "h"), latent_dim=32, hidden_dim=256, action_dim=3)
    rng = np.random.default_rng(0)
    controller.set_flat(0.1 * rng.standard_normal(controller.n_params, dtype=np.float32))
    latents = np.zeros((1, 32), np.float32)
    return World(vae, mdn_rnn, controller, (latents, latents))


WORLDS: dict[str, Callable[[], World]] = {
    "car-racing": random_world,
    "take-cover": lambda: load_pretrained("take-cover"),
}


def processor_seconds() -> float:
    """Of this process and all that it has started and their children; to 1/100 s for those."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended meanwhile
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = int(fields[11]) + int(fields[12])

    def is_ours(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    theirs = sum(ticks[pid] for pid in parents if is_ours(pid))
    return time.process_time() + theirs / os.sysconf("SC_CLK_TCK")


def episodes_of(world: World, n: int) -> tuple[np.ndarray, list[Episode]]:
    params = world.controller.flat.detach().numpy()[None].copy()
    return params, [Episode(env_seed=100 + i, player_seed=200 + i) for i in range(n)]


def check(name: str, world: World, precision: str, steps: int = 60) -> int:
    """Hold a game's episodes against `Agent`'s; the number of episodes."""
    env_id = ENVIRONMENTS[name].env_id
    params, episodes = episodes_of(world, 5)
    settings = {"env_kwargs": {"max_steps": steps}, "slots": 4}
    with world.game(env_id, vae_precision=precision, **settings) as game:
        played = game.play(params, episodes)
    env = gymnasium.make(env_id, max_steps=steps)
    for episode, result in zip(episodes, played, strict=True):
        agent = Agent(world, episode.player_seed, world.latent, precision)
        frame, _ = env.reset(seed=episode.env_seed)
        score, length, terminated, truncated = 0.0, 0, False, False
        while not (terminated or truncated):
            frame, reward, terminated, truncated, _ = env.step(agent.act(frame))
            score += float(reward)
            length += 1
        alone = EpisodeResult(score, length, bool(terminated))
        if alone != result:
            raise SystemExit(f"{name}, {precision}: {episode}: {result}, but alone {alone}")
    env.close()
    return len(episodes)


def games(name: str, world: World, steps: int, turns: int) -> Result:
    """Rates of whole games, the precisions in turn; medians over the turns."""
    made = {
        p: world.game(ENVIRONMENTS[name].env_id, env_kwargs={"max_steps": steps}, vae_precision=p)
        for p in PRECISIONS
    }
    rates: dict[str, list[tuple[float, float]]] = {p: [] for p in PRECISIONS}
    total = 0
    for turn in range(turns + 1):
        for precision, game in made.items():
            params, episodes = episodes_of(world, game.slots if turn == 0 else 2 * game.slots)
            wall, processor = time.perf_counter(), processor_seconds()
            played = sum(result.steps for result in game.play(params, episodes))
            processor, wall = processor_seconds() - processor, time.perf_counter() - wall
            if turn:  # workers and engines have started in turn 0
                rates[precision].append((played / wall, played / processor))
                total += played
    workers = made["fp32"].workers
    for game in made.values():
        game.close()
    result: Result = {"workers": workers, "slots": made["fp32"].slots, "steps": total}
    for precision, pairs in rates.items():
        by_clock, by_processor = np.median(np.array(pairs), axis=0)
        result[precision] = {
            "steps_per_second": float(by_clock),
            "steps_per_processor_second": float(by_processor),
            "steps_per_second_of_the_processors": float(by_processor * n_workers(None)),
            "turns": [[float(x) for x in pair] for pair in pairs],
        }
    return result


def microseconds(work: Callable[[], object], rows: int, seconds: float = 0.2) -> float:
    """Processor time for each row, the median of nine stretches."""
    work()
    begin, n = time.process_time(), 0
    while time.process_time() - begin < seconds / 9:
        work()
        n += 1
    times = []
    for _ in range(9):
        begin = time.process_time()
        for _ in range(n):
            work()
        times.append((time.process_time() - begin) / n / rows)
    return float(1e6 * np.median(times))


def parts(name: str, world: World, steps: int) -> Result:
    """Microseconds of processor time of each part for one step of one slot."""
    spec, rows = world.controller.spec, SLOTS_PER_WORKER
    slots = np.arange(rows)
    rng = np.random.default_rng(0)
    params = world.controller.flat.detach().numpy()
    env = gymnasium.make(ENVIRONMENTS[name].env_id)
    frame, _ = env.reset(seed=0)
    times: Result = {}
    begin = processor_seconds()
    for seed in range(3):
        frame, _ = env.reset(seed=seed)
    times["reset_milliseconds"] = 1e3 * (processor_seconds() - begin) / 3
    agent, seconds, played = world.agent(), 0.0, 0
    while played < steps:
        action = agent.act(frame)  # now and then: its time is not the environment's
        begin = processor_seconds()
        for _ in range(100):
            frame, _, terminated, truncated, _ = env.step(action)
            played += 1
            if terminated or truncated:
                break
        seconds += processor_seconds() - begin
        if terminated or truncated:
            frame, _ = env.reset(seed=played)
    times["environment"] = 1e6 * seconds / played
    env.close()
    frames = np.repeat(frame[None], rows, axis=0)
    for precision in PRECISIONS:
        players = Players(world.vae, world.mdn_rnn, spec, rows, vae_precision=precision)
        for slot in range(rows):
            players.begin(slot, params, np.random.default_rng(slot))
        vae = players._vae
        times[f"v_{vae.precision}"] = microseconds(lambda vae=vae: vae(frames), rows)
    z, actions = players.act(slots, frames)
    times["m"] = microseconds(lambda: players.remember(slots, z, actions), rows)
    noise = SlotNoise(rows, spec.latent_dim)
    for slot in range(rows):
        noise.begin(slot, np.random.default_rng(slot))
    times["noise"] = microseconds(lambda: noise.next(slots), rows)
    h, c = (rng.standard_normal((rows, spec.hidden_dim), dtype=np.float32) for _ in range(2))
    many = np.repeat(params[None], rows, axis=0)
    times["c"] = microseconds(lambda: ops.controller_forward(spec, many, z, h, c), rows)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(WORLDS), default=tuple(WORLDS))
    parser.add_argument("--steps", type=int, default=300, help="of an episode, at most")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("play.json"))
    given = parser.parse_args()
    result: Result = {"machine": describe_machine()}
    for package in ("gymnasium", "box2d", "vizdoom"):
        try:
            result["machine"]["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    result["processors"] = n_workers(None)
    result["backend"] = ops.default_backend()
    for name in given.only:
        world = WORLDS[name]()
        result[name] = {
            "episodes_equal_to_the_agents": {p: check(name, world, p) for p in PRECISIONS},
            "max_steps": given.steps,
            "games": games(name, world, given.steps, given.turns),
            "microseconds": parts(name, world, 1500),
        }
        print(json.dumps({name: result[name]}, indent=2), flush=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

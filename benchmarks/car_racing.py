"""CarRacing, ours against Gymnasium's: as fast as it claims, and the same game and picture?

    python benchmarks/car_racing.py [--only speed frames physics] [--out car-racing]

Three questions:

- speed: steps a second of one environment on one core, ours, Gymnasium's and EnvPool's (if it is
  installed), in turn. Ours and Gymnasium's play the same tracks with the same actions; EnvPool has
  tracks of its own. Counted in processor time, which other processes disturb least; wall time is
  recorded, too.
- frames: how far are our frames from what Gymnasium draws of the very same states?
- physics: over whole episodes, is every reward, end and number of the car the same?

Results are printed, and written to `car_racing.json` in the folder of `--out`. What is finished
lies beside it, part by part, so a command that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
import numpy.typing as npt
from gymnasium.envs.box2d.car_racing import CarRacing

from worldmodels_fast.bench.protocol.machine import describe_machine
from worldmodels_fast.envs.car_racing import CarRacingEnv

Action = npt.NDArray[np.float32]
Result = dict[str, Any]

OFF_BY = 16
"""A pixel is counted as off if one of its three colours differs by more than this."""


class WithoutDrawing(CarRacing):
    """Gymnasium's physics alone."""

    def _render(self, mode: str) -> None:
        return None


class Driver:
    """Follows the road of one episode, more or less.

    Every third one is good, every third reckless, and every third mostly on the grass.
    """

    def __init__(self, env: CarRacing, seed: int) -> None:
        self.env = env
        self.rng = np.random.default_rng(seed)
        self.noise = (0.0, 0.3, 0.9)[seed % 3]
        self.road = np.array([(x, y) for _, _, x, y in env.track])

    def action(self) -> Action:
        hull = self.env.car.hull
        x, y = hull.position
        dx, dy = (self.road - (x, y)).T
        ahead = (int(np.argmin(dx * dx + dy * dy)) + 6) % len(self.road)
        error = np.arctan2(dy[ahead], dx[ahead]) - np.pi / 2 - hull.angle
        error = (error + np.pi) % (2 * np.pi) - np.pi
        speed = np.hypot(*hull.linearVelocity)
        steer = np.clip(-1.5 * error + self.noise * self.rng.normal(), -1, 1)
        return np.array([steer, 0.5 if speed < 45 else 0, 0.3 if speed > 60 else 0], np.float32)


def car_numbers(env: CarRacing) -> list[float]:
    """Everything that the physics and the rewards depend on, and the skid marks."""
    car = env.car
    numbers = [env.t, env.reward, env.prev_reward, env.tile_visited_count, car.fuel_spent]
    for body in (car.hull, *car.wheels):
        numbers += [*body.position, body.angle, *body.linearVelocity, body.angularVelocity]
    for w in car.wheels:
        numbers += [w.omega, w.phase, w.gas, w.brake, w.steer, w.joint.angle, w.joint.motorSpeed]
        numbers += [len(w.tiles), w.skid_start is None, w.skid_particle is None]
    for particle in car.particles:
        numbers += [particle.grass, *(x for point in particle.poly for x in point)]
    return [float(number) for number in numbers]


# ------------------------------------------------------------------------------------------------
# The three questions; each is answered track by track
# ------------------------------------------------------------------------------------------------


def frames_of(seed: int, steps: int, every: int) -> Result:
    """Compare every `every`-th frame of one episode with Gymnasium's drawing of the same state."""
    env = CarRacingEnv(max_steps=None)
    env.reset(seed=seed)
    driver = Driver(env, seed)
    frames = off = worst = 0
    difference = 0.0
    for t in range(steps):
        frame, _, terminated, _, _ = env.step(driver.action())
        if t % every == 0:
            theirs = CarRacing._render(env, "state_pixels")
            distance = np.abs(frame.astype(np.int16) - theirs)
            frames += 1
            difference += float(distance.mean())
            off += int((distance.max(axis=2) > OFF_BY).sum())
            worst = max(worst, int(distance.max()))
        if terminated:
            break
    env.close()
    return {"frames": frames, "difference": difference / frames, "off": off, "worst": worst}


def physics_of(seed: int, steps: int) -> Result:
    """Play one episode on both; the first difference, if there is one, ends it."""
    ours, theirs = CarRacingEnv(max_steps=None), WithoutDrawing()
    ours.reset(seed=seed)
    theirs.reset(seed=seed)
    driver = Driver(ours, seed)
    total, end, differs_at = 0.0, "steps", None
    t = 0
    for t in range(steps):
        action = driver.action()
        if seed % 5 == 1:  # full throttle: wheels spin, some leave the playfield
            action = np.array([0, 1, 0], np.float32)
        elif seed % 5 == 0:  # pedals and wheel at random: skids, locked wheels, spins
            rng = driver.rng
            action = np.array([rng.uniform(-1, 1), rng.uniform(), rng.choice([0, 0, 0.5, 1])])
            action = action.astype(np.float32)
        a, b = ours.step(action), theirs.step(action)
        total += a[1]
        if a[1:] != b[1:] or car_numbers(ours) != car_numbers(theirs):
            differs_at = t
        if a[2] or differs_at is not None:
            end = "lap" if a[4].get("lap_finished") else "playfield"
            break
    return {"steps": t + 1, "return": total, "end": end, "differs_at": differs_at}


def speed_of(seed: int, steps: int, chunk: int) -> Result:
    """Seconds of processor and wall time of `steps` steps, in turns of `chunk` steps."""
    plan = CarRacingEnv(max_steps=None)
    plan.reset(seed=seed)
    driver = Driver(plan, seed)
    actions = []
    for _ in range(steps):
        actions.append(driver.action())
        plan.step(actions[-1])

    contestants: dict[str, Any] = {
        "ours": CarRacingEnv(max_steps=None),
        "ours-64x64": CarRacingEnv(max_steps=None, frame="world-models"),
        "gymnasium": CarRacing(),
        "gymnasium-not-drawn": WithoutDrawing(),
    }
    if pool := envpool_version():
        import envpool

        contestants[f"envpool-{pool}"] = envpool.make(
            "CarRacing-v3", env_type="gymnasium", num_envs=1, num_threads=1, seed=seed
        )
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    resets = {}
    for name, env in contestants.items():
        begin = time.process_time()
        env.reset(**({} if name.startswith("envpool") else {"seed": seed}))
        resets[name] = time.process_time() - begin
    for start in range(0, steps, chunk):
        for name, env in contestants.items():
            part = actions[start : start + chunk]
            if name.startswith("envpool"):
                part = [action[None] for action in part]
            wall, processor = time.perf_counter(), time.process_time()
            for action in part:
                env.step(action)
            times[name].append((time.process_time() - processor, time.perf_counter() - wall))
    for env in contestants.values():
        env.close()
    return {
        "chunk": chunk,
        "reset_seconds": resets,
        "processor_seconds": {name: [cpu for cpu, _ in t] for name, t in times.items()},
        "wall_seconds": {name: [wall for _, wall in t] for name, t in times.items()},
    }


def envpool_version() -> str | None:
    try:
        return version("envpool")
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------
# Summaries
# ------------------------------------------------------------------------------------------------


def sum_up_frames(tracks: list[Result]) -> Result:
    n = sum(t["frames"] for t in tracks)
    return {
        "tracks": len(tracks),
        "frames": n,
        "mean_absolute_difference": sum(t["difference"] * t["frames"] for t in tracks) / n,
        "share_off_by_more_than_16": sum(t["off"] for t in tracks) / (n * 96 * 96),
        "largest_difference": max(t["worst"] for t in tracks),
        "worst_track_mean": max(t["difference"] for t in tracks),
    }


def sum_up_physics(episodes: list[Result]) -> Result:
    return {
        "episodes": len(episodes),
        "steps": sum(e["steps"] for e in episodes),
        "laps_finished": sum(e["end"] == "lap" for e in episodes),
        "left_the_playfield": sum(e["end"] == "playfield" for e in episodes),
        "mean_return": float(np.mean([e["return"] for e in episodes])),
        "episodes_that_differ": sum(e["differs_at"] is not None for e in episodes),
    }


def sum_up_speed(tracks: list[Result]) -> Result:
    """Median over all turns; ratios are medians of the ratios of the same turn."""
    result: Result = {"turns": sum(len(t["processor_seconds"]["ours"]) for t in tracks)}
    for clock in ("processor", "wall"):
        seconds = {
            name: np.concatenate(
                [np.array(t[f"{clock}_seconds"][name]) / t["chunk"] for t in tracks]
            )
            for name in tracks[0][f"{clock}_seconds"]
        }
        rates = {name: float(1 / np.median(s)) for name, s in seconds.items()}
        ratios = {
            f"{ours} / {rival}": float(np.median(s / seconds[ours]))
            for ours in ("ours", "ours-64x64")
            for rival, s in seconds.items()
            if not rival.startswith("ours")
        }
        result[clock] = {"steps_per_second": rates, "ratios": ratios}
    result["reset_milliseconds"] = {
        name: float(1e3 * np.median([t["reset_seconds"][name] for t in tracks]))
        for name in tracks[0]["reset_seconds"]
    }
    return result


def run(name: str, settings: Result, one: Any, tracks: int, folder: Path) -> list[Result]:
    """Answer one question for each track, continuing what lies in the folder."""
    path = folder / f"{name}.jsonl"
    done: list[Result] = []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines and json.loads(lines[0]) == settings:
            done = [json.loads(line) for line in lines[1:]]
    if not done:
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    for seed in range(len(done), tracks):
        done.append(one(seed, **settings))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(f"{name}: track {seed + 1} of {tracks}", file=sys.stderr)
    return done[:tracks]


def main() -> None:
    questions = ("speed", "frames", "physics")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=questions, default=questions)
    parser.add_argument("--tracks", type=int, default=50, help="of frames and physics")
    parser.add_argument("--speed-tracks", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("car-racing"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "car_racing.json"
    result: Result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    result["machine"] = describe_machine()
    for package in ("gymnasium", "pygame-ce", "pygame", "box2d", "envpool"):
        try:
            result["machine"]["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    if "speed" in given.only:
        speed = run("speed", {"steps": 400, "chunk": 100}, speed_of, given.speed_tracks, given.out)
        result["speed"] = sum_up_speed(speed)
    if "physics" in given.only:
        physics = run("physics", {"steps": 2000}, physics_of, given.tracks, given.out)
        result["physics"] = sum_up_physics(physics)
    if "frames" in given.only:
        frames = run("frames", {"steps": 1000, "every": 5}, frames_of, given.tracks, given.out)
        result["frames"] = sum_up_frames(frames)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""A small game for tests, `toy_game:Toy-v0`; worker processes find this module, too."""

import contextlib
import os
import pathlib
import time

import gymnasium
import numpy as np


class Toy(gymnasium.Env):
    """Ends by itself after a number of steps that the seed decides; left makes them fewer.

    Its frames are noise that depends on the seed and on the actions so far.

    Args:
        longest: the most steps before it ends by itself.
        pays_actions: the reward is the action, in all its bits, not 2.
        crash_once: a path; unless it exists, it is made and the process exits with status 9.
        deadly_seed: an episode of this seed kills the process.
        fail_at: step in which it raises.
        size: of its frames.
        max_steps: it is truncated after so many.
        patience: it is truncated after so many steps without a move to the left; 0 for never.
        slow: seconds that a step sleeps; `begun-PID` and `closed-PID` then appear in this folder.
    """

    def __init__(
        self,
        longest=50,
        pays_actions=False,
        crash_once=None,
        deadly_seed=None,
        fail_at=None,
        size=64,
        actions=1,
        max_steps=40,
        patience=0,
        slow=None,
        fails_to_close=False,
    ):
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (actions,), np.float32)
        self.longest, self.pays_actions = longest, pays_actions
        self.crash_once, self.deadly_seed, self.fail_at = crash_once, deadly_seed, fail_at
        self.max_steps, self.patience = max_steps, patience
        self.slow = slow
        self.fails_to_close = fails_to_close

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        self.left = int(self.np_random.integers(5, self.longest))
        self.t = self.moved = 0
        return self.frame(), {}

    def frame(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)

    def step(self, action):
        if self.slow:
            (pathlib.Path(self.slow) / f"begun-{os.getpid()}").touch()
            time.sleep(60)
        if self.crash_once and self.t == 2:
            with contextlib.suppress(FileExistsError):  # one process alone makes the file
                pathlib.Path(self.crash_once).touch(exist_ok=False)
                os._exit(9)
        if self.seed == self.deadly_seed and self.t == 3:
            os._exit(7)
        if self.fail_at == self.t:
            raise RuntimeError("the toy broke")
        self.t += 1
        left = bool(action[0] < -1 / 3)
        self.left -= 1 + left
        if left:
            self.moved = self.t
            self.np_random.random()
        reward = float(action[0]) if self.pays_actions else 2.0
        given_up = self.patience > 0 and self.t - self.moved >= self.patience
        return self.frame(), reward, self.left <= 0, self.t >= self.max_steps or given_up, {}

    def close(self):
        if self.fails_to_close:
            raise OSError("the toy cannot be closed")
        if self.slow:
            (pathlib.Path(self.slow) / f"closed-{os.getpid()}").touch()


gymnasium.register("Toy-v0", entry_point="toy_game:Toy", disable_env_checker=True)

"""A loop of one's own with the kernels: N dreams side by side, stepped from Python.

Each step is the controller, M's step and a sample at a temperature. A dream ends by the paper's
rule, a done logit above 0. In between the loop may do anything: look at M's memory, take
another action, change the temperature. Here every dream is counted until it ends.

    python examples/own_loop.py --dreams 16
"""

import argparse

import numpy as np

import worldmodels_fast as wmf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dreams", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2100)
    parser.add_argument("--temperature", type=float, default=1.15)
    options = parser.parse_args()
    n = options.dreams

    world = wmf.load_pretrained("take-cover")
    model = wmf.ops.pack_mdn_rnn(world.mdn_rnn.weights())  # once
    spec, params = world.controller.spec, world.controller.flat.detach().numpy()[None]

    rng = np.random.default_rng(0)
    mu, logvar = world.initial_latents
    first = rng.integers(len(mu), size=n)
    z = mu[first] + np.exp(logvar[first] / 2) * rng.standard_normal((n, 64), np.float32)
    h = np.zeros((n, 512), np.float32)
    c, restart = np.zeros_like(h), np.ones(n, np.float32)
    lengths, alive = np.zeros(n, int), np.ones(n, bool)

    for t in range(options.steps):
        action = wmf.ops.controller_forward(spec, params, z, h, c)
        step = wmf.ops.mdn_rnn_step(model, z, action, h, c, restart)
        h, c, restart = step.h, step.c, np.zeros(n, np.float32)
        lengths += alive
        alive &= step.done_logit <= 0
        if not alive.any():
            break
        z = wmf.ops.mixture_sample(
            step.logmix, step.mu, step.logstd, options.temperature, seed=0, step=t
        )

    print(f"{alive.sum()} of {n} dreams still go on after {options.steps} steps")
    print(f"they lasted {lengths.mean():.0f} steps on average")


if __name__ == "__main__":
    main()

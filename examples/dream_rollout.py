"""A population of controllers in the bundled dream: a generation is one native call.

Compares random controllers with the bundled one and its neighbours, and shows that half of a
population scores the same to the bit as it does within the whole: noise depends on the seed and
the rollout alone.

    python examples/dream_rollout.py --members 16 --rollouts 16
"""

import argparse
import time

import numpy as np

import worldmodels_fast as wmf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--rollouts", type=int, default=16)
    options = parser.parse_args()

    world = wmf.load_pretrained("take-cover")
    dream = world.dream()
    bundled = world.controller.flat.detach().numpy()
    noise = np.random.default_rng(0).normal(0, 0.05, (options.members, dream.n_params))
    neighbours = (bundled + noise).astype(np.float32)
    neighbours[0] = bundled

    began = time.perf_counter()
    random = dream.evaluate(noise.astype(np.float32), rollouts=options.rollouts, seed=0)
    evolved = dream.evaluate(neighbours, rollouts=options.rollouts, seed=0)
    seconds = time.perf_counter() - began
    steps = int(random.lengths.sum() + evolved.lengths.sum())

    print(f"random controllers survive {random.returns.mean():.0f} steps of the dream")
    print(f"the bundled one survives {evolved.returns[0].mean():.0f}")
    print(f"its neighbours survive {evolved.returns[1:].mean():.0f}")
    print(f"{steps:,} steps in {seconds:.1f} s")

    half = dream.evaluate(neighbours[: options.members // 2], rollouts=options.rollouts, seed=0)
    same = np.array_equal(half.returns, evolved.returns[: options.members // 2])
    print(f"half of the population scores the same to the bit: {same}")


if __name__ == "__main__":
    main()

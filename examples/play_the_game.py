"""A world's agent in the real game: frames in, actions out.

Any Gymnasium loop does; the agent has V, M and C together and remembers between calls of `act`.

    python examples/play_the_game.py --world take-cover --episodes 3
    python examples/play_the_game.py --world car-racing --episodes 1
"""

import argparse

import gymnasium

import worldmodels_fast as wmf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="take-cover", help="a bundled world, or a folder")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--max-steps", type=int, default=None, help="of an episode")
    options = parser.parse_args()

    world = wmf.load_pretrained(options.world)
    spec = wmf.envs.spec_of(world.config)
    kwargs = world.config.get("env_kwargs", {})
    game = gymnasium.make(spec.env_id, max_episode_steps=options.max_steps, **kwargs)
    agent = world.agent()

    for seed in range(options.episodes):
        frame, _ = game.reset(seed=seed)
        agent.reset(seed=seed)  # M forgets the episode before
        score, over = 0.0, False
        while not over:
            frame, reward, terminated, truncated, _ = game.step(agent.act(frame))
            score += float(reward)
            over = terminated or truncated
        print(f"seed {seed}: {score:.0f} {spec.score}")
    game.close()


if __name__ == "__main__":
    main()

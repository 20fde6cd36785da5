"""Many real games at once; `toy_game` is what most of them play."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from folders import HELPERS
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import children, is_running, run_script, script_environment, wait_for
from small_worlds import small_mdn_rnn, small_world

from worldmodels_fast import LinearController, load_pretrained
from worldmodels_fast.models.vae import VAE
from worldmodels_fast.rollout.episodes import Episode, EpisodeResult
from worldmodels_fast.rollout.game import Game, GameResult
from worldmodels_fast.rollout.players import Players
from worldmodels_fast.world.world import World

TOY = "toy_game:Toy-v0"
EXACT = {"pays_actions": True}  # the return is the sum of the actions: it has all their bits

EPISODES = [Episode(env_seed=100 + i, player_seed=200 + i, member=i % 3) for i in range(9)]


def population(n=3, features=("z", "c", "h")):
    spec = LinearController(features, latent_dim=4, hidden_dim=8, action_dim=1).spec
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, spec.n_params)).astype(np.float32)


def alone(world, episode, **env_kwargs):
    """One episode as `Agent` plays it by itself, in this process."""
    env = gymnasium.make(TOY, **env_kwargs)
    agent = world.agent(seed=episode.player_seed)
    frame, _ = env.reset(seed=episode.env_seed)
    score, steps, terminated, truncated = 0.0, 0, False, False
    while not (terminated or truncated):
        frame, reward, terminated, truncated, _ = env.step(agent.act(frame))
        score += reward
        steps += 1
    return EpisodeResult(score, steps, terminated)


@pytest.fixture(scope="module")
def expected():
    """What `Agent` makes of `EPISODES`, each member by itself."""
    results, world = [], small_world()
    for episode in EPISODES:
        world.controller.set_flat(population()[episode.member])
        results.append(alone(world, episode, **EXACT))
    assert len({result.steps for result in results}) > 4
    return results


def named_memory():
    """Names of shared memory on this machine, but for Doom's: somebody else may be playing."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.startswith("ViZDoom")}


def test_workers_do_without_torch():
    """It takes most of the time that a process needs to be there, and most of its memory."""
    code = (
        "import sys\n"
        "import worldmodels_fast.rollout.worker, worldmodels_fast.envs.car_racing\n"
        "import worldmodels_fast.evaluation.open_loop, worldmodels_fast.data.collect\n"
        "import worldmodels_fast.envs.take_cover\n"
        "assert 'torch' not in sys.modules\n"
        "import worldmodels_fast as wmf\n"
        "assert set(wmf.__all__) <= set(dir(wmf))\n"
        "assert all(getattr(wmf, name) is not None for name in wmf.__all__)\n"
        "assert not hasattr(wmf, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def game():
    """A game in two workers and five slots, for all tests that need nothing else of it."""
    before, others = named_memory(), children()
    with small_world().game(TOY, env_kwargs=EXACT, workers=2, slots=5) as game:
        yield game
    left = [
        command
        for pid in set(children()) - set(others)
        if "resource_tracker" not in (command := cmdline(pid))  # multiprocessing's, of a pool
    ]
    assert left == []
    assert named_memory() <= before


def test_episodes_are_bitwise_what_the_agent_plays_by_itself(game, expected):
    seen = {}
    assert game.play(population(), EPISODES, seen.__setitem__) == expected
    assert seen == dict(enumerate(expected))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_that_closes_a_game_leaves_its_parents(game, expected):
    assert game.play(population(), EPISODES[:2]) == expected[:2]  # its workers are up
    child = os.fork()
    if child == 0:
        game.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert game.play(population(), EPISODES) == expected  # it hung, when the two shared an epoll


def test_an_environment_that_fails_to_close_is_replaced():
    with (
        small_world().game(TOY, env_kwargs={"fails_to_close": True, "fail_at": 2}) as game,
        pytest.warns(RuntimeWarning, match="the toy broke"),
        pytest.raises(RuntimeError, match="failed 3 times; last: RuntimeError: the toy broke"),
    ):
        game.evaluate(population(), 1)


def test_every_step_is_reported(game, expected):
    told = {}

    def on_step(place, step, frame, action, reward):
        assert step == len(told.setdefault(place, []))
        told[place].append((frame, action, reward))

    assert game.play(population(), EPISODES, on_step=on_step) == expected
    for place, episode in enumerate(EPISODES):
        env = gymnasium.make(TOY, **EXACT)
        frame, _ = env.reset(seed=episode.env_seed)
        assert len(told[place]) == expected[place].steps
        for seen, action, reward in told[place]:  # the same game again, by the actions alone
            np.testing.assert_array_equal(seen, frame)
            frame, real_reward, *_ = env.step(action)
            assert reward == real_reward


def test_an_episode_that_is_played_again_is_told_from_its_first_step(tmp_path):
    steps = {}
    kwargs = {"crash_once": str(tmp_path / "crashed")}
    with (
        small_world().game(TOY, env_kwargs=kwargs, workers=1, slots=2) as crashing,
        pytest.warns(RuntimeWarning, match="playing again"),
    ):
        results = crashing.play(
            population(),
            EPISODES[:3],
            on_step=lambda place, step, *_: steps.setdefault(place, []).append(step),
        )
    assert sum(numbers.count(0) for numbers in steps.values()) > len(EPISODES[:3])
    for place, result in enumerate(results):
        assert steps[place][-result.steps :] == list(range(result.steps))


def test_results_do_not_depend_on_order_workers_slots_and_threads(game, expected):
    places = np.random.default_rng(0).permutation(len(EPISODES))
    shuffled = game.play(population(), [EPISODES[place] for place in places])
    assert shuffled == [expected[place] for place in places]
    with small_world().game(TOY, env_kwargs=EXACT, workers=1, slots=3, threads=2) as other:
        assert other.play(population(), EPISODES) == expected


def test_a_generation_meets_the_same_games(game):
    members = population()[[0, 1, 0]]
    result = game.evaluate(members, rollouts=4, seed=7)
    assert result.returns.shape == result.lengths.shape == (3, 4)
    np.testing.assert_array_equal(result.returns[0], result.returns[2])
    np.testing.assert_array_equal(result.lengths[0], result.lengths[2])
    assert (result.returns[0] != result.returns[1]).all()
    assert len(set(result.returns[0])) == 4
    # A member and a rollout do not see how many others there are.
    fewer = game.evaluate(members[1:2], rollouts=2, seed=7)
    np.testing.assert_array_equal(fewer.returns, result.returns[1:2, :2])
    assert (game.evaluate(members, rollouts=4, seed=8).returns != result.returns).all()


def test_after_an_error_it_plays_again(game, expected):
    def stop(number, result):
        raise InterruptedError("enough")

    game.close()
    before = children()
    with pytest.raises(InterruptedError, match="enough"):
        game.play(population(), EPISODES, stop)
    assert children() == before
    assert game.play(population(), EPISODES) == expected
    assert game.play(population(), []) == []


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        (population().astype(np.float64), TypeError, "population: expected float32, got float64"),
        (population()[0], ValueError, r"population: expected shape \(P, 20\).*got \(20,\)"),
        (population()[:0], ValueError, "at least one row"),
        (population() * np.float32(np.nan), ValueError, "population: expected finite"),
        (population()[:2], ValueError, r"members from 0 to 1, got Episode\(.*member=2\)"),
    ],
)
def test_bad_populations_are_named(game, members, error, message):
    with pytest.raises(error, match=message):
        game.play(members, EPISODES)


def test_bad_settings_are_named(game):
    world = small_world()
    parts = (world.vae, world.mdn_rnn, world.controller)
    for setting, message in [
        ({"slots": 0}, "slots: expected at least 1, got 0"),
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"latent": "mean"}, "latent: expected 'sample' or 'mu', got 'mean'"),
        ({"vae_precision": "fp8"}, "vae_precision"),
    ]:
        with pytest.raises(ValueError, match=message):
            Game(*parts, TOY, **setting)
    with pytest.raises(ValueError, match="expected the same latent_dim, got 5, 4 and 4"):
        Game(VAE(5), *parts[1:], TOY)
    with pytest.raises(ValueError, match="the controller sees c and h, M's memory"):
        Game(world.vae, None, world.controller, TOY)
    with pytest.raises(ValueError, match="environment: the world's config"):
        world.game()
    with pytest.raises(ValueError, match="rollouts: expected at least 1, got 0"):
        game.evaluate(population(), rollouts=0)
    with pytest.raises(ValueError, match=r"seed: expected 0 <= seed < \d+, got -1"):
        game.evaluate(population(), seed=-1)


@pytest.mark.parametrize("value", [2.5, True, "2"])
def test_what_is_no_integer_is_named(game, value):
    world = small_world()
    parts = (world.vae, world.mdn_rnn, world.controller, TOY)
    for name in ("workers", "slots", "threads"):
        with pytest.raises(TypeError, match=f"{name}: expected an integer, got {value!r}"):
            Game(*parts, **{name: value})
    for name in ("rollouts", "seed"):
        with pytest.raises(TypeError, match=f"{name}: expected an integer, got {value!r}"):
            game.evaluate(population(), **{name: value})
    for name in ("env_seed", "player_seed", "member"):
        with pytest.raises(TypeError, match=f"{name}: expected an integer, got {value!r}"):
            Episode(**{"env_seed": 0, "player_seed": 0, name: value})


def test_integers_of_numpy(game):
    expected = game.evaluate(population(), rollouts=2, seed=3)
    sizes = {"workers": np.int64(1), "slots": np.int32(2), "threads": np.uint8(1)}
    with small_world().game(TOY, env_kwargs=EXACT, **sizes) as other:
        result = other.evaluate(population(), rollouts=np.int16(2), seed=np.uint64(3))
        np.testing.assert_array_equal(result.returns, expected.returns)
        episode = Episode(np.int64(100), np.uint32(200), np.int8(2))
        assert other.play(population(), [episode]) == game.play(
            population(), [Episode(100, 200, 2)]
        )


def test_one_line_says_what_it_is(game):
    assert repr(game) == (
        "Game('toy_game:Toy-v0', latent_dim=4, hidden_dim=8, action_dim=1, n_params=20, workers=2, "
        "slots=5)"
    )
    result = GameResult(np.array([[1.0, 2.0, 6.0]]), np.array([[10, 20, 30]], np.int32))
    assert repr(result) == "GameResult(members=1, rollouts=3, mean_return=3, mean_length=20)"


# --- players, without a game ------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    order=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=12),
    predicts_done=st.booleans(),
    features=st.sampled_from([("z", "c", "h"), ("z",), ("h", "z")]),
    latent=st.sampled_from(["sample", "mu"]),
)
def test_players_do_not_see_each_other(order, predicts_done, features, latent):
    """Five slots, stepped together in any groups, against five that are stepped alone."""
    mdn_rnn, vae = small_mdn_rnn(predicts_done), small_world().vae
    spec = LinearController(features, latent_dim=4, hidden_dim=8, action_dim=1).spec
    members = population(5, features)

    def players(n):
        made = Players(vae, mdn_rnn, spec, n, latent=latent)
        for slot in range(n):
            made.begin(slot, members[slot], np.random.default_rng(slot))
        return made

    together, each = players(5), [players(5) for _ in range(5)]
    rng = np.random.default_rng(1)
    for group in order:
        slots = np.array(sorted(group))
        frames = rng.integers(0, 256, (len(slots), 64, 64, 3), dtype=np.uint8)
        z, actions = together.act(slots, frames)
        together.remember(slots, z, actions)
        for place, slot in enumerate(slots):
            its_z, its_action = each[slot].act(slots[place : place + 1], frames[place][None])
            each[slot].remember(slots[place : place + 1], its_z, its_action)
            np.testing.assert_array_equal(its_z[0], z[place])
            np.testing.assert_array_equal(its_action[0], actions[place])


def test_noise_goes_on_as_one_stream():
    """More steps than are drawn at a time: each gets the generator's next normals."""
    world = small_world()
    players = Players(world.vae, world.mdn_rnn, world.controller.spec)
    players.begin(0, population()[0], np.random.default_rng(3))
    frame = np.zeros((1, 64, 64, 3), np.uint8)
    slot = np.zeros(1, np.intp)
    seen = np.concatenate([players.act(slot, frame)[0] for _ in range(150)])
    still = Players(world.vae, world.mdn_rnn, world.controller.spec, latent="mu")
    mu = still.act(slot, frame)[0]
    noise = np.random.default_rng(3).standard_normal((150, 4), dtype=np.float32)
    scale = (seen - mu) / noise
    np.testing.assert_allclose(scale, np.broadcast_to(scale[:1], scale.shape), rtol=1e-3)


def test_without_m_the_controller_sees_z_alone():
    world = small_world()
    controller = LinearController(("z",), latent_dim=4, hidden_dim=8, action_dim=1)
    episodes = EPISODES[:4]
    members = population(3, ("z",))
    results = []
    for mdn_rnn in (None, world.mdn_rnn):
        with Game(
            world.vae, mdn_rnn, controller, TOY, env_kwargs=EXACT, workers=1, slots=2
        ) as game:
            results.append(game.play(members, episodes))
    assert results[0] == results[1]


# --- workers in trouble -----------------------------------------------------------------------


def test_a_worker_that_dies_is_named_and_its_episodes_are_played_again(expected, tmp_path):
    crash = {**EXACT, "crash_once": str(tmp_path / "crashed")}
    with small_world().game(TOY, env_kwargs=crash, workers=2, slots=4) as game:
        with pytest.warns(RuntimeWarning, match="worker process .* exited with status 9") as caught:
            assert game.play(population(), EPISODES) == expected
        assert len(caught) == 1
        assert "playing again: episode " in str(caught[0].message)
        assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore:a worker failed")
def test_an_episode_that_kills_its_worker_is_named_and_not_those_beside_it():
    deadly = {**EXACT, "deadly_seed": EPISODES[4].env_seed}
    with (
        small_world().game(TOY, env_kwargs=deadly, workers=1, slots=5) as game,
        pytest.raises(RuntimeError, match=r"episode 4, Episode\(env_seed=104.*failed 3 times"),
    ):
        game.play(population(), EPISODES)


@pytest.mark.filterwarnings("ignore:a worker failed")
@pytest.mark.parametrize(
    ("env_kwargs", "message"),
    [
        ({"fail_at": 1}, "failed 3 times; last: RuntimeError: the toy broke"),
        ({"size": 96}, r"env_id: .*expected frames uint8 \(64, 64, 3\), got Box.*96"),
        ({"actions": 3}, r"env_id: .*expected 1 actions, the controller's, got Box.*\(3,\)"),
    ],
)
def test_what_an_environment_raises_is_shown(env_kwargs, message):
    with (
        small_world().game(TOY, env_kwargs=env_kwargs, workers=1, slots=1) as game,
        pytest.raises(RuntimeError, match=message) as caught,
    ):
        game.play(population(), EPISODES[:1])
    assert "Traceback" in caught.value.__notes__[0]
    assert "worker.py" in caught.value.__notes__[0]


def play_slowly(folder):
    with small_world().game(TOY, env_kwargs={"slow": folder}, workers=2, slots=4) as game:
        game.play(population(), EPISODES)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_game_that_is_stopped_does_not_hang_or_leave_anything(tmp_path, number):
    memory = named_memory()
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(HELPERS)!r}]\n"
        "from test_game import play_slowly\n"
        "if __name__ == '__main__':\n"
        f"    play_slowly({str(tmp_path)!r})\n",
        encoding="utf-8",
    )
    errors = tmp_path / "errors"
    with errors.open("w", encoding="utf-8") as file:
        parent = subprocess.Popen(
            [sys.executable, str(script)], env=script_environment(), stderr=file
        )
    wait_for(lambda: len(list(tmp_path.glob("begun-*"))) == 2, "the workers did not begin")
    pids = [int(path.name.split("-")[1]) for path in tmp_path.glob("begun-*")]
    assert named_memory() <= memory  # its memory has no name, even while it is used
    began = time.monotonic()
    parent.send_signal(number)
    parent.wait(timeout=30)
    assert time.monotonic() - began < 10
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors.read_text(encoding="utf-8")
        assert errors.read_text(encoding="utf-8").count("Traceback") == 1  # the workers say nothing
    else:
        # They end when their step does; here that would take a minute.
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not any(map(is_running, pids)), "the workers are still there")
    assert len(list(tmp_path.glob("closed-*"))) == 2


@pytest.mark.slow
def test_take_cover_is_what_the_agent_plays_by_itself():
    world: World = load_pretrained("take-cover")
    episodes = [Episode(env_seed=10 + i, player_seed=20 + i) for i in range(4)]
    kwargs = {"max_steps": 150}
    with world.game(env_kwargs=kwargs, workers=2, slots=3) as game:
        params = world.controller.flat.detach().numpy()[None]
        results = game.play(params, episodes)
        actions_differ = game.play(-params, episodes)
    env = gymnasium.make("worldmodels_fast/TakeCover-v0", **kwargs)
    for episode, result in zip(episodes, results, strict=True):
        agent = world.agent(seed=episode.player_seed)
        frame, _ = env.reset(seed=episode.env_seed)
        steps, terminated, truncated = 0, False, False
        while not (terminated or truncated):
            frame, _, terminated, truncated, _ = env.step(agent.act(frame))
            steps += 1
        assert result == EpisodeResult(float(steps), steps, terminated)
    env.close()
    assert [r.steps for r in actions_differ] != [r.steps for r in results]


# --- workers that start -----------------------------------------------------------------------

SMALL_GAME = """
import numpy as np
from small_worlds import small_world
world = small_world()
def play(env_id):
    with world.game(env_id, workers=2, slots=4) as game:
        return game.evaluate(world.controller.flat.detach().numpy()[None], rollouts=4, seed=1)
"""

OWN_ENVIRONMENT = """
import gymnasium
from toy_game import Toy
class Mine(Toy):
    pass
"""


@pytest.fixture(scope="module")
def small_result():
    """The returns of `SMALL_GAME` in `TOY`, as printed."""
    world = small_world()
    with world.game(TOY, workers=1, slots=2) as game:
        members = world.controller.flat.detach().numpy()[None]
        return str(game.evaluate(members, rollouts=4, seed=1).returns) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_script_plays_without_a_guard_and_from_standard_input(tmp_path, how, small_result):
    done = run_script(SMALL_GAME + f"print(play({TOY!r}).returns)\n", tmp_path, how)
    assert (done.stdout, done.stderr) == (small_result, "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "stdin"])
def test_an_environment_that_the_script_registers_is_known_to_workers(tmp_path, how, small_result):
    code = (
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', entry_point='toy_game:Toy')\n"
        f"{SMALL_GAME}\n"
        "print(play('Mine-v0').returns)\n"
    )
    done = run_script(code, tmp_path, how)
    assert (done.stdout, done.stderr) == (small_result, "")


@pytest.mark.slow
@pytest.mark.parametrize("entry_point", ["Mine", "lambda **kwargs: Mine(**kwargs)"])
def test_an_environment_that_is_defined_in_a_guarded_script(tmp_path, entry_point, small_result):
    code = (
        f"{OWN_ENVIRONMENT}"
        f"gymnasium.register('Mine-v0', entry_point={entry_point})\n"
        "if __name__ == '__main__':\n"
        f"    exec({SMALL_GAME!r})\n"
        "    print(play('Mine-v0').returns)\n"
    )
    done = run_script(code, tmp_path)
    assert (done.stdout, done.stderr) == (small_result, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [("file", 'under `if __name__ == "__main__":`'), ("stdin", "came from stan")],
)
def test_an_environment_that_workers_cannot_import(tmp_path, how, message):
    code = (
        f"{OWN_ENVIRONMENT}{SMALL_GAME}"
        "gymnasium.register('Mine-v0', entry_point=Mine)\n"
        "play('Mine-v0')\n"
    )
    done = run_script(code, tmp_path, how)
    beginning = "RuntimeError: a worker process could not start: "
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(beginning)]
    assert message in line


def play_in_a_pool(seed):
    world = small_world()
    with world.game(TOY, workers=1, slots=2) as game:
        members = world.controller.flat.detach().numpy()[None]
        return str(game.evaluate(members, rollouts=4, seed=seed).returns) + "\n"


@pytest.mark.slow
def test_a_game_in_a_pools_process(small_result):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(play_in_a_pool, (1,)) == small_result


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_worker_killed_while_it_starts_is_replaced(expected):
    before, killed = set(children()), []

    def kill_the_first():
        while not set(children()) - before:
            time.sleep(0.001)
        killed.extend(set(children()) - before)
        os.kill(killed[0], signal.SIGKILL)

    with small_world().game(TOY, env_kwargs=EXACT, workers=2, slots=4) as game:
        thread = threading.Thread(target=kill_the_first)
        thread.start()
        with pytest.warns(RuntimeWarning, match="was killed by SIGKILL while it started") as caught:
            results = game.play(population(), EPISODES)
        thread.join()
    assert results == expected
    assert len(caught) == 1
    assert set(children()) <= before

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damaged
from small_worlds import small_world

from worldmodels_fast import reference
from worldmodels_fast.models.controller import LinearController
from worldmodels_fast.utils.files import read_json, write_json
from worldmodels_fast.world.world import World


def frames(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("predicts_done", [False, True])
def test_agent_is_v_then_c_then_m(predicts_done):
    world = small_world(predicts_done)
    agent = world.agent(latent="mu")
    weights = world.mdn_rnn.weights()
    for _ in range(2):  # the second time after a reset
        agent.reset()
        h, c = np.zeros((2, 1, 8))
        for t, frame in enumerate(frames(4)):
            with torch.no_grad():
                z = world.vae.encode(torch.from_numpy(frame)[None])[0].numpy()
            params = world.controller.flat.detach().numpy()[None]
            # C acts on M's memory from before M is steps with z.
            expected = reference.controller_forward(world.controller.spec, params, z, h, c)
            action = agent.act(frame)
            assert action.shape == (1,)
            assert action.dtype == np.float32
            np.testing.assert_allclose(action, expected[0], atol=1e-5)
            restart = np.array([float(t == 0)]) if predicts_done else None
            step = reference.mdn_rnn_step(weights, z, expected, h, c, restart)
            h, c = step.h, step.c


def test_agents_sampling_has_a_seed_of_its_own():
    world = small_world()

    def actions(agent):
        return np.array([agent.act(frame) for frame in frames(5)])

    first = actions(world.agent(seed=1))
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    np.testing.assert_array_equal(first, actions(world.agent(seed=1)))
    assert (first != actions(world.agent(seed=2))).any()
    agent = world.agent(seed=5)
    other = actions(agent)
    agent.reset(seed=1)
    np.testing.assert_array_equal(first, actions(agent))
    assert (other != first).any()


def test_sampled_latents_have_the_right_spread():
    world = small_world()
    # A controller that shows z's first component, and a V with known mu and logvar.
    flat = np.zeros(world.controller.n_params, np.float32)
    flat[0] = 1.0
    world.controller.set_flat(flat)
    with torch.no_grad():
        for head, value in ((world.vae.mu, 0.25), (world.vae.logvar, 2 * np.log(0.1))):
            head.weight.zero_()
            head.bias.fill_(value)
    agent = world.agent(seed=0)
    seen = np.arctanh([agent.act(frame)[0] for frame in frames(1).repeat(200, axis=0)])
    assert seen.mean() == pytest.approx(0.25, abs=0.03)
    assert seen.std() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (np.zeros((64, 64, 3), np.float32), TypeError, "uint8"),
        (np.zeros((96, 96, 3), np.uint8), ValueError, "64, 64, 3"),
        (np.zeros((1, 64, 64, 3), np.uint8), ValueError, "64, 64, 3"),
    ],
)
def test_bad_frames_are_named(frame, error, message):
    with pytest.raises(error, match=message):
        small_world().agent().act(frame)


def test_bad_latent_option_is_named():
    with pytest.raises(ValueError, match="latent"):
        small_world().agent(latent="mean")


def test_save_and_load_in_32_bits_is_exact(tmp_path):
    world = small_world(dream={"temperature": 1.3}, made_of="dreams")
    world.save(tmp_path / "world", dtype="fp32")
    again = World.load(tmp_path / "world")
    assert again.digest() == world.digest()
    assert again.card == "a card\n"
    assert again.config["made_of"] == "dreams"
    assert again.controller.spec == world.controller.spec
    assert again.dream().temperature == 1.3
    assert again.dream(temperature=0.5).temperature == 0.5
    assert again.dream().max_steps == 2100
    for mine, theirs in zip(world.initial_latents, again.initial_latents, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for frame in frames(2):
        np.testing.assert_array_equal(world.agent().act(frame), again.agent().act(frame))


@pytest.mark.parametrize("predicts_done", [False, True])
def test_a_world_that_predicts_rewards_comes_back(tmp_path, predicts_done):
    world = small_world(predicts_done, predicts_reward=True)
    world.save(tmp_path, dtype="fp32")
    again = World.load(tmp_path)
    assert again.mdn_rnn.predicts_reward
    assert again.digest() == world.digest()


def test_a_world_from_before_there_were_rewards_is_read(tmp_path):
    world = small_world()
    world.save(tmp_path, dtype="fp32")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["mdn_rnn"].pop("predicts_reward") is False
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    again = World.load(tmp_path)
    assert not again.mdn_rnn.predicts_reward
    assert again.digest() == world.digest()


def test_16_bits_are_the_default_half_the_size_and_stable(tmp_path):
    world = small_world()
    world.save(tmp_path / "small")
    world.save(tmp_path / "large", dtype="fp32")
    sizes = [(tmp_path / name / "vae.safetensors").stat().st_size for name in ("small", "large")]
    assert 0.49 < sizes[0] / sizes[1] < 0.51
    rounded = World.load(tmp_path / "small")
    assert rounded.digest() != world.digest()
    assert rounded.vae.mu.weight.dtype == torch.float32
    rounded.save(tmp_path / "again")
    assert World.load(tmp_path / "again").digest() == rounded.digest()
    for mine, theirs in zip(world.vae.parameters(), rounded.vae.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_weights_that_16_bits_cannot_hold_are_refused(tmp_path):
    world = small_world()
    with torch.no_grad():
        world.mdn_rnn.head.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"mdn_rnn: head\.bias"):
        world.save(tmp_path)


def test_parts_must_fit_together():
    world = small_world()
    controller = LinearController(latent_dim=4, hidden_dim=9, action_dim=1)
    with pytest.raises(ValueError, match="expected the same hidden_dim"):
        World(world.vae, world.mdn_rnn, controller, world.initial_latents)


def test_broken_folders_are_explained(tmp_path):
    good = tmp_path / "good"
    small_world().save(good)

    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(good, folder)
        change(folder)
        return folder

    def edit(**changes):
        def change(folder):
            path = folder / "config.json"
            path.write_text(
                json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}),
                encoding="utf-8",
            )

        return change

    cases = {
        "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
        "not json": (lambda f: (f / "config.json").write_text("{", encoding="utf-8"), "not JSON"),
        "format": (edit(format=99), "format 1, got 99"),
        "sizes": (edit(vae={"latent_dim": 5}), r"vae\.safetensors: not the weights"),
        "words": (edit(vae={"size": 5}), r"config.json: damaged.*size"),
        "no file": (lambda f: (f / "mdn_rnn.safetensors").unlink(), "mdn_rnn.safetensors"),
        "cut file": (lambda f: (f / "vae.safetensors").write_bytes(b"abc"), "vae.safetensors"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(ValueError, match=message):
            World.load(broken(name, change))


def test_every_damaged_file_of_a_world_is_named(tmp_path):
    small_world().save(tmp_path)
    for path in sorted(tmp_path.glob("*[!d]")):  # all but README.md
        for way in damaged(path):
            with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
                World.load(tmp_path)
            assert str(caught.value).count("\n") == 0, way
    (tmp_path / "README.md").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"README.md: not UTF-8"):
        World.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"vae": [1]},
        {"vae": {"latent_dim": "4"}},
        {"mdn_rnn": {}},
        {"mdn_rnn": None},
        {"controller": {"features": 3}},
        {"dream": [1]},
        {"dream": None},
    ],
)
def test_a_config_of_other_types_is_named(tmp_path, changes):
    small_world().save(tmp_path)
    path = tmp_path / "config.json"
    write_json(path, {**read_json(path), **changes})
    with pytest.raises(ValueError, match=r"config.json: damaged, or of another version"):
        World.load(tmp_path)


def test_a_card_is_utf8_whatever_the_locale(tmp_path):
    code = (
        "import sys\n"
        "from worldmodels_fast.world.world import World\n"
        "world = World.load(sys.argv[1])\n"
        "assert world.card == 'Gr\\u00f6\\u00dfe\\n', ascii(world.card)\n"
        "world.card = 2 * world.card\n"
        "world.save(sys.argv[2])\n"
    )
    world = small_world()
    world.card = "Größe\n"
    world.save(tmp_path / "one")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "one"), str(tmp_path / "two")]
    done = subprocess.run(command, env=plain, check=False, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert World.load(tmp_path / "two").card == "Größe\nGröße\n"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_save_that_fails_changes_nothing(tmp_path):
    old, new = small_world(seed=1), small_world(seed=2)
    old.save(tmp_path)
    before = files_of(tmp_path)
    new.card = "\ud800 cannot be encoded"
    with pytest.raises(UnicodeEncodeError):
        new.save(tmp_path)
    assert files_of(tmp_path) == before
    new.card = "a card"
    with torch.no_grad():
        new.controller.flat[0] = np.nan  # the last of the parts with weights
    with pytest.raises(ValueError, match="controller"):
        new.save(tmp_path)
    assert files_of(tmp_path) == before


def test_a_full_disk_leaves_the_world(tmp_path):
    """The system's limit on a file's size stands for the full disk: V's weights are too many."""
    old, new = small_world(seed=1), small_world(seed=2)
    old.save(tmp_path)
    before = files_of(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["vae.safetensors"]) - 1, limits[1]))
        with pytest.raises(OSError, match=r"vae.safetensors"):
            new.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files_of(tmp_path) == before


def test_a_mixture_of_two_worlds_is_refused(tmp_path):
    for seed in (1, 2):
        small_world(seed=seed).save(tmp_path / str(seed))
    for name in ("vae", "mdn_rnn", "controller", "initial_latents"):
        shutil.copytree(tmp_path / "1", tmp_path / name)
        shutil.copy(tmp_path / "2" / f"{name}.safetensors", tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: config.json was written with other weights"):
            World.load(tmp_path / name)


@pytest.mark.parametrize("earlier_version", [False, True])
@pytest.mark.parametrize("replaced", range(6))
def test_a_killed_save_leaves_one_world_or_none(tmp_path, replaced, earlier_version):
    """Killed after so many of its six files have replaced the old ones."""
    worlds = [small_world(seed=seed) for seed in (1, 2)]
    worlds[0].save(tmp_path / "w", dtype="fp32")
    if earlier_version:  # whose config.json holds no digest
        path = tmp_path / "w" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        del config["digest"]
        path.write_text(json.dumps(config), encoding="utf-8")
    code = (
        "import os, sys\n"
        "from worldmodels_fast.utils import files\n"
        "from small_worlds import small_world\n"
        "replace, left = os.replace, [int(sys.argv[2])]\n"
        "def replaces(*args):\n"
        "    if not left[0]:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    left[0] -= 1\n"
        "    replace(*args)\n"
        "os.replace = replaces\n"
        "small_world(seed=2).save(sys.argv[1], dtype='fp32')\n"
    )
    helpers = str(Path(__file__).parents[1] / "helpers")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([helpers, *sys.path])}
    command = [sys.executable, "-c", code, str(tmp_path / "w"), str(replaced)]
    assert subprocess.run(command, env=env, check=False, timeout=300).returncode == -9
    try:
        digest = World.load(tmp_path / "w").digest()
    except ValueError as error:
        assert "config.json was written with other weights" in str(error)  # noqa: PT017
        assert replaced > 1
    else:
        assert digest == worlds[0].digest()
    worlds[1].save(tmp_path / "w", dtype="fp32")
    assert World.load(tmp_path / "w").digest() == worlds[1].digest()
    assert len(list((tmp_path / "w").iterdir())) == 6


def test_a_world_of_an_earlier_version_has_no_digest(tmp_path):
    small_world().save(tmp_path)
    config = read_json(tmp_path / "config.json")
    assert config.pop("digest") == World.load(tmp_path).digest()
    write_json(tmp_path / "config.json", config)
    assert "digest" not in World.load(tmp_path).config


def test_initial_latents_have_the_width_of_z():
    world = small_world()
    for bad in (
        np.zeros((5, 3), np.float32),
        np.zeros(4, np.float32),
        np.zeros((2, 4), np.float32),
    ):
        with pytest.raises(ValueError, match="initial_latents: expected mu and logvar"):
            dataclasses.replace(world, initial_latents=(world.initial_latents[0], bad))


def test_reprs_are_one_line_with_sizes():
    world = small_world(environment="take-cover")
    assert repr(world) == (
        "World('take-cover', latent_dim=4, action_dim=1, hidden_dim=8, n_mixtures=3, "
        "initial_latents=5; parameters: V "
        f"{sum(p.numel() for p in world.vae.parameters()):,}, M 813, C 20)"
    )
    assert repr(world.agent(latent="mu")) == (
        "Agent('take-cover', latent_dim=4, action_dim=1, hidden_dim=8, latent='mu', "
        "vae_precision='fp32')"
    )

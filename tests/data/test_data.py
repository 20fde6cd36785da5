import dataclasses
import os
import threading
import time

import h5py
import minari
import numpy as np
import pytest
from damage import damaged
from small_episodes import ENV_ID, made_up_episode, made_up_latents, write_made_up_episodes

from worldmodels_fast import data
from worldmodels_fast.data import frames
from worldmodels_fast.utils.tensors import load_tensors, save_tensors


def names(frames):
    """(episode, step) of each made-up frame."""
    first = frames[:, 0, 0].astype(int)
    return list(zip(first[:, 0], first[:, 1] * 256 + first[:, 2], strict=True))


def test_episodes_come_back_as_they_were(tmp_path):
    episodes = [made_up_episode(5, 1), made_up_episode(300, 2, terminated=False)]
    data.write_episodes(tmp_path / "episodes", 3, episodes, ENV_ID)
    assert data.finished_shards(tmp_path / "episodes") == [3]
    assert data.shard_steps(tmp_path / "episodes", 3) == 305
    for episode, read in zip(episodes, data.read_episodes(tmp_path / "episodes", 3), strict=True):
        assert len(read) == len(episode)
        for name in ("frames", "actions", "rewards"):
            expected, got = getattr(episode, name), getattr(read, name)
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
        assert read.terminated is episode.terminated
        assert read.seed == episode.seed
    frames = data.read_frames(tmp_path / "episodes", 3)
    np.testing.assert_array_equal(frames, np.concatenate([e.frames for e in episodes]))


def test_minari_reads_a_shard(tmp_path):
    episodes = [made_up_episode(5, 1), made_up_episode(7, 2, terminated=False)]
    data.write_episodes(tmp_path, 0, episodes, ENV_ID)
    dataset = minari.MinariDataset(data.shard_path(tmp_path, 0))
    assert dataset.total_episodes == 2
    assert dataset.total_steps == 12
    assert dataset.observation_space.shape == (64, 64, 3)
    assert dataset.action_space.shape == (1,)
    for episode, read in zip(episodes, dataset.iterate_episodes(), strict=True):
        assert len(read.observations) == len(episode) + 1
        np.testing.assert_array_equal(read.observations[:-1], episode.frames)
        np.testing.assert_array_equal(read.actions, episode.actions)
        assert read.terminations[-1] == episode.terminated
        assert read.truncations[-1] != episode.terminated
        assert not (read.terminations[:-1] | read.truncations[:-1]).any()


def test_a_shard_is_there_whole_or_not_at_all(tmp_path):
    def dies():
        yield made_up_episode(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_episodes(tmp_path, 0, dies(), ENV_ID)
    assert data.finished_shards(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="collect"):
        next(data.read_episodes(tmp_path, 0))
    data.write_episodes(tmp_path, 0, [made_up_episode(6)], ENV_ID)
    (tmp_path / "shard-00007.123.unfinished").mkdir()
    (tmp_path / "shard-00007.safetensors.unfinished").touch()
    assert data.finished_shards(tmp_path) == [0]
    data.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000"]


def test_a_shard_that_was_written_before_is_replaced(tmp_path):
    # A worker may die after its shard is in place and before it has said so.
    data.write_episodes(tmp_path, 0, [made_up_episode(5, 1)], ENV_ID)
    data.write_episodes(tmp_path, 0, [made_up_episode(6, 2)], ENV_ID)
    assert data.shard_steps(tmp_path, 0) == 6
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_shard_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="shard 0 would be empty"):
        data.write_episodes(tmp_path, 0, [], ENV_ID)
    assert data.finished_shards(tmp_path) == []


def test_other_files_are_not_shards(tmp_path):
    assert data.finished_shards(tmp_path / "nowhere") == []
    for name in ("shard-00002", "shard-00010", "shard-x", "shard-00003.safetensors", "notes"):
        (tmp_path / name).mkdir()
    assert data.finished_shards(tmp_path) == [2, 10]
    assert data.finished_shards(tmp_path, ".safetensors") == [3]


def test_held_out_shards():
    assert data.split_held_out(range(45)) == (
        [s for s in range(45) if s not in (19, 39)],
        [19, 39],
    )
    assert data.split_held_out([0, 1, 2]) == ([0, 1], [2])
    assert data.split_held_out([0]) == ([0], [0])


@pytest.fixture
def shards(tmp_path):
    # 20, 20, 30, 10 and 20 frames; with two shards to a group every group is a multiple of ten
    write_made_up_episodes(tmp_path, [[8, 12], [20], [17, 13], [10], [15, 5]])
    return tmp_path


def batches(folder, n, **settings):
    settings = {"seed": 4, "shards_in_memory": 2, **settings}
    reader = data.frame_batches(folder, range(5), 10, **settings)
    try:
        return [next(reader).copy() for _ in range(n)]
    finally:
        reader.close()


def test_every_frame_once_an_epoch(shards):
    everything = sorted(names(data.read_frames(shards, *range(5))))
    assert len(everything) == len(set(everything)) == 100
    taken = batches(shards, 30)
    assert {batch.shape for batch in taken} == {(10, 64, 64, 3)}
    epochs = [names(np.concatenate(taken[i : i + 10])) for i in (0, 10, 20)]
    for epoch in epochs:
        assert sorted(epoch) == everything
        assert epoch != sorted(epoch)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_alone(shards):
    first = np.stack(batches(shards, 12))
    np.testing.assert_array_equal(first, np.stack(batches(shards, 12)))
    assert not np.array_equal(first, np.stack(batches(shards, 12, seed=5)))


@pytest.mark.parametrize("first_step", [1, 4, 10, 13, 25])
def test_resumed_batches_go_on(shards, first_step, monkeypatch):
    whole = batches(shards, 30)
    read = []
    read_frames = data.read_frames
    monkeypatch.setattr(
        frames, "read_frames", lambda folder, *s: read.append(s) or read_frames(folder, *s)
    )
    resumed = batches(shards, 30 - first_step, first_step=first_step)
    np.testing.assert_array_equal(np.stack(resumed), np.stack(whole[first_step:]))
    if first_step == 25:  # frames that are skipped are not read
        assert len(read) <= 3


def test_at_most_two_groups_are_in_memory(shards, monkeypatch):
    read = []
    read_frames = data.read_frames
    monkeypatch.setattr(
        frames, "read_frames", lambda folder, *s: read.append(s) or read_frames(folder, *s)
    )
    reader = data.frame_batches(shards, range(5), 10, seed=0, shards_in_memory=1)
    sizes = {0: 2, 1: 2, 2: 3, 3: 1, 4: 2}
    for taken in range(1, 21):
        next(reader)
        time.sleep(0.02)
        begun, left = 0, taken
        while left > 0:
            left -= sizes[read[begun][0]]
            begun += 1
        assert len(read) <= begun + 1
    reader.close()


def test_frames_that_fill_no_batch(tmp_path):
    write_made_up_episodes(tmp_path, [[5], [6]])
    with pytest.raises(ValueError, match="2 shards hold too few frames for one batch of 10"):
        next(data.frame_batches(tmp_path, [0, 1], 10, seed=0, shards_in_memory=1))
    reader = data.frame_batches(tmp_path, [0, 1], 10, seed=0, shards_in_memory=2)
    assert next(reader).shape == (10, 64, 64, 3)
    reader.close()


def test_the_readers_errors_arrive_and_its_thread_ends(shards):
    with pytest.raises(FileNotFoundError, match="shard-00009"):
        next(data.frame_batches(shards, [0, 9], 10, seed=0))
    reader = data.frame_batches(shards, range(5), 10, seed=0, shards_in_memory=1)
    next(reader)
    reader.close()
    assert "frame-reader" not in [thread.name for thread in threading.enumerate()]


def test_a_damaged_shard_is_an_error(shards):
    path = data.shard_path(shards, 1) / "metadata.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"total_steps": 20', '"total_steps": 21'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected 21 frames .* found 20"):
        data.read_frames(shards, 1)


@pytest.mark.filterwarnings("error")
def test_every_damaged_file_of_a_shard_is_named(shards):
    shard = data.shard_path(shards, 1)
    files = sorted(path for path in shard.rglob("*") if path.is_file())
    for path in files:
        for way in damaged(path):
            for read in (data.read_frames, lambda *a: list(data.read_episodes(*a))):
                with pytest.raises(ValueError, match=r"shard-00001.*collect") as caught:
                    read(shards, 1)
                assert str(caught.value).count("\n") == 0, way
    assert len(data.read_frames(shards, 1)) == 20


def in_hdf5(shard, name, change):
    with h5py.File(shard / "main_data.hdf5", "r+") as file:
        array = file["episode_0"][name][()]
        del file["episode_0"][name]
        changed = change(array)
        if changed is not None:
            file["episode_0"][name] = changed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["rewards", "actions"])
def test_numbers_that_are_not_finite_name_the_shard(shards, name, bad):
    def change(array):
        array[3] = bad
        return array

    in_hdf5(data.shard_path(shards, 1), name, change)
    with pytest.raises(ValueError, match=rf"shard-00001: .*{name}: .*NaN or infinity.*delete"):
        list(data.read_episodes(shards, 1))


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminations"])
def test_arrays_that_are_not_an_episodes_name_the_shard(shards, name):
    for change in (lambda array: array[:-1], lambda array: array[..., None], lambda array: None):
        write_made_up_episodes(shards, [[8, 12], [20]])
        in_hdf5(data.shard_path(shards, 1), name, change)
        if name == "terminations" and change(np.ones(2)) is not None and len(change(np.ones(2))):
            continue  # only the last one is read
        with pytest.raises(ValueError, match=r"shard-00001: .*delete"):
            list(data.read_episodes(shards, 1))


def test_latents_come_back_as_they_were(tmp_path):
    parts = [made_up_latents([4, 3], seed=1), made_up_latents([5], seed=2)]
    for shard, latents in enumerate(parts):
        data.write_latents(tmp_path, shard, latents)
    (tmp_path / "shard-00002.safetensors.unfinished").write_bytes(b"half")
    assert data.finished_shards(tmp_path, ".safetensors") == [0, 1]
    both = data.read_latents(tmp_path, [0, 1])
    assert both.lengths.tolist() == [4, 3, 5]
    assert both.starts.tolist() == [0, 4, 7]
    assert both.terminated.tolist() == [True, True, True]
    for name in ("mu", "logvar", "actions"):
        expected = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(both, name), expected)
        assert getattr(both, name).dtype == expected.dtype
    mu, logvar = data.first_latents(both, 2)
    assert mu.dtype == logvar.dtype == np.float32
    np.testing.assert_array_equal(mu, both.mu[[0, 4]].astype(np.float32))
    assert len(data.first_latents(both, 100)[0]) == 3
    with pytest.raises(FileNotFoundError, match="encode"):
        data.read_latents(tmp_path, [0, 2])


def test_every_damaged_shard_of_latents_is_named(tmp_path):
    for shard in range(2):
        data.write_latents(tmp_path, shard, made_up_latents([4, 3]))
    path = data.shard_path(tmp_path, 1, ".safetensors")
    for _ in damaged(path):
        with pytest.raises(ValueError, match=r"shard-00001.safetensors: .*`encode` again"):
            data.read_latents(tmp_path, [0, 1])
    arrays = load_tensors(path, "")
    wrong = {
        "mu": arrays["mu"][:, :2],
        "logvar": arrays["logvar"].astype(np.float32),
        "actions": arrays["actions"][:-1],
        "lengths": np.array([4, 4]),
        "terminated": arrays["terminated"][:1],
        "rewards": np.zeros(3, np.float32),
        "other": np.zeros(3),
    }
    for name, array in wrong.items():
        save_tensors(path, {**arrays, name: array})
        with pytest.raises(ValueError, match=rf"shard-00001.safetensors: .*{name}"):
            data.read_latents(tmp_path, [0, 1])
    save_tensors(path, {name: array[..., :2] for name, array in arrays.items()})
    with pytest.raises(ValueError, match=r"shard-00001.safetensors"):
        data.read_latents(tmp_path, [0, 1])
    narrow = {**arrays, "mu": arrays["mu"][:, :2], "logvar": arrays["logvar"][:, :2]}
    save_tensors(path, narrow)
    with pytest.raises(ValueError, match=r"shard-00001.*mu: expected a width of \(3,\)"):
        data.read_latents(tmp_path, [0, 1])


@pytest.mark.parametrize("name", ["mu", "logvar", "actions", "rewards"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite_name_the_shard(tmp_path, name, bad):
    latents = dataclasses.replace(made_up_latents([4, 3]), rewards=np.zeros(7, np.float32))
    getattr(latents, name)[3] = bad
    with pytest.raises(
        ValueError, match=rf"shard-00005.safetensors: {name}: .*nothing was written"
    ):
        data.write_latents(tmp_path, 5, latents)
    assert list(tmp_path.iterdir()) == []
    path = data.shard_path(tmp_path, 5, ".safetensors")
    stored = {k: v for k, v in vars(latents).items() if v is not None}
    save_tensors(path, stored)
    with pytest.raises(ValueError, match=rf"shard-00005.safetensors: .*{name}: .*NaN.*encode"):
        data.read_latents(tmp_path, [5])
    getattr(latents, name)[3] = 0
    latents.mu[0] = -65504  # the largest float16
    save_tensors(path, stored)
    data.read_latents(tmp_path, [5])


def test_reprs_are_one_line_with_sizes():
    assert repr(made_up_latents([4, 3])) == (
        "Latents(episodes=2, steps=7, latent_dim=3, action_dim=1, rewards=False)"
    )
    assert repr(made_up_episode(5, 2)) == (
        "Episode(steps=5, frames=(64, 64, 3), action_dim=1, score=5, terminated=True, seed=2)"
    )


def test_unfinished_shards_bear_their_writers_number(tmp_path, monkeypatch):
    # So that two writers of the same shard do not write into one another's files.
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: seen.append(a.name) or replace(a, b))
    data.write_episodes(tmp_path, 0, [made_up_episode(3)], ENV_ID)
    assert seen == [f"shard-00000.{os.getpid()}.unfinished"]

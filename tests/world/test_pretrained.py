import numpy as np
import pytest
from small_worlds import small_world

from worldmodels_fast.world.pretrained import load_pretrained, pretrained_names


def test_a_folder_is_loaded(tmp_path):
    world = small_world()
    world.save(tmp_path / "mine", dtype="fp32")
    assert load_pretrained(tmp_path / "mine").digest() == world.digest()
    assert load_pretrained(str(tmp_path / "mine")).digest() == world.digest()


def test_an_unknown_name_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="expected a bundled world") as caught:
        load_pretrained("take-shelter")
    for name in pretrained_names():
        assert name in str(caught.value)
    with pytest.raises(ValueError, match="not a world"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", pretrained_names())
def test_bundled_worlds_act_and_dream(name):
    world = load_pretrained(name)
    assert len(world.card) > 100
    assert np.isfinite(world.agent().act(np.zeros((64, 64, 3), np.uint8))).all()
    dream = world.dream(max_steps=20)
    params = world.controller.flat.detach().numpy()[None]
    assert dream.evaluate(params, rollouts=2).lengths.shape == (1, 2)

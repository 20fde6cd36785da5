import json
from dataclasses import asdict

import pytest
from small_worlds import small_world

from worldmodels_fast.card import write_card
from worldmodels_fast.evaluation import EpisodeScore, Evaluation, FidelityRow
from worldmodels_fast.recipes import make_recipe, save_config


def test_a_card_says_what_the_run_has_and_leaves_out_what_it_has_not(tmp_path):
    small_world().save(tmp_path / "world")
    save_config(make_recipe("take-cover-smoke"), tmp_path / "config.json")
    card = write_card(tmp_path).read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "worldmodels-fast run take-cover-smoke" in card
    assert "Score in the real game" not in card

    settings = {"environment": {"skill": 4}, "versions": {"vizdoom": "1.3.2"}}
    episodes = tuple(EpisodeScore(i, i, 100.0 + i, 100 + i, True) for i in range(3))
    evaluation = {"agent": Evaluation(settings, episodes).to_json()}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    row = FidelityRow.compare("left", [100.0, 120.0], [300.0, 330.0])
    (tmp_path / "fidelity.json").write_text(json.dumps({"rows": [asdict(row)]}))
    card = write_card(tmp_path).read_text()
    assert "| agent | 3 | 101 +- 1 |" in card
    assert "vizdoom 1.3.2" in card
    assert "| left | 110" in card


def test_a_run_without_a_world_has_no_card(tmp_path):
    with pytest.raises(ValueError, match="no finished world; run the stage `evolve`"):
        write_card(tmp_path)

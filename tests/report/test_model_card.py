import json
from dataclasses import asdict

import pytest
from small_worlds import small_world

from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.scores import EpisodeScore, Evaluation
from worldmodels_fast.experiments.config import save_config
from worldmodels_fast.experiments.recipes.registry import make_recipe
from worldmodels_fast.report.model_card import write_card


def test_a_card_says_what_the_run_has_and_leaves_out_what_it_has_not(tmp_path):
    small_world(dream={"done_threshold": 2.5, "done_temperature": 1.25}).save(tmp_path / "world")
    save_config(make_recipe("take-cover-smoke"), tmp_path / "config.json")
    card = write_card(tmp_path).read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n")
    assert "worldmodels-fast run take-cover-smoke" in card
    assert "over with probability sigmoid((done logit - 2.5) / 1.25) in each step" in card
    assert "Score in the real game" not in card

    settings = {"environment": {"skill": 4}, "seed": 3, "versions": {"vizdoom": "1.3.2"}}
    settings["env_id"] = "worldmodels_fast/TakeCover-v0"
    episodes = tuple(EpisodeScore(i, i, 100.0 + i, 100 + i, True) for i in range(3))
    evaluation = {"agent": Evaluation(settings, episodes).to_json()}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    row = FidelityRow.compare("left", [100.0, 120.0], [300.0, 330.0])
    (tmp_path / "fidelity.json").write_text(json.dumps({"rows": [asdict(row)]}), encoding="utf-8")
    card = write_card(tmp_path).read_text(encoding="utf-8")
    assert "| agent | 3 | 101 +- 1 |" in card
    assert "worldmodels_fast/TakeCover-v0 (skill 4), seed 3; vizdoom 1.3.2." in card
    assert "| left | 110" in card
    assert "How good is the dream?" not in card

    seeing = {"reconstruction": 13.0, "unconditional": 52.0, "kl": 31.5}
    seeing |= {"dimensions": 64, "dimensions_used": 12}
    quality = {"seeing": seeing, "z_loss": 1.02, "latent": "sample"}
    (tmp_path / "quality.json").write_text(json.dumps(quality), encoding="utf-8")
    card = write_card(tmp_path).read_text(encoding="utf-8")
    assert "## How good is the dream?" in card
    assert "V explains 75% of the squared error" in card
    # 64 * 1.02 nats, less 52 standard normals', over 12 dimensions
    assert "which leaves -0.71 for each of the 12" in card


def test_a_card_of_a_run_in_the_game(tmp_path):
    small_world(predicts_done=False).save(tmp_path / "world")
    save_config(make_recipe("car-racing-z-hidden"), tmp_path / "config.json")
    settings = {"environment": {"max_steps": 1000, "patience": None}, "versions": {"box2d": "2.3"}}
    settings["seed"] = 5
    players = {
        "agent": Evaluation({**settings, "env_id": "Ours-v0"}, (EpisodeScore(0, 5, 9.5, 9, True),)),
        "agent-unmodified": Evaluation(
            {**settings, "env_id": "Theirs-v0"}, (EpisodeScore(0, 5, 7.5, 9, True),)
        ),
    }
    text = json.dumps({name: e.to_json() for name, e in players.items()})
    (tmp_path / "evaluation.json").write_text(text, encoding="utf-8")
    (tmp_path / "stages").mkdir()
    figures = {"generations": 3, "from_generation": 1, "score_in_the_game": 7.0, "game_steps": 5000}
    figures |= {"steps_per_second": 2500.0, "core_hours": 0.5}
    (tmp_path / "stages" / "evolve.json").write_text(
        json.dumps({"figures": figures}), encoding="utf-8"
    )
    card = write_card(tmp_path).read_text(encoding="utf-8")
    for words in (
        "C, a tanh layer of 40 units that sees z, was evolved by CMA-ES in the real game.",
        "- environment: car-racing\n",
        "at most 2,100 steps, with no end of its own",
        "5,000 game steps (2,500 steps/s, 0.5 core-hours); the mean after generation 2, which "
        "scored 7 in the game, was kept",
        "| the paper: z, with a hidden layer | 100 | 788 +- 141 | - |",
        "Reward, on seeds that nothing was trained on",
        "Ours-v0 (max_steps 1000), seed 5; box2d 2.3.",
        "Theirs-v0 (max_steps 1000)",
        "with its own drawing: -2.0 on average over 1 episodes",
    ):
        assert words in card


def test_a_run_without_a_world_has_no_card(tmp_path):
    with pytest.raises(ValueError, match="no finished world; run the stage `evolve`"):
        write_card(tmp_path)

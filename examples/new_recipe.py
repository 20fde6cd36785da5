"""A recipe of one's own, registered, and run as `worldmodels-fast run` does it.

A recipe is a function that returns the whole configuration of a run. This one is the smoke recipe
with other policies, a smaller M and a colder dream; it takes a minute or two. Options of
`worldmodels-fast run` follow the script's name, and a second call goes on where the first was
stopped.

    python examples/new_recipe.py --folder runs/mine --evolve.generations 3
"""

import dataclasses
import json
import sys
from pathlib import Path

from worldmodels_fast.cli.main import main as command_line
from worldmodels_fast.experiments.config import RunConfig
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe


def roaming_smoke() -> RunConfig:
    """Smoke run whose episodes roam the room, with a small M."""
    base = make_recipe("take-cover-smoke")
    return dataclasses.replace(
        base,
        recipe="roaming-smoke",
        collect=dataclasses.replace(base.collect, policies=("roaming", "held-random")),
        rnn=dataclasses.replace(base.rnn, hidden_dim=32),
        sweep=dataclasses.replace(base.sweep, temperatures=()),
    )


RECIPES["roaming-smoke"] = roaming_smoke


def main() -> None:
    options = sys.argv[1:] if "--folder" in sys.argv else ["--folder", "runs/mine", *sys.argv[1:]]
    if status := command_line(["run", "roaming-smoke", *options]):
        sys.exit(status)
    folder = Path(options[options.index("--folder") + 1])
    scores = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    for player in ("agent", "random"):
        print(f"{player}: {scores[player]['summary']['mean']:.0f} tics in the real game")


if __name__ == "__main__":  # workers import this file, too
    main()

"""The examples run from the command line, with short settings."""

import os
import re
import subprocess
import sys

import pytest
from folders import ROOT

EXAMPLES = ROOT / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("tests are run without the repository's examples", allow_module_level=True)

TINY_RUN = [
    *("--collect.episodes", "4", "--collect.shard-episodes", "2", "--vae.steps", "10"),
    *("--rnn.epochs", "1", "--evolve.generations", "1", "--evolve.eval-rollouts", "8"),
    *("--evaluate.episodes", "1", "--evaluate.random-episodes", "1", "--gap.every", "0"),
    *("--fidelity.policies", "still", "--fidelity.real-episodes", "2"),
    *("--quality.episodes", "2", "--quality.dreams", "2", "--collect.min-steps", "60"),
]
RUNS = {
    "dream_rollout": (["--members", "4", "--rollouts", "4"], r"same to the bit: True\n"),
    "own_loop": (["--dreams", "4", "--steps", "50"], r"they lasted \d+ steps on average\n"),
    "play_the_game": (["--episodes", "1", "--max-steps", "40"], r"seed 0: 40 steps survived\n"),
    "new_recipe": (TINY_RUN, r"agent: \d+ tics in the real game\nrandom: \d+ tics"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RUNS))
def test_example_runs(name, tmp_path):
    options, printed = RUNS[name]
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *options],
        cwd=tmp_path,
        env={**os.environ, "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(printed, done.stdout), done.stdout


def test_every_example_is_run_short_and_listed():
    files = sorted(EXAMPLES.glob("*.py"))
    assert [file.stem for file in files] == sorted(RUNS)
    lists = [EXAMPLES / "README.md", ROOT / "docs" / "reference" / "examples.md"]
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) < 60, file.name
        for page in lists:
            assert file.name in page.read_text(encoding="utf-8"), (file.name, page)

"""The formatters and checkers of pre-commit, so that the tests' command runs them too."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = ["worldmodels_fast", "tests", "benchmarks"]


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    run(sys.executable, "-m", "ruff", "check", *PYTHON)


def test_python_is_formatted():
    run(sys.executable, "-m", "ruff", "format", "--check", *PYTHON)


def test_cpp_is_formatted():
    folders = (ROOT / "csrc", ROOT / "tests" / "cuda")
    kinds = {".cpp", ".h", ".cu", ".cuh"}
    files = [str(p) for d in folders for p in sorted(d.rglob("*")) if p.suffix in kinds]
    assert len(files) > 10
    run(str(Path(sys.executable).with_name("clang-format")), "--dry-run", "--Werror", *files)


@pytest.mark.slow
def test_types_are_strict():
    run(sys.executable, "-m", "mypy")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "csrc/README.md"])
def test_links_lead_somewhere(page):
    """To files that a clone has: whatever git ignores is missing there."""
    path = ROOT / page
    if not path.is_file():
        pytest.skip("tests are run without the repository's pages")
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (path.parent / link).exists()] == []

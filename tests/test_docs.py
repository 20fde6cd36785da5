"""The site: it builds without a warning, is whole, and needs nothing from elsewhere."""

import re
import subprocess
import sys

import pytest
from folders import ROOT

from worldmodels_fast.experiments.pipeline import STAGES

DOCS = ROOT / "docs"
if not (DOCS / "conf.py").is_file():
    pytest.skip("tests are run without the repository's pages", allow_module_level=True)

NOT_IN_THE_API = {"bench", "cli"}
"""Folders that only commands use; `command_line.md` has what users need of them."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built once; names that do not resolve and other warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", DOCS, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_pages_need_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    loaded = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"(?:https?:)?//|<link[^>]*\s"
        r"rel=\"(?:stylesheet|preconnect|preload)\"[^>]*href=\"(?:https?:)?//"
    )
    assert [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    assert [style for style in styles if re.search(r"url\(\s*[\"']?(?:https?:)?//", style)] == []


@pytest.mark.slow
def test_the_api_is_on_the_pages(site):
    def anchors(page):
        return set(
            re.findall(
                r"id=\"(worldmodels_fast[\w.]*)\"", (site / page).read_text(encoding="utf-8")
            )
        )

    assert "worldmodels_fast.dream.dream.Dream.evaluate" in anchors("reference/api/dream.html")
    assert "worldmodels_fast.ops.dream_rollout" in anchors("reference/api/ops.html")
    assert "worldmodels_fast.ops.kernels.dream_rollout" not in anchors("reference/api/ops.html")
    options = (site / "reference" / "options.html").read_text(encoding="utf-8")
    for option in ("--env-kwargs", "--vae.checkpoint-every"):
        assert option in options
    assert "frames in each (paper: 100)" in options
    recipes = (site / "reference" / "recipes.html").read_text(encoding="utf-8")
    assert "car-racing-untrained-m" in recipes
    commands = (site / "reference" / "command_line.html").read_text(encoding="utf-8")
    assert "usage: worldmodels-fast COMMAND" in commands
    assert "usage: worldmodels-fast demo" in commands


def test_every_folder_has_a_page():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Layers")[1]
    folders = re.findall(r"^\d+\. `([a-z_]+)`", text, re.M)
    pages = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (DOCS / "reference/api").glob("*.md")
    }
    assert set(folders) - NOT_IN_THE_API == set(pages)
    assert [name for name, text in pages.items() if f"```{{api}} {name}\n```" not in text] == []


def test_every_file_of_a_run_is_explained():
    page = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    for stage in STAGES.values():
        for file in (*stage.writes, *stage.needs):
            assert f"| `{file}" in page, file

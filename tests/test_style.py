"""The formatters and checkers of pre-commit, so that the tests' command runs them too."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES

ROOT = Path(__file__).parent.parent
PYTHON = ["worldmodels_fast", "tests", "benchmarks", "tools", "docs", "examples"]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """To files that a clone has: whatever git ignores is missing there."""
    text = re.sub(r"^( *)(`{3,}).*?^\1\2", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"<img[^>]*src=\"([^\"]+)", text)
    local = [link for link in links if not re.match(r"https?:|mailto:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "benchmarks/README.md", "csrc/README.md"])
def test_paths_in_pages_are_there(page):
    """Files and folders that a page names in code, in full or by their last parts."""
    path = ROOT / page
    if not path.is_file():
        pytest.skip("tests are run without the repository's pages")
    folders = (
        "csrc",
        "worldmodels_fast",
        "tests",
        "benchmarks",
        "docs",
        "tools",
        "examples",
        ".ci",
    )
    found = [
        *ROOT.glob("*"),
        *(p for f in folders for p in (ROOT / f).rglob("*")),
        *ROOT.glob(".ci"),
    ]
    known = {f"/{p.relative_to(ROOT).as_posix()}{'/' if p.is_dir() else ''}" for p in found}
    named = re.findall(
        r"`([\w./-]+(?:\.(?:py|pyi|h|cpp|cu|cuh|cmake|txt|md)|/))`",
        path.read_text(encoding="utf-8"),
    )
    assert len(named) > 5
    missing = [name for name in named if not any(p.endswith(f"/{name}") for p in known)]
    made_by_a_run = {"world/", "bench.md"}
    assert [n for n in missing if "NAME" not in n and n not in made_by_a_run] == []


def without_encoding(path: Path) -> list[str]:
    """The calls in a file that read or write text in the locale's encoding."""
    found = []
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        of = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        name = ast.unparse(call.func).rpartition(".")[2]
        if name not in ("open", "read_text", "write_text") or of in (
            "os",
            "Image",
            "SharedMemory",
            "webbrowser",
        ):
            continue
        if name != "open" and not of:
            continue  # of `utils.files`
        words = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        modes = [w.value for w in words if isinstance(w, ast.Constant) and name == "open"]
        binary = any(
            "b" in mode for mode in modes if mode in ("rb", "wb", "ab", "r+b", "w+b", "xb")
        )
        if not binary and not any(word.arg == "encoding" for word in call.keywords):
            found.append(f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}")
    return found


def test_text_names_its_encoding():
    """Else it is that of the locale, and a file written here cannot be read there."""
    files = [path for folder in PYTHON for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [call for path in files for call in without_encoding(path)] == []


def test_files_are_written_in_one_place():
    """Whole or not at all, durable, with the umask's permissions: see `utils/files.py`."""
    writes = re.compile(
        r"\.write_text\(|\.write_bytes\(|os\.(replace|rename)\(|savefig\((?!buffer)"
    )
    own = {"utils/files.py", "utils/memory.py", "bench/protocol/memory.py"}  # two of /proc
    package = ROOT / "worldmodels_fast"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert found <= own

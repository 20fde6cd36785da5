"""The code in the repository's pages: Python blocks run, commands are parsed.

A comment right above a block says what is done with it, and why:

    <!-- test: slow: it starts processes -->    runs as a script of its own, among the slow tests
    <!-- test: parse: it needs a GPU -->        is compiled, and its imports are run
    <!-- test: continues -->                    goes on with the names of the block before it

All other Python blocks run here, each in a fresh namespace and a temporary folder.
"""

import ast
import re
import subprocess
import sys

import pytest
import tyro
from folders import ROOT
from pages import PYTHON, SHELL, blocks, blocks_of, commands

from worldmodels_fast.cli.main import main
from worldmodels_fast.experiments.config import save_config
from worldmodels_fast.experiments.recipes.registry import RECIPES, make_recipe

if not (ROOT / "README.md").is_file():
    pytest.skip("tests are run without the repository's pages", allow_module_level=True)


def chains():
    """Return lists of Python blocks: each but the first goes on with the names of those before."""
    found = []
    for block in blocks_of(PYTHON):
        if "continues" in block.marks:
            assert found, f"{block}: there is no block before it"
            assert found[-1][0].page == block.page, f"{block}: there is no block before it"
            found[-1].append(block)
        else:
            found.append([block])
    return found


def marked(chain):
    slow = any("slow" in block.marks for block in chain)
    return pytest.param(chain, id=str(chain[0]), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("chain", [marked(chain) for chain in chains()])
def test_python_runs(chain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if any("slow" in block.marks for block in chain):
        script = tmp_path / "block.py"
        script.write_text("\n".join(block.code for block in chain), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=False, timeout=1200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return
    names = {"__name__": "__main__"}
    for block in chain:
        # The line numbers of errors are those of the page.
        tree = ast.parse("\n" * (block.line - 1) + block.code, block.page)
        if "parse" in block.marks:
            tree.body = [
                node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
        exec(compile(tree, block.page, "exec"), names)


def all_commands():
    found = []
    for block in blocks_of(SHELL):
        for line, words in commands(block):
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                found.append((f"{block.page}:{line}", words))
    return found


def ours():
    for place, words in all_commands():
        if words[0].rpartition("/")[2] == "worldmodels-fast":
            yield pytest.param(words[1:], id=f"{place} {' '.join(words[1:3])}")
        elif words[1:3] == ["-m", "worldmodels_fast"]:
            yield pytest.param(words[3:], id=f"{place} {' '.join(words[3:5])}")


class ParsedError(BaseException):
    """The command line was understood; nothing is run."""


def parse(args, monkeypatch):
    """Parse a command as `worldmodels-fast` does, in the working directory, and run nothing."""
    real = tyro.cli

    def parse_only(*positional, **named):
        real(*positional, **named)
        raise ParsedError

    monkeypatch.setattr(tyro, "cli", parse_only)
    if args == ["doctor"]:  # it has no arguments
        return 0
    try:
        return main(args)
    except ParsedError:
        return 0


@pytest.mark.parametrize("args", list(ours()))
def test_commands_are_parsed(args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    named = next((arg for arg in args if arg in RECIPES), None)
    for arg in args:  # runs that a command goes on with
        if found := re.match(r"(?:--\w+=)?runs/([\w-]+)(/world)?$", arg):
            folder = tmp_path / "runs" / found[1]
            recipe = found[1] if found[1] in RECIPES else named or "take-cover-quick"
            save_config(make_recipe(recipe), folder / "config.json")
            if found[2]:
                (folder / "world").mkdir(exist_ok=True)
                (folder / "world" / "initial_latents.safetensors").touch()
    status = parse(args, monkeypatch)
    assert status == 0, capsys.readouterr().err


def test_scripts_of_commands_are_there():
    scripts = [
        (place, word)
        for place, words in all_commands()
        if words[0].rpartition("/")[2].startswith("python")
        for word in words[1:2]
        if word.endswith(".py") and "/" in word
    ]
    assert len(scripts) > 3
    assert [found for found in scripts if not (ROOT / found[1]).is_file()] == []


def test_there_are_blocks_of_both_kinds():
    assert len(chains()) >= 5
    assert len(list(ours())) > 10


def test_a_wrong_command_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for args in (["run", "take-cover-quik"], ["run", "take-cover-quick", "--vae.stepz", "3"]):
        assert parse(args, monkeypatch) == 2
    assert parse(["run", "take-cover-quick", "--vae.steps", "3"], monkeypatch) == 0
    assert list(tmp_path.iterdir()) == []


def test_blocks_are_found_by_their_fences():
    text = (
        "```python\na = 1\n```\n\n<!-- test: slow: why -->\n  ~~~~py\n  b\n  ~~~~\n"
        "```text\nworldmodels-fast\n```\n"
    )
    first, second = blocks("p.md", text, PYTHON)
    assert (first.line, first.code, first.marks) == (2, "a = 1\n", ())
    assert (second.line, second.code, second.marks) == (7, "b\n", ("slow",))
    with pytest.raises(ValueError, match=r"p.md:1: expected one of slow, parse, continues, got"):
        list(blocks("p.md", "<!-- test: skip -->\n```python\n```\n", PYTHON))
    with pytest.raises(ValueError, match=r"p.md:2: a comment for tests above no block"):
        list(blocks("p.md", "<!-- test: slow -->\ntext\n", PYTHON))
    (shell,) = blocks("p.md", "```sh\nx -a \\\n  b  # c\nA=1 y && z; w\n```\n", SHELL)
    assert list(commands(shell)) == [
        (2, ["x", "-a", "b"]),
        (4, ["A=1", "y"]),
        (4, ["z"]),
        (4, ["w"]),
    ]

"""The Python of README and docs, run as it stands, in an empty folder, as a script without a main guard."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUOTED = "# from "
"""How a block begins that shows lines of a file of the repository, which has tests of its own."""
DATA = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page, re.S)


def test_quoted_lines_are_those_of_the_file():
    (block,) = (block for block in python_blocks(README) if block.startswith(QUOTED))
    first, *lines = block.splitlines()
    quoted = [line.strip() for line in (ROOT / first.removeprefix(QUOTED)).read_text().splitlines()]
    assert set(map(str.strip, lines)) <= set(quoted)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), [(README, 3), (DATA, 2)], ids=["README", "data"])
def test_the_python_examples_run_in_order(page, number, tmp_path):
    blocks = [block for block in python_blocks(page) if not block.startswith(QUOTED)]
    assert len(blocks) == number
    # Compiled for speed, unlike the other tests, as in a user's hands.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    for i, block in enumerate(blocks):
        script = tmp_path / f"example{i}.py"
        script.write_text(block, encoding="utf-8")
        command, options = [sys.executable, script.name], {"capture_output": True, "text": True, "timeout": 300}
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, **options)
        assert done.returncode == 0, done.stderr


def test_a_policys_first_action_takes_five_lines():
    first_action = next(block for block in python_blocks(README) if "load_policy" in block).strip().splitlines()
    assert len([line for line in first_action if line and not line.startswith("import numpy")]) <= 5


def test_every_command_that_the_readme_names_exists():
    from guidedflow.cli import COMMANDS

    named = {match.removesuffix(" ") for match in re.findall(r"`guidedflow ((?:(?:data|study) )?[a-z]+)", README)}
    assert named == set(COMMANDS)


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name
)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_constraints_name_no_index_and_pin_everything():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9A-Za-z.+]+", line) for line in lines)

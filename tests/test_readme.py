"""The code of README and docs, run in an empty folder; Python as it stands, as a script without a main guard."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import guidedflow, optimized

from guidedflow.cli import COMMANDS

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
def test_the_python_examples_run_in_order(tmp_path):
    blocks = [block for block in python_blocks(README) if not block.startswith(QUOTED)]
    assert len(blocks) == 3
    for block in blocks:
        run_python(block, tmp_path, optimized())


def run_python(block, folder, environment):
    script = folder / "example.py"
    script.write_text(block, encoding="utf-8")
    command, options = [sys.executable, script.name], {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, **options)
    assert done.returncode == 0, done.stderr


def run_command(line, folder, environment):
    """What a command prints; training and assessing take fewer steps and smaller networks than the page says."""
    program, command, *words = shlex.split(line)
    assert program == "guidedflow"
    small = SMALL.get(command, [])
    learns = command in ("train", "assess", "export")
    done = guidedflow(command, *words, *small, small=learns, cwd=folder, env=environment, timeout=600)
    assert done.returncode == (2 if "problem: " in done.stderr else 0), f"{line}\n{done.stderr}"
    return done.stdout + done.stderr


SMALL = {
    "train": ["--steps", "2", "--log-every", "1", "--hidden", "8", "--batch-size", "8", "--eval-every", "2"],
    "assess": ["--steps", "1"],
    "evaluate": ["--workers", "1"],
}
SECTIONS = {part.partition("\n")[0]: part for part in DATA.split("\n## ")[1:]}
RUN = ["A robot arm with two cameras", "A Minari set", "Arrays in memory", "Dictionaries"]


def test_every_section_of_the_data_page_that_has_code_is_run():
    assert [heading for heading, section in SECTIONS.items() if re.search(r"```(python|sh)\n", section)] == RUN


@pytest.mark.slow
@pytest.mark.parametrize("heading", RUN)
def test_the_code_of_the_data_page_runs_in_order(heading, tmp_path):
    if "lerobot/my-arm" in SECTIONS[heading]:
        robots = pytest.importorskip("robots", reason="needs pyarrow and av")
        robots.write_lerobot(tmp_path / "lerobot" / "my-arm", (12, 10, 14, 9))
    environment, printed = {**os.environ, "COLUMNS": "100"}, ""
    for language, block in re.findall(r"```(\w+)\n(.*?)```", SECTIONS[heading], re.S):
        if language == "python":
            run_python(block, tmp_path, environment)
        elif language == "sh":
            printed = "".join(run_command(line, tmp_path, environment) for line in block.splitlines())
        else:
            lines = [line.rstrip() for line in printed.splitlines()]
            assert [line for line in block.splitlines() if line not in lines] == []


def test_a_policys_first_action_takes_five_lines():
    first_action = next(block for block in python_blocks(README) if "load_policy" in block).strip().splitlines()
    assert len([line for line in first_action if line and not line.startswith("import numpy")]) <= 5


def test_every_command_that_the_readme_names_exists():
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

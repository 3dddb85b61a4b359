"""Plans to begin with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from guidedflow.errors import RunError, SettingsError
from guidedflow.suites import tasks

Template = Literal["laptop", "published"]
AGENTS = ("gfp", "fql", "rebrac", "iql", "bc")
"""Of the laptop's plan; the published one has IFQL as well."""
FAMILIES = ("cube-single-noisy", "cube-single-play", "scene-play", "puzzle-3x3-play")
ADROIT = "pen-expert-v1"

LAPTOP = """\
# Carried out by `guidedflow study run {name}`, which also continues it after any failure. See docs/studies.md.
runs = "runs/laptop"
retries = 2

[resources]  # of each job
cpus = 2
memory_gb = 4

[data]  # Made where it is missing: by scripted oracles{maker}.
{recipes}
[[jobs]]
tasks = [
{tasks}]
agents = [{agents}]
seeds = [0, 1, 2]
preset = "quick"
"""
PUBLISHED = """\
# The published table: every task, by six algorithms. `guidedflow study run {name}` carries it out, and continues it
# after any failure. See docs/studies.md; docs/reproduction.md says what it costs.
runs = "runs/published"
retries = 2

[resources]  # of each job, which trains all of its seeds at once
cpus = 4
gpus = 1
memory_gb = 32

[data]
"*" = "fetch"
"""
BLOCK = """
[[jobs]]
tasks = [{tasks}]
agents = [{agents}]
seeds = [{seeds}]
preset = "published"
settings = {{ steps = {steps:_} }}
"""


def write_plan(template: Template, path: Path, policy: Path | None = None) -> Path:
    """Write a plan to begin with.

    Args:
        template: ``laptop``: four manipulation tasks by five algorithms, small networks; ``published``: the whole
            published table.
        path: the new file.
        policy: weights of Adroit's expert on pen, which adds ``pen-expert-v1`` to the laptop's plan.

    Raises:
        SettingsError: the file exists, or a policy is given for another plan.
        RunError: it cannot be written.
    """
    if template == "published":
        if policy is not None:
            raise SettingsError(f"policy: expected none for the plan published, found {policy}")
        text = PUBLISHED.format(name=path) + "".join(_published_blocks())
    else:
        text = _laptop(path, policy)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise SettingsError(f"{path}: expected a new file, found one there; name another, or remove it") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _laptop(path: Path, policy: Path | None) -> str:
    chosen = [f"{family}-singletask-task1-v0" for family in FAMILIES] + ([ADROIT] if policy else [])
    recipes = [f'"{family}" = {{ episodes = 300 }}\n' for family in FAMILIES]
    recipes += [f'"{ADROIT}" = {{ policy = {_quoted([str(policy.absolute())])} }}\n'] if policy else []
    return LAPTOP.format(
        name=path,
        maker=", pen from its expert's weights" if policy else "",
        recipes="".join(recipes),
        tasks="".join(f"  {_quoted([task])},\n" for task in chosen),
        agents=_quoted(AGENTS),
    )


def _published_blocks() -> list[str]:
    """One for each category, whose tasks share steps and seeds."""
    categories = {}
    for task in tasks():
        protocol = task.suite.protocol(task)
        if protocol is not None:
            categories[task.category] = protocol
    groups: dict[tuple[int, int], list[str]] = {}
    for category, protocol in categories.items():
        groups.setdefault((protocol.steps, protocol.seeds), []).append(category)
    agents = (*AGENTS[:-1], "ifql", AGENTS[-1])
    return [
        BLOCK.format(
            tasks="\n" + "".join(f"  {_quoted([category])},\n" for category in found),
            agents=_quoted(agents),
            seeds=", ".join(map(str, range(seeds))),
            steps=steps,
        )
        for (steps, seeds), found in groups.items()
    ]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in names)

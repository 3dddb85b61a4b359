"""Plans to begin with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from guidedflow.errors import RunError, SettingsError
from guidedflow.suites import tasks

Template = Literal["laptop", "laptop-sweep", "published"]
AGENTS = ("gfp", "fql", "rebrac", "iql", "bc")
"""Of the laptop's plan; the published one has IFQL as well."""
ADROIT = "pen-expert-v1"
SWEPT = {"gfp": (1, 10, 100), "fql": (30, 300, 3000), "rebrac": (0.01, 0.1, 1), "iql": (0.1, 1, 10)}
"""Values of alpha that are tried on every task: three each, ten times apart, about what the papers' authors chose."""
CHOSEN: dict[str, dict[str, float]] = {
    "cube-single-noisy": {"gfp": 10, "fql": 30, "rebrac": 0.1, "iql": 1},
    "cube-single-play": {"gfp": 10, "fql": 300, "rebrac": 0.1, "iql": 0.1},
    "scene-play": {"gfp": 10, "fql": 300, "rebrac": 1, "iql": 0.1},
    "puzzle-3x3-play": {},
    ADROIT: {"gfp": 10, "fql": 3000, "rebrac": 0.1, "iql": 10},
}
"""By data: the value that was best there on a seed of its own (docs/results-laptop). Where none was sought yet, the
papers' stand, or the algorithm's own where a paper has none."""

LAPTOP = """\
# {what} `guidedflow study run {name}`
# carries it out, and continues it after any failure. See docs/studies.md.
runs = "runs/{template}"
retries = 2

[resources]  # of each job
cpus = 1
memory_gb = 4

[data]  # Made where it is missing: by scripted oracles{maker}.
{recipes}"""
LAPTOP_BLOCK = """
[[jobs]]
tasks = [{tasks}]
agents = [{agents}]
seeds = [{seeds}]
preset = "quick"
{settings}"""
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
        template: ``laptop``: four manipulation tasks by five algorithms, small networks; ``laptop-sweep``: the runs by
            which the former's values of alpha were chosen; ``published``: the whole published table.
        path: the new file.
        policy: weights of Adroit's expert on pen, which adds ``pen-expert-v1`` to the laptop's plans.

    Raises:
        SettingsError: the file exists, or a policy is given for another plan.
        RunError: it cannot be written.
    """
    if template == "published":
        if policy is not None:
            raise SettingsError(f"policy: expected none for the plan published, found {policy}")
        text = PUBLISHED.format(name=path) + "".join(_published_blocks())
    else:
        text = _laptop(template, path, policy)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise SettingsError(f"{path}: expected a new file, found one there; name another, or remove it") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _laptop(template: Template, path: Path, policy: Path | None) -> str:
    chosen = [data for data in CHOSEN if policy or data != ADROIT]
    recipes = dict.fromkeys(chosen, "episodes = 300")
    if policy:
        recipes[ADROIT] += f", policy = {_quoted([str(policy.absolute())])}"
    is_sweep = template == "laptop-sweep"
    head = LAPTOP.format(
        what="Which alpha suits which task, on a seed of its own." if is_sweep else "Five algorithms, equal updates.",
        name=path,
        template=template,
        maker=", pen from its expert's weights" if policy else "",
        recipes="".join(f'"{data}" = {{ {recipe} }}\n' for data, recipe in recipes.items()),
    )
    return head + "".join(_sweep_blocks(chosen) if is_sweep else _laptop_blocks(chosen))


def _sweep_blocks(chosen: Sequence[str]) -> list[str]:
    return [
        _block(chosen, agent, [100], f"settings = {{ steps = 10_000 }}\nsweep = {{ alpha = {list(values)} }}\n")
        for agent, values in SWEPT.items()
    ]


def _laptop_blocks(chosen: Sequence[str]) -> list[str]:
    """One for each algorithm and value."""
    groups: dict[tuple[str, float | None], list[str]] = {}
    for agent in AGENTS:
        for data in chosen:
            groups.setdefault((agent, CHOSEN[data].get(agent)), []).append(data)
    return [
        _block(found, agent, [0, 1, 2], f"settings = {{ alpha = {alpha} }}\n" if alpha is not None else "")
        for (agent, alpha), found in groups.items()
    ]


def _block(chosen: Sequence[str], agent: str, seeds: Sequence[int], settings: str) -> str:
    return LAPTOP_BLOCK.format(
        tasks="".join(f"\n  {_quoted([task])}," for task in map(_first_task, chosen)) + "\n",
        agents=_quoted([agent]),
        seeds=", ".join(map(str, seeds)),
        settings=settings,
    )


def _first_task(data: str) -> str:
    return data if data == ADROIT else f"{data}-singletask-task1-v0"


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

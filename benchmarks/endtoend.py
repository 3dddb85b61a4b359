"""What ``make train`` takes, phase by phase, without make.

    python -m benchmarks.endtoend                              as long as make train
    python -m benchmarks.endtoend --episodes 10 --steps 2500   shortened

| phase | seconds |
|---|---|
| help | of ``guidedflow --help`` |
| install | to make a fresh environment (with ``--install``; needs make and a package index) |
| data | of ``guidedflow data generate`` |
| first update cold, warm | from training's start through its first update, JAX's compilation cache empty, filled |
| start | of the training: imports, data, networks, environments |
| compile | what the first update takes longer than the others |
| updates | all updates, less that |
| evaluation | |
| rest | checkpoints, records, curves |
| total | data and training, cache empty |

Processes are timed from outside, what happens within training by its progress reports.
"""

import contextlib
import dataclasses
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.common import TASK, apart, elapsed, parse, report, run, say, spread
from guidedflow.agents import find_agent
from guidedflow.settings import Count, CountOrZero, Sizes
from guidedflow.suites import find_task
from guidedflow.suites.ogbench.recipes import recipe

Report = tuple[float, str, int, float]
"""When training reported, its phase and step, and the updates a second of its last call."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure the way from nothing to a result."""

    task: str = TASK
    """What is learned."""
    agent: str = "gfp"
    """The algorithm."""
    episodes: Count = 100
    """Training episodes that are generated."""
    steps: Count | None = None
    """Gradient steps; None: the quick preset's."""
    eval_episodes: CountOrZero | None = None
    """Episodes an evaluation; None: the quick preset's."""
    hidden: Sizes | None = None
    """Hidden layer sizes; None: the quick preset's."""
    log_every: Count | None = None
    """Updates a row of metrics, which must divide ``steps``; None: the quick preset's."""
    install: bool = False
    """Make an environment as well, as ``make env`` does."""
    starts: Count = 3
    """How often the way to the first update is measured, each way; once it goes on to the end."""
    repeats: Count = 1
    """How often everything is."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    find_agent(arguments.agent)
    family = find_task(arguments.task).dataset
    recipe(family)  # Before anything is measured: can its data be made?
    names = ("agent", "steps", "eval_episodes", "hidden", "log_every")
    settings = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    phases: dict[str, list[float]] = {"help": [_command("--help") for _ in range(5)]}
    if arguments.install:
        say("install")
        phases["install"] = [install() for _ in range(arguments.repeats)]
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            say("data")
            words = ("data", "generate", family, "--episodes", arguments.episodes)
            data = _command(*words, "--seed", 0, "--data-dir", folder)
            for number in range(arguments.starts):
                # The first of the cold starts goes on to the end.
                for name, calls in (("first update cold", 2 if number else None), ("first update warm", 2)):
                    say(f"{name} {number + 1}")
                    found = training(arguments, folder, f"{folder}/cache-{number}", settings, calls)
                    phases.setdefault(name, []).append(found["start"] + found["compile"])
                    if calls is None:
                        whole = found
            whole = {"data": data, **whole, "total": data + sum(whole.values())}
            for name, seconds in whole.items():
                phases.setdefault(name, []).append(seconds)
    rows = [{"phase": name, "seconds": spread(seconds)} for name, seconds in phases.items()]
    report(vars(arguments), rows)


def _command(*words: Any) -> float:
    """Seconds of a guidedflow command."""
    command = [sys.executable, "-m", "guidedflow", *map(str, words)]
    return elapsed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def install() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = ["make", "env", f"VENV={folder}/venv", f"PYTHON={sys.executable}"]
        return elapsed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def training(
    arguments: Arguments, folder: str, cache: str, settings: dict[str, Any], calls: int | None
) -> dict[str, float]:
    """Seconds of each part of a run in a process of its own, which ends after some calls for updates, or at the end."""
    with tempfile.TemporaryDirectory() as runs:
        began = time.monotonic()
        reports = apart(
            train,
            *(arguments.task, folder, f"{runs}/run", settings, calls),
            environment={"JAX_COMPILATION_CACHE_DIR": cache},
        )
        total = time.monotonic() - began
    return split(began, total, reports)


def split(began: float, total: float, reports: list[Report]) -> dict[str, float]:
    """The parts that make up a run of ``total`` seconds. Its first call makes one update, and compiles."""
    pairs = list(itertools.pairwise(reports))
    first, *others = [(before, after) for before, after in pairs if after[2] > before[2]]
    calls = [((after[2] - before[2]), after[3]) for before, after in others]
    update = statistics.median(1 / rate for _, rate in calls)
    found = {"start": reports[0][0] - began, "compile": first[1][0] - first[0][0] - update}
    found["updates"] = update + sum(count / rate for count, rate in calls)
    found["evaluation"] = sum(after[0] - before[0] for before, after in pairs if before[1] == "evaluating")
    return {**found, "rest": total - sum(found.values())}


class Enough(BaseException):  # No Exception: after one, the run would be saved first.
    """Ends a training."""


class Follower:
    """Collects a training's reports, and ends it after so many calls for updates, if any number is given."""

    def __init__(self, calls: int | None):
        self.reports: list[Report] = []
        self._calls = calls

    def on_progress(self, progress: Any) -> None:
        """One report more, which may be the last."""
        self.on_evaluation(progress)
        if self._calls is not None and len({step for _, _, step, _ in self.reports if step}) == self._calls:
            raise Enough

    def on_evaluation(self, progress: Any) -> None:
        """One report more."""
        self.reports.append((time.monotonic(), progress.phase, progress.step, progress.updates_per_second))


def train(task: str, data_dir: str, run_dir: str, settings: dict[str, Any], calls: int | None) -> list[Report]:
    import guidedflow

    follower, folders = Follower(calls), {"data_dir": data_dir, "run_dir": run_dir}
    with contextlib.suppress(Enough):
        guidedflow.train(task, preset="quick", **folders, callbacks=[follower], progress=False, **settings)
    return follower.reports


if __name__ == "__main__":
    run(main)

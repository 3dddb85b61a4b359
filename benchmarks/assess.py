"""Does the ranking of `guidedflow assess` agree with what the policies reach in their environment?

    for agent in fql rebrac iql; do
        guidedflow train cube-single-noisy-singletask-task1-v0 --agent $agent --preset quick --steps 6000 \\
            --eval-every 3000 --save-every 3000 --eval-episodes 25 --run-dir ranked/$agent
    done
    python -m benchmarks.assess ranked/*

Takes runs of one task. Each policy of each checkpoint that was evaluated is assessed, on the data that it learned from
and on the task's validation file; the ranking is compared with that by success and by return. Runs are not changed.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from tyro.conf import Positional

from benchmarks.common import parse, report, run, say
from guidedflow.errors import SettingsError
from guidedflow.runs.config import RunConfig
from guidedflow.settings import Count
from guidedflow.suites import find_task
from guidedflow.training.assess import Setup, assess_run
from guidedflow.training.restore import SavedRun

TRUTH = ("success", "mean_return")
FOUND = ("value", "action_error", "least_action_error")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare rankings."""

    runs: Positional[tuple[Path, ...]]
    """Folders of runs of one task, trained on its own data."""
    steps: Count = 10_000
    """Updates of each policy's critic."""
    json: bool = False
    """Print JSON, of the policies alone, instead of two tables."""


def main() -> None:
    arguments = parse(Arguments)
    configs = [RunConfig.read(path) for path in arguments.runs]
    if len({(config.task, config.data.source, config.data.is_own) for config in configs}) != 1 or not configs[0].task:
        raise SettingsError("runs: expected runs of one task on the same data of its own, found others")
    task, path = find_task(configs[0].task), Path(configs[0].data.source)
    validation = task.suite.validation_file(task, path)
    files = {"training": path, **({} if validation is None else {"validation": validation})}
    policies, correlations = [], []
    for part, file in files.items():
        data, rows, began = task.suite.load(task, file), [], time.perf_counter()
        for folder in arguments.runs:
            say(f"assessing {folder} on the {part} data")
            rows += assessed(SavedRun(folder), data, arguments.steps)
        if not rows:
            raise SettingsError("runs: expected checkpoints that were evaluated, found none: save_every and eval_every")
        seconds = (time.perf_counter() - began) / len(rows)
        policies += [{"data": part, **row} for row in rows]
        correlations.append({"data": part, "policies": len(rows), **correlated(rows), "seconds_per_policy": seconds})
    settings = {"steps": arguments.steps, "json": arguments.json}
    report(settings, policies, markdown=True)
    if not arguments.json:
        report(settings, correlations, markdown=True)


def assessed(saved: SavedRun, data: Any, steps: int) -> list[dict[str, Any]]:
    """Each policy of each evaluated checkpoint: what recorded data says of it beside what its evaluation found."""
    named = ("step", "variant", "seed", "policy")
    truth = {
        tuple(row[name] for name in named): row for row in saved.folder.evaluations() if row["source"] == "training"
    }
    with saved.checkpoints() as checkpoints:
        there = [step for step in checkpoints.steps() if step in {key[0] for key in truth}]
    setup = Setup(steps, getattr(saved.algorithm, "discount", 0.99))
    rows = [row for step in there for row in assess_run(saved, data, setup, checkpoint=step, progress=False)]
    return [
        {"agent": saved.config.agent, "policy": row["policy"], "step": row["step"], "seed": row["seed"]}
        | {name: truth[tuple(row[one] for one in named)][name] for name in TRUTH}
        | {name: row[name] for name in (*FOUND, "at_limits")}
        for row in rows
    ]


def correlated(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of what assess finds with the truth; of errors, the smaller the better."""
    found = {}
    for truth in TRUTH:
        for name in FOUND:
            pairs = [(row[name] if name == "value" else -row[name], row[truth]) for row in rows]
            is_ranked = all(len(set(values)) > 1 for values in zip(*pairs, strict=True))
            found[f"{name} with {truth}"] = float(stats.spearmanr(pairs).statistic) if is_ranked else math.nan
    return found


if __name__ == "__main__":
    run(main)

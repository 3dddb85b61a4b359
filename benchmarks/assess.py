"""Does the ranking of `guidedflow assess` agree with what the policies reach in their environment?

    nice python -m benchmarks.assess --folder FOLDER

Trains every agent for every budget with the quick preset, and evaluates at the half and at the end, where the two
checkpoints are; runs that are in the folder already are taken as they are. Then each policy of each checkpoint is
assessed, on the task's validation file and on the data that it learned from, and ranked beside its success and return.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

import guidedflow as gf
from benchmarks.common import TASK, parse, report, run, say
from guidedflow.settings import Count
from guidedflow.suites import find_task

TRUTH = ("success", "mean_return")
FOUND = ("value", "action_error", "least_action_error")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare rankings."""

    folder: Path
    """Where the runs are made, or are already."""
    agents: tuple[str, ...] = ("gfp", "fql", "rebrac", "iql", "bc")
    """Names of the agents."""
    budgets: tuple[int, ...] = (4_000, 12_000)
    """Gradient steps of the runs, multiples of 500."""
    episodes: Count = 25
    """Of each evaluation."""
    fqe_steps: Count = 10_000
    """Updates of each policy's critic."""
    data_dir: Path | None = None
    """Where the data is; None: $GUIDEDFLOW_DATA or ~/.guidedflow/data."""
    each: bool = False
    """Print each policy's figures instead of the correlations."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    path = find_task(TASK).suite.find_data(find_task(TASK), arguments.data_dir)
    data = {"validation": path.with_name(f"{path.stem}-val.npz"), "training": path}
    policies: dict[str, list[dict[str, Any]]] = {part: [] for part in data}
    seconds = dict.fromkeys(data, 0.0)
    for agent in arguments.agents:
        for steps in arguments.budgets:
            folder = trained(arguments, agent, steps)
            for part in data:
                say(f"assessing {folder} on the {part} data")
                began = time.perf_counter()
                policies[part] += assessed(folder, part, arguments)
                seconds[part] += time.perf_counter() - began
    settings = {"fqe_steps": arguments.fqe_steps, "episodes": arguments.episodes, "json": arguments.json}
    if arguments.each:
        report(settings, [{"data": part, **row} for part, rows in policies.items() for row in rows], markdown=True)
        return
    correlations = [
        {"data": part, "policies": len(rows), **correlated(rows), "seconds_per_policy": seconds[part] / len(rows)}
        for part, rows in policies.items()
    ]
    report(settings, correlations, markdown=True)


def trained(arguments: Arguments, agent: str, steps: int) -> Path:
    """The folder of a run, which is made if it is not there."""
    folder = arguments.folder / f"{agent}-{steps}"
    if not (folder / "summary.json").exists():
        say(f"training {folder}")
        half = steps // 2
        gf.train(
            TASK,
            agent=agent,
            preset="quick",
            data_dir=arguments.data_dir,
            run_dir=folder,
            validation="own",
            steps=steps,
            eval_every=half,
            save_every=half,
            eval_episodes=arguments.episodes,
        )
    return folder


def assessed(folder: Path, part: str, arguments: Arguments) -> list[dict[str, Any]]:
    """Each policy of each checkpoint: what was found on recorded data, beside what its evaluation found."""
    truth = {(row["step"], row["policy"]): row for row in gf.RunFolder(folder).evaluations()}
    task = find_task(TASK)
    path = task.suite.find_data(task, arguments.data_dir)
    dataset = None if part == "validation" else task.suite.load(task, path)
    rows = gf.assess(folder, dataset=dataset, data_dir=arguments.data_dir, steps=arguments.fqe_steps)
    return [
        {"agent": folder.name.partition("-")[0], "policy": row["policy"], "step": row["step"]}
        | {name: truth[row["step"], row["policy"]][name] for name in TRUTH}
        | {name: row[name] for name in FOUND}
        for row in rows
    ]


def correlated(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of what assess finds with the truth; of errors, the other way round."""
    found = {}
    for truth in TRUTH:
        for name in FOUND:
            sign = 1 if name == "value" else -1
            result = stats.spearmanr([sign * row[name] for row in rows], [row[truth] for row in rows])
            found[f"{name} with {truth}"] = float(result.statistic)
    return found


if __name__ == "__main__":
    run(main)

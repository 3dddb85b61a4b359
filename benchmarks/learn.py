"""Does it still learn: GFP and FQL with the quick preset, two seeds each, and no success below its floor.

    make learn

Makes 100 episodes of data if they are not there, trains (about 13 minutes on two cores) and ends with exit code 1 if a
policy falls below its floor. A floor is the lower end of the 95% prediction interval for a mean of as many seeds, from
the runs of docs/benchmarks.md ("Mixed precision or float32"): mean - t s sqrt(1/2 + 1/n), over n seeds of standard
deviation s; never above 98%, two failures in 100 episodes.
"""

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

import guidedflow as gf
from benchmarks.common import TASK, parse, report, run
from guidedflow.settings import Count
from guidedflow.suites import find_task, generate

MEASURED = {
    ("gfp", "actor"): (94, 94, 94, 90, 86, 98, 94, 88, 84, 82),
    ("gfp", "vabc"): (94, 88, 86, 90, 94, 90, 94, 88, 88, 90),
    ("fql", "actor"): (100, 98, 100, 100, 100),
}
"""Success in percent, a seed each, with the quick preset as it is."""
HIGHEST = 98.0


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train, and compare with the floors."""

    agents: tuple[str, ...] = ("gfp", "fql")
    """Names of the agents; only of these are floors known."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of each."""
    steps: Count | None = None
    """Gradient steps; None: the quick preset's, for which the floors are."""
    data_dir: Path | None = None
    """Where the data is or is put; None: $GUIDEDFLOW_DATA or ~/.guidedflow/data."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    generate(find_task(TASK).dataset, data_dir=arguments.data_dir, episodes=100)
    steps = {} if arguments.steps is None else {"steps": arguments.steps, "eval_every": arguments.steps}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for agent in arguments.agents:
            trained = gf.train(
                TASK,
                agent=agent,
                preset="quick",
                seeds=arguments.seeds,
                data_dir=arguments.data_dir,
                run_dir=Path(folder, agent),
                **steps,  # type: ignore[arg-type]
            )
            rows += compared(agent, trained.results)
    report({"seeds": arguments.seeds, "json": arguments.json}, rows)
    if any(row["verdict"] == "below" for row in rows):
        sys.exit(1)


def compared(agent: str, results: Sequence[Any]) -> list[dict[str, Any]]:
    """A row for each policy that has a floor."""
    rows = []
    for (name, policy), measured in MEASURED.items():
        found = [100 * row["success"] for row in results if row["policy"] == policy]
        if name == agent:
            least, success = floor(measured, len(found)), statistics.mean(found)
            verdict = "reached" if success >= least else "below"
            rows.append({"agent": agent, "policy": policy, "success": success, "floor": least, "verdict": verdict})
    return rows


def floor(measured: Sequence[float], seeds: int) -> float:
    """The success that a mean over so many seeds falls short of once in forty times."""
    n, quantile = len(measured), stats.t.ppf(0.975, len(measured) - 1)
    lower = statistics.mean(measured) - quantile * statistics.stdev(measured) * (1 / seeds + 1 / n) ** 0.5
    return float(min(lower, HIGHEST))


if __name__ == "__main__":
    run(main)

"""Writes docs/reproduction.md: the commands that would reproduce the published table, what they cost, what was done.

    python -m benchmarks.reproduction > docs/reproduction.md

Rates and results are those of docs/benchmarks.md, steps and seeds those of the published protocol.
"""

import re
from pathlib import Path

from benchmarks import laptop
from guidedflow.agents import AGENTS
from guidedflow.results import published
from guidedflow.results.table import Table
from guidedflow.suites import Task, tasks
from guidedflow.suites.suite import Protocol
from guidedflow.training.settings import resolve

BENCHMARKS = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RATE_ROWS = {"gfp": "GFP", "fql": "FQL", "rebrac": "ReBRAC", "iql": "IQL"}
HEAD = """\
# Reproducing the published table

Made by `python -m benchmarks.reproduction > docs/reproduction.md`; a test compares the two.

One row for each of the 27 categories. The runs of an AGENT on a category, and their report, are made by

```sh
for task in TASKS; do guidedflow data fetch "$task"; done
for task in TASKS; do guidedflow train "$task" --agent AGENT --preset published --seeds 0 1 2 3 4 5 6 7; done
guidedflow report runs --out report
```

with the row's tasks for TASKS (in braces, as bash expands them), and seeds 0 to 3 where pixels are seen. GFP's two
policies come from the same runs. Data made by `guidedflow data generate` is not comparable.

- **Updates**: tasks x seeds x steps, for each agent.
- **H200**: updates divided by {gpu_rate:,.0f} a second, GFP's with eight seeds at once on one NVIDIA H200
  ([benchmarks.md](benchmarks.md#on-a-gpu)); the other agents were not measured there.
- **2 CPU cores**: updates divided by the rates in [benchmarks.md](benchmarks.md) ({rates}
  updates a second); seeds train one after the other there. Evaluations are not counted. The rates were taken with 28
  observed and 5 action dimensions and networks of 512 x 4, while IQL's published network is half as wide, and GFP's
  tuned target `mean` integrates the flow more often than the measured `actor`. So these are orders of magnitude.
- -: the published table has no such figure. (d): nobody published settings of the agent for some of the data, so its
  defaults are used, and the row does not repeat what was published. (s): add `--steps 500000`; the defaults have more.

| category | tasks | updates | gfp, H200 | {heads} |
|---|---|---|---|{rules}|
"""

DONE = """
The five pixel tasks (`visual-manipulation`) train and are evaluated here, but nobody has measured how fast.

## What has been reproduced so far

None of the 27 categories, by any agent: nothing has been trained with the published settings on the published data.
What was run is far smaller and may not be compared with the published figures; `guidedflow report` says so of it.

**The laptop's study** ([results-laptop](results-laptop/README.md)): preset `quick`, 20,000 steps instead of 1,000,000
(pen: 500,000), networks of 256 x 3, 300 episodes of data made here instead of the published data, 50 episodes an
evaluation, one evaluation instead of the mean of three, 3 seeds instead of 8, the first of a family's five tasks, and
an alpha of each algorithm that a small sweep chose. Mean and 95% interval over the seeds, beside the published figure
of the same task:

| category | task | policy | here | published |
|---|---|---|---|---|
{laptop}
{curves}
**door-human-v1**, the quick preset of the time: 25,000 steps instead of 500,000, one seed: score 0.0 for the actor and
for VaBC (published: {door:.2f} and {door_vabc:.1f}).
"""


def rates() -> dict[str, float]:
    """Updates a second on two cores, by agent."""
    found, table = {}, BENCHMARKS.partition("## Update rate")[2]
    for agent, name in RATE_ROWS.items():
        row = re.search(rf"^\| {name} \| ([\d.]+) \[", table, re.M)
        if row is None:
            raise SystemExit(f"docs/benchmarks.md: expected a row with the update rate of {agent}, found none")
        found[agent] = float(row[1])
    return found


def gpu_rate() -> float:
    """Seeds' updates of GFP a second on a GPU, eight seeds at once."""
    row = re.search(
        r"^\| tensorfloat32 \| 8 \|(?:[^|]*\|){2} ([\d,]+) \|", BENCHMARKS.partition("## On a GPU")[2], re.M
    )
    if row is None:
        raise SystemExit("docs/benchmarks.md: expected a row with the rate of 8 seeds on a GPU, found none")
    return float(row[1].replace(",", ""))


def braces(chosen: list[Task]) -> str:
    """The tasks as bash's brace expansion writes them."""
    ids = [task.id for task in chosen]
    numbered = {re.sub(r"task\d", "task{1..5}", name) for name in ids}
    if len(numbered) == 1 and len(ids) == 5:
        return f"`{numbered.pop()}`"
    return f"`{{{','.join(ids)}}}`"


def hours(agent: str, chosen: list[Task], updates: int, rate: float) -> str:
    """The cell of an agent: hours at a rate, and what to mind."""
    if (agent, chosen[0].category) not in published().table:
        return "-"
    if any(task.is_visual for task in chosen):
        return "not measured"
    resolved = [resolve(AGENTS[agent], "published", task, {}) for task in chosen]
    footnotes = "" if all(one.tuned for one in resolved) else " (d)"
    footnotes += "" if {one.train.steps for one in resolved} == {protocol(chosen[0]).steps} else " (s)"
    return f"{updates / rate / 3600:,.0f} h{footnotes}"


def protocol(task: Task) -> Protocol:
    """How the published scores of a task were made."""
    found = task.suite.protocol(task)
    if found is None:
        raise SystemExit(f"{task.id}: expected a task with published scores")
    return found


def rows() -> list[str]:
    """The table's rows."""
    categories: dict[str, list[Task]] = {}
    for task in tasks():
        if task.suite.protocol(task) is not None:
            categories.setdefault(task.category, []).append(task)
    per_second, on_gpu, found = rates(), gpu_rate(), []
    for category, chosen in categories.items():
        wanted = protocol(chosen[0])
        updates = len(chosen) * wanted.seeds * wanted.steps
        cells = [category, braces(chosen), f"{updates / 1e6:,.0f} M", hours("gfp", chosen, updates, on_gpu)]
        cells += [hours(agent, chosen, updates, rate) for agent, rate in per_second.items()]
        found.append(f"| {' | '.join(cells)} |\n")
    return found


def laptop_rows(table: Table) -> str:
    """What the laptop's study found, beside the published scores of those tasks."""
    text = ""
    for row in table.of_kind("task"):
        for method in table.methods:
            cell = table.cells.get((row.name, method))
            if cell is not None and (method.agent, method.policy) in laptop.HEADLINE:
                low, high = cell.figure.interval
                figure = f"{cell.published.mean:.1f}" if cell.published else "-"
                where = f"| {row.category} | {row.name} | {method.agent} {method.policy} |"
                text += f"{where} {cell.figure.mean:.1f} [{low:.1f}, {high:.1f}] | {figure} |\n"
    return text


def laptop_curves(table: Table) -> str:
    """Its learning curves, a picture a category."""
    categories = [row.name for row in table.of_kind("category")]
    return "".join(
        f"![learning curves on {name}, and the published figures](results-laptop/report/plots/"
        f"curves-{name.replace('/', '-')}.png)\n"
        for name in categories
    )


def main() -> None:
    shown = ", ".join(f"{agent} {rate:g}" for agent, rate in rates().items())
    heads = " | ".join(f"{agent}, 2 cores" for agent in RATE_ROWS)
    print(
        HEAD.format(rates=shown, gpu_rate=gpu_rate(), heads=heads, rules="|".join(["---"] * len(RATE_ROWS)))
        + "".join(rows()),
        end="",
    )
    means = {
        name: published().figure(method, "d4rl/adroit", ["door-human-v1"], 12).mean  # type: ignore[union-attr]
        for name, method in (("door", "gfp"), ("door_vabc", "gfp-vabc"))
    }
    table, _ = laptop.study_table()
    print(DONE.format(laptop=laptop_rows(table), curves=laptop_curves(table), **means), end="")


if __name__ == "__main__":
    main()

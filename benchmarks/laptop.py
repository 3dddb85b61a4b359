"""The laptop's study: which alpha its sweep chose, and its records and page in docs/results-laptop.

    guidedflow study run laptop-sweep.toml
    python -m benchmarks.laptop choose runs/laptop-sweep
    guidedflow study run laptop.toml
    python -m benchmarks.laptop collect runs docs/results-laptop
    python -m benchmarks.laptop page > docs/results-laptop/README.md

``choose``: of the actor's scores at the last step the best wins; of equal ones the higher return (fewer steps to a
success), then the middle alpha.

``collect`` copies what is small of every finished run: config.json without the folder in which its data lay,
evaluations.csv, summary.json, and how long the study worked at it.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from tyro.conf import Positional

from benchmarks.common import parse, report, run
from guidedflow.results.aggregate import summarize
from guidedflow.results.columns import Records, read_records
from guidedflow.results.table import Row, Table, build_table
from guidedflow.runs.config import FILE, RunConfig
from guidedflow.runs.find import find_runs
from guidedflow.runs.folder import RunFolder
from guidedflow.studies.templates import AGENTS, CHOSEN, SWEPT
from guidedflow.suites import find_task

STUDIES = ("laptop-sweep", "laptop")
RECORDS = ("evaluations.csv", "summary.json")
MINUTES = "minutes.json"
RESULTS = Path(__file__).parents[1] / "docs" / "results-laptop"
HEADLINE = {("gfp", "actor"), ("gfp", "vabc"), ("fql", "actor"), ("rebrac", "actor"), ("iql", "actor"), ("bc", "flow")}
"""All policies but FQL's flow, which is a clone as BC's is."""

PAGE = """\
# A benchmark that fits a laptop

Made by `python -m benchmarks.laptop page > docs/results-laptop/README.md` from the records beside it; a test compares
the two.

Five algorithms with equal updates on the first of a family's five OGBench tasks, on 300 episodes made by the scripted
oracles, and on D4RL's pen, on 300 episodes of its expert's policy with noise. Preset `quick`: 20,000 updates of
networks of 256 x 3 in mixed precision, 50 episodes a policy and seed. **Nothing of it may be compared with the
published figures**, which stand beside it: they were trained for 1,000,000 updates (pen: 500,000), with larger
networks, on other data, and evaluated by a longer protocol.

```sh
guidedflow study init laptop-sweep --policy PEN_EXPERT.npz
guidedflow study run laptop-sweep.toml
python -m benchmarks.laptop choose runs/laptop-sweep     # Which alpha won; the laptop's plan has the result.
guidedflow study init laptop --policy PEN_EXPERT.npz
guidedflow study run laptop.toml
python -m benchmarks.laptop collect runs docs/results-laptop
guidedflow report docs/results-laptop/laptop --per-task alpha --out docs/results-laptop/report
```

The last command's [table](report/table.md), [statistics](report/statistics.md) and [curves](report/plots) are here,
too; its page, which is a file of 5 MB, is not.

The records here were made by the same jobs, task by task: a task's sweep, then its five algorithms.
{missing}
## Which alpha

One trial of each of three values, on seed 100, which the study does not use: 10,000 updates, 50 episodes. Score of
the actor by alpha, its return in brackets; the best was taken (bold; of equal scores the higher return, then the
middle alpha). So small a sweep tells apart what differs by 20 points or more, and where the lowest or highest value
won, a better one may lie beyond. BC has no such coefficient. GFP's first sweep (`--seeds 100 --steps
10000 --sweep alpha=0.1,1,10`) had 0.1 where 100 is now, and 0% there on both cubes.

| data | GFP | FQL | ReBRAC | IQL |
|---|---|---|---|---|
{chosen}
## Scores

Success in percent (pen: D4RL's normalised score) for seeds 0, 1 and 2; the interval is Student's t over the seeds, at
least Wilson's over the episodes. Published: the same task, eight seeds, after the whole protocol.

| task | policy | alpha | seeds | mean [95%] | published |
|---|---|---|---|---|---|
{scores}
## Where the paper's order appears

On cubes in play the published order is GFP, FQL, ReBRAC, IQL; on cube-single-noisy all but IQL are near 100. Of the
tasks that were carried out:

- **cube-single-noisy, all but IQL.** Whatever is near 100 there is near 100 here, and the clones are near the published
  clone. IQL, published at half of the others, is as good as they are, with an alpha of 1 instead of the published 3.
- **cube-single-play, no.** After 2% of the published updates FQL and IQL are ahead of GFP, by less than the intervals
  tell apart, and ReBRAC never succeeds, with any of its three alphas. GFP's actor is ahead of its own VaBC, as in the
  paper, and VaBC near its published figure.
- **scene-play, not yet told.** ReBRAC has 89, published 87, and IQL 99; GFP and FQL are to come.
- **pen-expert-v1, hardly.** GFP's actor has the highest mean, and each of its seeds is ahead of each of FQL's; but all
  seven intervals overlap, and where a clone has 114 there is little left to tell apart.

## Probability of improvement

The chance that a run of A beats one of B on a task, a tie counting half, over the tasks that both have; the 95%
interval is a bootstrap's, at least Wilson's for so many runs ([results.md](../results.md)):

| suite | A | B | tasks | P(A > B) |
|---|---|---|---|---|
{improvements}
## Minutes

Of each job, three seeds and their evaluations, on one of a machine's two cores, where two jobs at once and other work
ran; the machine of scene and pen was half as fast as that of the cubes: {hours:.1f} hours in all, and
{sweep_hours:.1f} for the jobs of the sweep; half as many where two run side by side.

| task | GFP | FQL | ReBRAC | IQL | BC |
|---|---|---|---|---|---|
{minutes}"""


@dataclasses.dataclass(frozen=True)
class Choose:
    """Which alpha a sweep chose for each task and algorithm."""

    runs: Annotated[Positional[Path], "FOLDER"]
    """Folder of the sweep's runs, or of their records; what is not finished is left out."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> None:
        """Print a row for each."""
        report({"json": self.json}, [choice(path)._asdict() for path in finished(self.runs)])


@dataclasses.dataclass(frozen=True)
class Collect:
    """Copy the records of finished runs."""

    runs: Annotated[Positional[Path], "FOLDER"]
    """Where the studies' folders of runs are, laptop-sweep and laptop."""
    out: Annotated[Positional[Path], "FOLDER"]
    """Where they go."""

    def __call__(self) -> None:
        """Print how many there are."""
        for study in STUDIES:
            found = finished(self.runs / study)
            for path in found:
                collect(path, self.runs / study, self.out / study)
            print(f"{study}: {len(found)} finished runs")


def finished(study: Path) -> list[Path]:
    """The folders of a study's finished runs."""
    return [path for path in find_runs([study]) if RunFolder(path).is_finished()] if study.is_dir() else []


def collect(path: Path, study: Path, out: Path) -> None:
    """Copy one run's records, and note the minutes that it took."""
    place = path.relative_to(study)
    (out / place).mkdir(parents=True, exist_ok=True)
    config = json.loads((path / FILE).read_text(encoding="utf-8"))
    config["data"]["source"] = Path(config["data"]["source"]).name
    (out / place / FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in RECORDS:
        shutil.copyfile(path / name, out / place / name)
    attempts = json.loads((study / "jobs" / f"{place}.json").read_text(encoding="utf-8"))["attempts"]
    seen = (study / "jobs" / f"{place}.log").stat().st_mtime  # When one that was killed wrote its last line.
    seconds = sum((one["ended"] or seen) - one["began"] for one in attempts)
    minutes = {**minutes_of(out), str(place): round(seconds / 60, 1)}
    (out / MINUTES).write_text(json.dumps(minutes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def minutes_of(study: Path) -> dict[str, float]:
    """How long each run took, by its place in the study's folder."""
    path = study / MINUTES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class Choice(NamedTuple):
    """What one run of a sweep says."""

    data: str
    agent: str
    scores: str
    """The actor's by alpha, the best one's bold, and the returns in brackets."""
    best: float
    """The alpha that won."""


def choice(path: Path) -> Choice:
    """Which alpha a finished run of a sweep chose."""
    config = RunConfig.read(path)
    rows = [row for row in RunFolder(path).evaluations() if row["step"] == config.steps and row["policy"] == "actor"]
    found = {dict(row["variant"])["alpha"]: row for row in rows}
    middle = sorted(found)[len(found) // 2]
    best = max(found, key=lambda alpha: (found[alpha]["score"], found[alpha]["mean_return"], alpha == middle))
    scores = []
    for alpha, row in found.items():
        text = f"{alpha:g}: {row['score']:.0f} ({row['mean_return']:.0f})"
        scores.append(f"**{text}**" if alpha == best else text)
    return Choice(find_task(str(config.task)).dataset, config.agent, ", ".join(scores), best)


@dataclasses.dataclass(frozen=True)
class Page:
    """Print docs/results-laptop/README.md."""

    def __call__(self) -> None:
        """Print it."""
        sweep, study = (RESULTS / name for name in STUDIES)
        table, records = study_table()
        print(
            PAGE.format(
                chosen="".join(choice_rows(sweep)),
                scores="".join(line for row in table.of_kind("task") for line in score_rows(table, row)),
                improvements="".join(improvement_rows(table, records)),
                minutes="".join(minutes_rows(study)),
                missing=missing(study),
                hours=sum(minutes_of(study).values()) / 60,
                sweep_hours=sum(minutes_of(sweep).values()) / 60,
            ),
            end="",
        )


def study_table() -> tuple[Table, Records]:
    """The study's scores beside the published ones."""
    records = read_records(map(RunFolder, find_runs([RESULTS / STUDIES[1]])), per_task=["alpha"])
    return build_table(records), records


def choice_rows(sweep: Path) -> Iterator[str]:
    """A row for each task: the actor's score by alpha, of each algorithm."""
    found = {(one.data, one.agent): one.scores for one in map(choice, finished(sweep))}
    for data in CHOSEN:
        cells = [found.get((data, agent), "") for agent in SWEPT]
        if any(cells):
            yield f"| {data} | {' | '.join(cells)} |\n"


def missing(study: Path) -> str:
    """Which jobs have not been carried out yet."""
    configs = map(RunConfig.read, finished(study))
    there = {(find_task(str(config.task)).dataset, config.agent) for config in configs}
    left = {data: [agent for agent in AGENTS if (data, agent) not in there] for data in CHOSEN}
    named = [
        data if len(agents) == len(AGENTS) else f"{data} by {', '.join(agents)}"
        for data, agents in left.items()
        if agents
    ]
    return f"\nNot carried out yet: {'; '.join(named)}.\n" if named else ""


def score_rows(table: Table, row: Row) -> Iterator[str]:
    """A row for each method on a task."""
    for method in table.methods:
        cell = table.cells.get((row.name, method))
        if cell is None:
            continue
        low, high = cell.figure.interval
        scores = " ".join(f"{one.verdict.score.value:.0f}" for one in sorted(cell.used, key=lambda one: one.seed))
        alpha = cell.used[0].run.settings.get("alpha") if method.agent != "bc" else None
        published = f"{cell.published.mean:.1f}" if cell.published else "-"
        yield (
            f"| {row.name.removesuffix('-singletask-task1-v0')} | {method.agent} {method.policy} | "
            f"{'-' if alpha is None else f'{alpha:g}'} | {scores} | {cell.figure.mean:.1f} [{low:.1f}, {high:.1f}] | "
            f"{published} |\n"
        )


def improvement_rows(table: Table, records: Records) -> Iterator[str]:
    """The chance that a run of one method beats one of another, on the tasks that both have."""
    for one in summarize(table, records).improvements:
        if {(one.a.agent, one.a.policy), (one.b.agent, one.b.policy)} <= HEADLINE:
            found = one.probability
            yield (
                f"| {one.suite} | {one.a.agent} {one.a.policy} | {one.b.agent} {one.b.policy} | {one.tasks} | "
                f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}] |\n"
            )


def minutes_rows(study: Path) -> Iterator[str]:
    """A row for each task."""
    minutes = minutes_of(study)
    for task in dict.fromkeys(str(Path(place).parent) for place in minutes):
        cells = [f"{minutes[f'{task}/{agent}']:.0f}" if f"{task}/{agent}" in minutes else "" for agent in AGENTS]
        yield f"| {task.removesuffix('-singletask-task1-v0')} | {' | '.join(cells)} |\n"


def main() -> None:
    parse(Choose | Collect | Page)()


if __name__ == "__main__":
    run(main)

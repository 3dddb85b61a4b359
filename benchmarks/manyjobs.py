"""What a study of the published table's 864 jobs takes to check, to list and to look at.

    python -m benchmarks.manyjobs

Each job has a run folder as training leaves it, with the evaluations of its steps and, for GFP, 400 rows of metrics a
seed; every third is unfinished.

| command | seconds |
|---|---|
| list | of `guidedflow study run PLAN --list`: the plan is read, checked and listed |
| status | of `guidedflow study status PLAN` |
| page | the same with `--html` |
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import elapsed, parse, report, run, say, spread
from benchmarks.synthetic import write_run
from guidedflow.files import as_json, write_text
from guidedflow.settings import Count
from guidedflow.studies.plan import Job, read_plan
from guidedflow.studies.templates import write_plan
from guidedflow.suites import find_task


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure a study of many jobs."""

    most: Count = 864
    """Of the table's jobs, how many have run folders."""
    repeats: Count = 3
    json: bool = False
    """Print JSON instead of a table."""


def write_job(job: Job, *, is_done: bool) -> None:
    """The run's folder, and the files beside it."""
    until = None if is_done else job.settings["steps"] // 2
    write_run(job.run_dir, find_task(job.task), job.agent, seeds=job.seeds, until=until, **job.settings)
    for suffix in (".lock", ".log"):
        job.file(suffix).parent.mkdir(parents=True, exist_ok=True)
        job.file(suffix).touch()
    attempt = {"host": "here", "pid": 1, "began": time.time() - 3600.0, "ended": time.time(), "code": 0}
    write_text(job.file(".json"), as_json({"attempts": [attempt]}))


def _call(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "guidedflow", "study", *words], check=True, capture_output=True)


def main() -> None:
    arguments = parse(Arguments)
    with tempfile.TemporaryDirectory() as name:
        plan = write_plan("published", Path(name) / "published.toml")
        jobs = read_plan(plan, is_checked=False).jobs
        say(f"writing {min(arguments.most, len(jobs))} runs")
        for number, job in enumerate(jobs[: arguments.most]):
            write_job(job, is_done=bool(number % 3))
        words = {
            "list": ["run", str(plan), "--list"],
            "status": ["status", str(plan)],
            "page": ["status", str(plan), "--html", str(Path(name) / "status.html")],
        }
        rows = []
        for command, more in words.items():
            times = [elapsed(lambda words=more: _call(words)) for _ in range(arguments.repeats)]  # type: ignore[misc]
            rows.append({"command": command, "jobs": len(jobs), "seconds": spread(times)})
    report(dataclasses.asdict(arguments), rows)


if __name__ == "__main__":
    run(main)

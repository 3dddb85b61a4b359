"""What a study's engine adds to each job, beside the same command by hand.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --engines local ray --jobs 10

Trains small networks on data of its own, by `guidedflow train` and by each engine in turn, one at a time.

| column | |
|---|---|
| job seconds | of one job |
| added seconds | of each job, less its command's in the same turn |
| start seconds | until the engine takes jobs |
"""

import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.common import elapsed, parse, report, run, say, spread
from guidedflow.processes import available_cores
from guidedflow.settings import Count
from guidedflow.studies.engine import Engine
from guidedflow.studies.plan import Job, Plan, read_plan
from guidedflow.studies.study import make_engine


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure what a study's engine adds to each job."""

    engines: tuple[Literal["local", "ray"], ...] = ("local", "ray")
    jobs: Count = 8
    steps: Count = 500
    json: bool = False
    """Print JSON instead of a table."""


def write_data(path: Path) -> None:
    """Twenty episodes of a hundred random steps."""
    rng, n = np.random.default_rng(0), 2_000
    last = np.arange(1, n + 1) % 100 == 0
    arrays = {
        "observations": rng.normal(size=(n, 8)),
        "actions": rng.uniform(-1, 1, (n, 2)),
        "rewards": rng.normal(size=n),
    }
    np.savez(path, **arrays, terminals=np.zeros(n, bool), timeouts=last)


def train(folder: Path, number: int, arguments: Arguments) -> None:
    """A job's command."""
    program = [sys.executable, "-m", "guidedflow", "train", str(folder / "data.npz")]
    options = ["--agent", "bc", "--preset", "quick", "--hidden", "8", "--steps", str(arguments.steps)]
    place = ["--run-dir", str(folder / "hand" / str(number)), "--workers", str(available_cores())]
    subprocess.run([*program, *options, *place], check=True, capture_output=True)


def read_jobs(folder: Path, name: str, arguments: Arguments) -> Plan:
    """The same as a study."""
    block = {"tasks": [str(folder / "data.npz")], "agents": ["bc"], "preset": "quick"}
    settings = {"hidden": [8], "steps": arguments.steps}
    blocks = [{**block, "settings": settings, "label": str(n)} for n in range(arguments.jobs + 1)]
    return read_plan({"runs": str(folder / name), "resources": {"cpus": available_cores()}, "jobs": blocks})


def carry_out(engine: Engine, job: Job) -> None:
    """A job by an engine."""
    engine.submit([job])
    _, ending = engine.wait()
    if ending.code:
        raise SystemExit(f"{job.name}: {ending.words}")


def measure(folder: Path, name: Any, arguments: Arguments) -> list[dict[str, Any]]:
    """The command and the engine by turns, after one of each that finds nothing compiled."""
    plan = read_jobs(folder, name, arguments)
    began = time.perf_counter()
    engine = make_engine(name, plan, None)
    started = time.perf_counter() - began
    hand, jobs = [], []
    try:
        for number, job in enumerate(plan.jobs):
            hand.append(elapsed(lambda number=number: train(folder, number, arguments)))
            jobs.append(elapsed(lambda job=job: carry_out(engine, job)))
            shutil.rmtree(folder / "hand")
    finally:
        engine.close()
    added = [one - other for one, other in zip(jobs[1:], hand[1:], strict=True)]
    return [
        {"way": "by hand", "job_seconds": spread(hand[1:]), "added_seconds": None, "start_seconds": None},
        {"way": name, "job_seconds": spread(jobs[1:]), "added_seconds": spread(added), "start_seconds": started},
    ]


def main() -> None:
    arguments = parse(Arguments)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name) / "data.npz")
        for engine in arguments.engines:
            say(engine)
            rows += measure(Path(name), engine, arguments)
    report(dataclasses.asdict(arguments), rows)


if __name__ == "__main__":
    run(main)

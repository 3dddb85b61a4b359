"""What a study's engine adds to each job, beside the same command by hand.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --engines local ray --jobs 10

Trains small networks on data of its own: first by `guidedflow train`, one after the other, then by each engine, one at
a time as well, since each job asks for all cores.

| column | |
|---|---|
| job seconds | of one job: by hand of its command, in a study from the end of the job before it to its own |
| added seconds | the median less the median by hand |
| first seconds | from the call of `gf.study` to the first job's end: with the plan's check and the engine's start |
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure what a study's engine adds to each job."""

    engines: tuple[Literal["local", "ray"], ...] = ("local", "ray")
    jobs: Count = 6
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


def by_hand(folder: Path, arguments: Arguments) -> list[float]:
    """Seconds of each job's command."""
    program = [
        sys.executable,
        "-m",
        "guidedflow",
        "train",
        str(folder / "data.npz"),
        "--agent",
        "bc",
        "--preset",
        "quick",
    ]
    options = ["--hidden", "8", "--steps", str(arguments.steps), "--workers", str(available_cores())]

    def train(seed: int) -> None:
        place = ["--run-dir", str(folder / "hand" / str(seed)), "--seeds", str(seed)]
        subprocess.run([*program, *options, *place], check=True, capture_output=True)

    train(arguments.jobs)  # Compiles what the others find compiled.
    return [elapsed(lambda seed=seed: train(seed)) for seed in range(arguments.jobs)]  # type: ignore[misc]


def by_engine(folder: Path, arguments: Arguments, engine: Literal["local", "ray"]) -> tuple[float, list[float]]:
    """Seconds until the first job has ended, and of each further one."""
    import guidedflow as gf

    block = {"tasks": [str(folder / "data.npz")], "agents": ["bc"], "preset": "quick"}
    settings = {"hidden": [8], "steps": arguments.steps}
    plan: dict[str, Any] = {"runs": str(folder / engine), "resources": {"cpus": available_cores()}}
    plan["jobs"] = [{**block, "settings": settings, "seeds": [n], "label": str(n)} for n in range(arguments.jobs + 1)]
    ends = [time.perf_counter()]
    gf.study(plan, engine=engine, on_event=lambda job, text: ends.append(time.perf_counter()))
    first, *others = np.diff(ends).tolist()
    return first, others


def main() -> None:
    arguments = parse(Arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data.npz")
        say("by hand")
        hand = spread(by_hand(folder, arguments))
        rows = [{"way": "by hand", "job_seconds": hand, "added_seconds": None, "first_seconds": None}]
        for engine in arguments.engines:
            say(engine)
            first, others = by_engine(folder, arguments, engine)
            job = spread(others)
            added = job["median"] - hand["median"]
            rows.append({"way": engine, "job_seconds": job, "added_seconds": added, "first_seconds": first})
    report(dataclasses.asdict(arguments), rows)


if __name__ == "__main__":
    run(main)

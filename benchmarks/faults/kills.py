"""Trainings that are killed at any moment and continued end bit for bit as one that nobody disturbed."""

import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults.common import Verdict, Worker, command, run_content, train_words, write_log
from guidedflow.studies.plan import read_plan

OPTIONS = {
    "sync": (),
    "async": ("--eval-async",),
    "online": ("--online-steps", "20"),
    "sweep": ("--sweep", "alpha=0.3,3"),
}
TRAININGS = (*OPTIONS, "study")
PLAN = """\
runs = "jobs"
retries = 5
[resources]
cpus = 1
[[jobs]]
tasks = ["{log}"]
agents = ["fql", "bc"]
seeds = [0]
preset = "quick"
settings = {{ hidden = [8], flow_steps = 1, batch_size = 8, steps = 400, save_every = 100, log_every = 50 }}
"""
OPERATIONS = {
    "making the folder": "RUN( |/config)",
    "writing a checkpoint": r"os.mkdir RUN/checkpoints/\S*tmp",
    "before its checksums": r"RUN/\S*checksums.json",
    "writing records": "RUN/(metrics|evaluations)",
    "at the end": "RUN/(curves|summary)",
    "any operation": "RUN",
}
"""Moments that are found by what is done to files; see ``benchmarks.faults.child``."""
MOMENTS = (*OPERATIONS, "evaluating", "any time")


class Training(NamedTuple):
    """What is killed: the words that start it and that continue it, and the runs that it makes."""

    start: tuple[Any, ...]
    resume: tuple[Any, ...]
    runs: list[Path]

    def words(self) -> tuple[Any, ...]:
        """Those that are right now."""
        return self.resume if all((run / "config.json").exists() for run in self.runs) else self.start


class Reference(NamedTuple):
    """A training that nobody disturbed."""

    content: dict[str, str]
    seconds: float
    operations: dict[str, int]
    """How many there were of each of ``OPERATIONS``."""


class Kills:
    """Every training at every moment in turn; when exactly, and whether the continued run is killed too, is drawn."""

    total = 100
    quick = 1

    def __init__(self, folder: Path):
        self._folder = folder
        self._log = write_log(folder / "log.npz")
        self._worker = Worker()
        self._undisturbed: dict[str, Reference] = {}

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Train, kill, continue; perhaps kill and continue again; compare."""
        name = TRAININGS[number // len(MOMENTS) % len(TRAININGS)]
        reference = self._reference(name)
        folder = self._folder / f"case-{number}"
        training = self._training(name, folder)
        told, problem = [], None
        for again in range(1 + int(rng.random() < 1 / 3)):
            moment = MOMENTS[(int(rng.integers(len(MOMENTS))) if again else number) % len(MOMENTS)]
            if name == "study":  # Its jobs are trained by processes of their own.
                moment = "any time"
            fault = self._fault(moment, training.runs[0], rng, reference)
            done = command(*training.words(), fault=fault, folder=self._folder)
            told.append(f"{moment} {fault}" if done.code == -signal.SIGKILL else f"not {moment}, which never came")
            problem = problem or (done.failure() if done.code != -signal.SIGKILL else None)
        done = command(*training.words(), folder=self._folder)
        problem = problem or done.failure() or self._difference(training.runs, reference)
        shutil.rmtree(folder)
        what = f"{name}, killed {'; '.join(told)}: {problem or 'the same end'}"
        return Verdict("dirty" if problem else "clean", what)

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()

    def _training(self, name: str, folder: Path) -> Training:
        folder.mkdir()
        if name == "study":
            plan = folder / "plan.toml"
            plan.write_text(PLAN.format(log=self._log))
            words = ("study", "run", plan)
            return Training(words, words, [job.run_dir for job in read_plan(plan).jobs])
        run = folder / "run"
        start = train_words(self._log, run, *OPTIONS[name])
        return Training(start, ("train", "--resume", run, *(["--eval-async"] if name == "async" else [])), [run])

    def _reference(self, name: str) -> Reference:
        if name not in self._undisturbed:
            training, counts = self._training(name, self._folder / name), self._folder / f"operations-{name}"
            began = time.monotonic()
            run = re.escape(str(training.runs[0]))
            counted = {moment: pattern.replace("RUN", run) for moment, pattern in OPERATIONS.items()}
            fault = {"count_to": str(counts), "counted": counted}
            done = command(*training.start, fault=fault, folder=self._folder)
            if done.failure():
                raise RuntimeError(f"expected an undisturbed training to end well, found {done.failure()}")
            seconds = time.monotonic() - began
            content = self._worker.value(runs_content, training.runs)
            self._undisturbed[name] = Reference(content, seconds, json.loads(counts.read_text()))
        return self._undisturbed[name]

    def _fault(self, moment: str, run: Path, rng: np.random.Generator, reference: Reference) -> dict[str, Any]:
        """How a child finds a moment."""
        if moment == "evaluating":
            return {"kill_in_evaluation": int(rng.integers(1, 3)), "kill_after": float(rng.uniform(0, 0.3))}
        if moment == "any time":  # Importing takes the first quarter, and compiling, later on not needed, the last.
            return {"kill_after": float(rng.uniform(0.25, 0.7) * reference.seconds)}
        delay = float(rng.uniform(0, 0.08)) if moment == "writing a checkpoint" else 0.0
        number = int(rng.integers(reference.operations[moment])) + 1
        pattern = OPERATIONS[moment].replace("RUN", re.escape(str(run)))
        return {"kill_at": pattern, "number": number, "kill_after": delay}

    def _difference(self, runs: list[Path], reference: Reference) -> str | None:
        found = self._worker.call(runs_content, runs)
        if found.kind != "value":
            return f"{found.kind}: {found.value}"
        problems = [f"other {name}" for name, content in reference.content.items() if found.value[name] != content]
        problems += [f"{path.name} left over" for run in runs for path in run.rglob("*tmp*")]
        return ", ".join(problems) or None


def runs_content(runs: list[Path]) -> dict[str, str]:
    """``run_content`` of several."""
    return {f"{run.name}/{name}": found for run in runs for name, found in run_content(run).items()}

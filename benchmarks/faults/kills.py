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

TRAININGS = {
    "sync": (),
    "async": ("--eval-async",),
    "online": ("--online-steps", "20"),
    "sweep": ("--sweep", "alpha=0.3,3"),
}
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
        name = list(TRAININGS)[number // len(MOMENTS) % len(TRAININGS)]
        reference = self._reference(name)
        run = self._folder / f"run-{number}"
        start = train_words(self._log, run, *TRAININGS[name])
        resume = ("train", "--resume", run, *(["--eval-async"] if name == "async" else []))
        told, problem = [], None
        for again in range(1 + int(rng.random() < 1 / 3)):
            moment = MOMENTS[(int(rng.integers(len(MOMENTS))) if again else number) % len(MOMENTS)]
            fault = self._fault(moment, run, rng, reference)
            words = resume if (run / "config.json").exists() else start
            done = command(*words, fault=fault, folder=self._folder)
            told.append(f"{moment} {fault}" if done.code == -signal.SIGKILL else f"not {moment}, which never came")
            problem = problem or (done.failure() if done.code != -signal.SIGKILL else None)
        done = command(*(resume if (run / "config.json").exists() else start), folder=self._folder)
        problem = problem or done.failure() or self._difference(run, reference)
        shutil.rmtree(run)
        what = f"{name}, killed {'; '.join(told)}: {problem or 'the same end'}"
        return Verdict("dirty" if problem else "clean", what)

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()

    def _reference(self, name: str) -> Reference:
        if name not in self._undisturbed:
            run, counts = self._folder / f"undisturbed-{name}", self._folder / f"operations-{name}"
            began = time.monotonic()
            counted = {moment: pattern.replace("RUN", re.escape(str(run))) for moment, pattern in OPERATIONS.items()}
            fault = {"count_to": str(counts), "counted": counted}
            done = command(*train_words(self._log, run, *TRAININGS[name]), fault=fault, folder=self._folder)
            if done.failure():
                raise RuntimeError(f"expected an undisturbed training to end well, found {done.failure()}")
            seconds = time.monotonic() - began
            content = self._worker.value(run_content, run)
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

    def _difference(self, run: Path, reference: Reference) -> str | None:
        found = self._worker.call(run_content, run)
        if found.kind != "value":
            return f"{found.kind}: {found.value}"
        problems = [f"other {name}" for name, content in reference.content.items() if found.value[name] != content]
        problems += [f"{path.name} left over" for path in run.rglob("*tmp*")]
        return ", ".join(problems) or None

"""Trainings that are killed at any moment and continued end bit for bit as one that nobody disturbed."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.common import Verdict, Worker, command, run_content, train_words, write_log

TRAININGS = {
    "sync": (),
    "async": ("--eval-async",),
    "online": ("--online-steps", "20"),
    "sweep": ("--sweep", "alpha=0.3,3"),
}
MOMENTS = (
    "making the folder",
    "writing a checkpoint",
    "before its checksums",
    "evaluating",
    "writing records",
    "at the end",
    "any operation",
    "any time",
)


class Kills:
    """Every training at every moment in turn; when exactly, and whether the continued run is killed too, is drawn."""

    total = 100
    quick = 2

    def __init__(self, folder: Path):
        self._folder = folder
        self._log = write_log(folder / "log.npz")
        self._worker = Worker()
        self._undisturbed: dict[str, tuple[dict[str, str], float, int]] = {}

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Train, kill, continue; perhaps kill and continue again; compare."""
        name = list(TRAININGS)[number // len(MOMENTS) % len(TRAININGS)]
        expected, seconds, operations = self._reference(name)
        run = self._folder / f"run-{number}"
        start, told = train_words(self._log, run, *TRAININGS[name]), []
        resume: tuple[Any, ...] = ("train", "--resume", run, *(["--eval-async"] if name == "async" else []))
        for again in range(1 + int(rng.random() < 1 / 3)):
            moment, fault = self._fault(run, number if not again else int(rng.integers(100)), rng, seconds, operations)
            words = resume if (run / "config.json").exists() else start
            done = command(*words, fault=fault, folder=self._folder)
            told.append(f"{moment} {fault}")
            if done.code != -9 and done.failure():
                return Verdict("dirty", f"{name}, killed {'; '.join(told)}: {done.failure()}")
        done = command(*(resume if (run / "config.json").exists() else start), folder=self._folder)
        problem = done.failure() or self._difference(run, expected)
        shutil.rmtree(run)
        what = f"{name}, killed {'; '.join(told)}: {problem or 'the same end'}"
        return Verdict("dirty" if problem else "clean", what)

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()

    def _reference(self, name: str) -> tuple[dict[str, str], float, int]:
        """The undisturbed training's content, seconds, and number of file operations in its folder."""
        if name not in self._undisturbed:
            run, counts = self._folder / f"undisturbed-{name}", self._folder / f"operations-{name}"
            began = time.monotonic()
            fault = {"count_to": str(counts), "counted": re.escape(str(run))}
            done = command(*train_words(self._log, run, *TRAININGS[name]), fault=fault, folder=self._folder)
            if done.failure():
                raise RuntimeError(f"expected an undisturbed training to end well, found {done.failure()}")
            seconds = time.monotonic() - began
            self._undisturbed[name] = self._worker.value(run_content, run), seconds, int(counts.read_text())
        return self._undisturbed[name]

    def _fault(
        self, run: Path, number: int, rng: np.random.Generator, seconds: float, operations: int
    ) -> tuple[str, dict[str, Any]]:
        """A moment, and how a child finds it."""
        moment, at = MOMENTS[number % len(MOMENTS)], re.escape(str(run))
        kinds: dict[str, dict[str, Any]] = {
            "making the folder": {"kill_at": f"{at}($|/config)", "number": int(rng.integers(1, 4))},
            "writing a checkpoint": {
                "kill_at": rf"os.mkdir {at}/checkpoints/\S*tmp\S*( |$)",
                "number": int(rng.integers(1, 5)),
                "kill_after": float(rng.uniform(0, 0.08)),
            },
            "before its checksums": {"kill_at": rf"{at}/\S*checksums.json", "number": int(rng.integers(1, 5))},
            "evaluating": {"kill_in_evaluation": int(rng.integers(1, 3)), "kill_after": float(rng.uniform(0, 0.3))},
            "writing records": {"kill_at": rf"{at}/(metrics|evaluations)", "number": int(rng.integers(1, 14))},
            "at the end": {"kill_at": rf"{at}/(curves|summary)", "number": int(rng.integers(1, 5))},
            "any operation": {"kill_at": at, "number": int(rng.integers(1, operations + 1))},
            "any time": {"kill_after": float(rng.uniform(0.5, 1) * seconds)},
        }
        return moment, kinds[moment]

    def _difference(self, run: Path, expected: dict[str, str]) -> str | None:
        found = self._worker.call(run_content, run)
        if found.kind != "value":
            return f"{found.kind}: {found.value}"
        others = [name for name, content in expected.items() if found.value[name] != content]
        left = [path.name for path in run.rglob("*tmp*")]
        return f"other {', '.join(others)}; left over: {', '.join(left)}" if others or left else None

"""Low limits of the shell, places that cannot be written, no locks: one line, or all of the work is done."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.common import (
    Verdict,
    Worker,
    command,
    mounted,
    own_arrays,
    remount,
    run_content,
    train_words,
    tree,
    write_log,
)

LIMITS: tuple[dict[str, Any], ...] = (
    *({"limits": {"NOFILE": files}} for files in (16, 64, 127, 128, 160, 256)),
    *({"limits": {"AS": size}} for size in (500_000_000, 1_500_000_000, 2_000_000_000, 3_000_000_000, 6_000_000_000)),
    {"no_flock": True},
)
COMMANDS = ("train", "resume", "evaluate", "report", "data convert", "data generate", "data inspect")
"""All but the last write."""


class Limits:
    """Every command under every limit, and where one can be mounted, in a place that not even root can write."""

    quick = 2

    def __init__(self, folder: Path):
        self._folder = folder
        self._log = write_log(folder / "log.npz")
        self._source = folder / "source.npz"
        np.savez(self._source, **own_arrays())
        self._worker = Worker()
        with mounted(folder / "tried", 2**20) as can_mount:
            faults = (*LIMITS, None) if can_mount else LIMITS
        self._cases = [(name, fault) for fault in faults for name in COMMANDS]
        self._order = np.random.default_rng(0).permutation(len(self._cases))
        self.total = len(self._cases)
        self._finished: Path | None = None

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Run a command under a limit; it is refused in one line, or does everything."""
        name, fault = self._cases[self._order[number]]
        finished = self._finish()
        place = self._folder / f"place-{number}"
        with mounted(place, 2**28) as is_mounted:
            shutil.copytree(finished, place / "run")
            if name == "resume":
                (place / "run/summary.json").unlink()
                shutil.rmtree(place / "run/checkpoints/40")
            if fault is None:
                remount(place, "ro")
            before = tree(place)
            done = command(*self._words(name, place), fault=fault or {}, folder=self._folder)
            problem = self._judge(name, fault, place, before, done)
            if not is_mounted:
                shutil.rmtree(place)
                place.mkdir()
        found = problem or ("done" if done.code == 0 else done.error.splitlines()[-1])
        return Verdict("dirty" if problem else "clean", f"{name}, {fault or 'a place that cannot be written'}: {found}")

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()

    def _judge(self, name: str, fault: Any, place: Path, before: Any, done: Any) -> str | None:
        if done.code:
            if fault is None and tree(place) != before:
                return "what cannot be written has changed"
            return done.refusal()
        if fault is None and name != COMMANDS[-1]:
            return "it is said to be done where nothing can be written"
        problem = done.failure()
        if not problem and name in ("train", "resume"):
            run = place / ("new" if name == "train" else "run")
            found = self._worker.call(run_content, run)
            if found.value != self._worker.value(run_content, self._finish()):
                problem = "another end than without a limit"
        return problem

    def _finish(self) -> Path:
        """A finished run."""
        if self._finished is None:
            self._finished = self._folder / "finished"
            done = command(*train_words(self._log, self._finished), folder=self._folder)
            if done.failure():
                raise RuntimeError(f"expected a training that ends well, found {done.failure()}")
        return self._finished

    def _words(self, name: str, place: Path) -> tuple[Any, ...]:
        stand_in = ("--stand-in", "random", "--episodes", "2", "--workers", "1")
        return {
            "train": train_words(self._log, place / "new"),
            "resume": ("train", "--resume", place / "run", "--workers", "1"),
            "evaluate": ("evaluate", place / "run", "--episodes", "1", "--workers", "1"),
            "report": ("report", place / "run", "--out", place / "report"),
            "data convert": ("data", "convert", self._source, place / "made.npz", "--action-range", "measured"),
            "data generate": ("data", "generate", "mujoco/hopper/medium-v0", *stand_in, "--data-dir", place),
            "data inspect": ("data", "inspect", self._log),
        }[name]

"""Where a job stands, from its folder and the files beside it alone."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import filelock

from guidedflow.errors import GuidedflowError
from guidedflow.files import read_json
from guidedflow.locks import held
from guidedflow.notices import plain
from guidedflow.runs.config import FILE, RunConfig
from guidedflow.runs.folder import RunFolder
from guidedflow.studies.plan import Job

Status = Literal["done", "running", "failed", "differs", "waiting"]
TAIL_BYTES = 8192
LAST_LINES = 3
BY_SIGNAL = 128
"""From here on an exit status says that a signal ended the process."""


class Attempt(NamedTuple):
    """When a process worked at a job, and how that ended."""

    host: str
    pid: int
    began: float
    """Seconds since 1970, as ``ended``."""
    ended: float | None = None
    """None: it still goes on, or was killed."""
    code: int | None = None
    """Its exit status."""


class JobState(NamedTuple):
    """A job and how far it is."""

    job: Job
    status: Status
    """failed: it ended with an error. differs: its run is of other settings than the plan's. waiting: to begin, or to
    go on."""
    step: int = 0
    steps: int = 0
    """Of the whole run; 0: not known before it begins."""
    rate: float = 0.0
    """Steps a second, all seeds together making one; 0: not known."""
    seconds: float = 0.0
    """How long its attempts have taken."""
    why: str = ""
    """Of a job that failed: its last words; of one that differs: in what."""

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return 1.0 if self.status == "done" else self.step / self.steps if self.steps else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At its rate, evaluations not counted; None if that is not known."""
        return (self.steps - self.step) / self.rate if self.rate and self.steps else None


def state_of(job: Job) -> JobState:
    """Where a job stands. Takes no lock that a run would miss."""
    attempts = read_attempts(job)
    seen = _last_write(job.file(".log"))
    seconds = sum(max(0.0, (one.ended or seen) - one.began) for one in attempts)
    is_running = _is_running(job)
    if not (job.run_dir / FILE).is_file():
        status, why = _after_attempts(job, attempts, is_running)
        return JobState(job, status, seconds=seconds, why=why)
    try:
        config = RunConfig.read(job.run_dir)
        differences = config.differences(job.given())
        step, rate = _progress(job.run_dir)
    except (GuidedflowError, OSError) as error:
        return JobState(job, "failed", seconds=seconds, why=str(error))
    known = JobState(job, "waiting", step, config.steps, rate, seconds)
    if differences:
        found = ", ".join(differences)
        return known._replace(
            status="differs",
            why=f"{job.run_dir}: expected the run that the plan asks for, found other settings: {found}; move that run "
            "away, or give its [[jobs]] a label",
        )
    if is_running:
        return known._replace(status="running")
    if RunFolder(job.run_dir).is_finished():
        return known._replace(status="done", step=config.steps)
    status, why = _after_attempts(job, attempts, is_running)
    return known._replace(status=status, why=why)


def _after_attempts(job: Job, attempts: Sequence[Attempt], is_running: bool) -> tuple[Status, str]:
    """The state that the last attempt left behind."""
    if is_running:
        return "running", ""
    is_failed = bool(attempts) and 0 < (attempts[-1].code or 0) < BY_SIGNAL
    return ("failed", last_lines(job)) if is_failed else ("waiting", "")


def _last_write(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _is_running(job: Job) -> bool:
    lock = job.file(".lock")
    if not lock.exists():
        return False
    try:
        with held(lock):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # Somebody else's study, which can only be looked at.
        return False


def _progress(run: Path) -> tuple[int, float]:
    """The last recorded step, and the rate there."""
    for line in reversed(_tail(run / "metrics.jsonl").splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            row = json.loads(line)
            return int(row["step"]), float(row.get("updates_per_second", 0.0))
    return 0, 0.0


def last_lines(job: Job) -> str:
    """The error that a job ended with, or its last lines, as one."""
    lines = [plain(line.strip()) for line in _tail(job.file(".log")).splitlines() if line.strip()]
    errors = [line for line in lines[-LAST_LINES:] if line.startswith("guidedflow: error: ")]
    return errors[-1].removeprefix("guidedflow: error: ") if errors else " / ".join(lines[-LAST_LINES:])


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def read_attempts(job: Job) -> list[Attempt]:
    """The attempts at a job, in their order; none if their record is damaged."""
    path = job.file(".json")
    if not path.exists():
        return []
    with contextlib.suppress(GuidedflowError, OSError, TypeError, AttributeError, ValueError):
        saved = read_json(path)["attempts"]
        return [_attempt(one) for one in saved]
    return []


def _attempt(saved: Mapping[str, Any]) -> Attempt:
    began = Attempt(str(saved["host"]), int(saved["pid"]), float(saved["began"]))
    if saved.get("ended") is None:
        return began
    return began._replace(ended=float(saved["ended"]), code=int(saved["code"]))

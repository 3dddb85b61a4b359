"""Carries out one job on the machine that this is called on; every engine ends here."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from guidedflow.studies.jobs import last_lines
from guidedflow.studies.plan import Job
from guidedflow.suites import find_task

GPU_MEMORY = 0.9
"""Of a whole GPU's memory, what the jobs that share it may take together."""


class Ending(NamedTuple):
    """How an attempt at a job ended."""

    code: int
    """0: it is done. Otherwise as a command's exit status, or minus the signal that killed it."""
    words: str = ""
    """The last ones of one that failed."""


def run_job(
    job: Job,
    environment: Mapping[str, str] | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Ending:
    """Make a job's data if it is missing, then train it or go on with it, in processes that end with this one.

    Args:
        job: what to carry out.
        environment: variables that differ from this process's.
        on_start: called with each process.
    """
    if job.recipe is not None:
        task = find_task(job.task)
        if not task.suite.has_data(task, None if job.data_dir is None else Path(job.data_dir)):
            ending = _call("data", job, environment or {}, on_start)
            if ending.code:
                return ending
    return _call("train", job, environment or {}, on_start)


def _call(
    stage: str, job: Job, environment: Mapping[str, str], on_start: Callable[[subprocess.Popen[bytes]], None]
) -> Ending:
    log = job.file(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", f"{__package__}.worker", stage]
    theirs, ours = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*program, str(theirs), json.dumps(dataclasses.asdict(job))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs],
                env={**os.environ, **_limits(job), **environment},
                start_new_session=True,  # Ctrl-C reaches the driver alone, and through it the runs, which are saved.
            )
        os.close(theirs)
        on_start(process)
        code = process.wait()
    finally:
        os.close(ours)
    if code == 0:
        return Ending(0)
    words = last_lines(job) if code > 0 else f"killed by {signal.Signals(-code).name}; is there memory left?"
    return Ending(code, words or f"exit status {code}, without a word")


def _limits(job: Job) -> dict[str, str]:
    """What keeps a job to its share of the machine."""
    # XLA's pool of threads on CPU has NPROC of them, else one for each of the machine's cores.
    limits = dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.resources.cpus))
    gpus = job.resources.gpus
    if gpus == 0:
        limits |= {"JAX_PLATFORMS": "cpu"}
    elif gpus < 1:
        limits |= {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{GPU_MEMORY * gpus:.3f}"}
    return limits

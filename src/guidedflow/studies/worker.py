"""The process of a job: ``python -m guidedflow.studies.worker STAGE PIPE JOB``, which ``launch.run_job`` starts.

It holds the job's lock from beginning to end, and stops, saving the run, when whoever started it is gone.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from guidedflow.errors import GuidedflowError, Interrupted
from guidedflow.files import as_json, write_text
from guidedflow.locks import held
from guidedflow.notices import plain
from guidedflow.runs.config import FILE
from guidedflow.runs.folder import RunFolder
from guidedflow.studies.jobs import Attempt, read_attempts
from guidedflow.studies.plan import Job
from guidedflow.suites import find_task, generate


def main() -> None:
    """Make a job's data or train it, as the command line says, and exit as ``guidedflow`` does."""
    stage, pipe, text = sys.argv[1:]
    _stop_without(int(pipe))
    job = Job.from_json(json.loads(text))
    with held(job.file(".lock"), waits=True):  # Whoever still works at it is waited for.
        if RunFolder(job.run_dir).is_finished():
            sys.exit(0)
        earlier, attempt = read_attempts(job), Attempt(socket.gethostname(), os.getpid(), time.time())
        _write_attempts(job, [*earlier, attempt])
        code = _answered(lambda: {"data": _make_data, "train": _train}[stage](job))
        _write_attempts(job, [*earlier, attempt._replace(ended=time.time(), code=code)])
    sys.exit(code)


def _make_data(job: Job) -> None:
    """Make or fetch the data of a job, unless it is there; one process at a time does so in a data folder."""
    task = find_task(job.task)
    data_dir = None if job.data_dir is None else Path(job.data_dir)
    folder = task.suite.folders(data_dir)[0]
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / f".{job.dataset.replace('/', '-')}.study.lock", waits=True):
        if task.suite.has_data(task, data_dir):
            return
        if isinstance(job.recipe, Mapping):
            options = {**job.recipe, "workers": job.resources.cpus}
            generate(job.dataset, data_dir=data_dir, on_progress=_tell, **options)
        else:
            task.suite.fetch(task, data_dir)


def _tell(done: int, total: int) -> None:
    if done % max(1, total // 10) == 0:
        print(f"episodes: {done}/{total}", file=sys.stderr)


def _train(job: Job) -> None:
    import guidedflow as gf

    workers = job.resources.cpus
    if (job.run_dir / FILE).is_file():
        data_dir = job.data_dir if job.dataset else None  # Data of the user's own lies where it lay.
        gf.resume(job.run_dir, agent=job.agent, data_dir=data_dir, workers=workers)
        return
    gf.train(
        job.task,
        agent=job.agent,
        preset=job.preset,
        sweep=dict(job.sweep) or None,
        run_dir=job.run_dir,
        data_dir=job.data_dir,
        workers=workers,
        seeds=job.seeds,
        **job.settings,
    )


def _answered(call: Callable[[], object]) -> int:
    """The exit status of a call; what it raises is printed."""
    try:
        call()
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal_number
    except GuidedflowError as error:
        print(f"guidedflow: error: {plain(str(error))}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _write_attempts(job: Job, attempts: list[Attempt]) -> None:
    write_text(job.file(".json"), as_json({"attempts": [one._asdict() for one in attempts]}) + "\n")


def _stop_without(pipe: int) -> None:
    """Stop as after SIGTERM when the other end of a pipe is closed, which also a killed process does."""

    def watch() -> None:
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()

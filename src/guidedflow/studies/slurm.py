"""Engine ``slurm``: jobs as array jobs of Slurm, through submitit."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

from guidedflow.errors import GuidedflowError, RunError, SettingsError
from guidedflow.files import as_json, read_json, write_text
from guidedflow.studies.launch import Ending, run_job
from guidedflow.studies.plan import Job, Plan, Resources

DEFAULTS: dict[str, Any] = {"time": 1440, "additional_parameters": {"requeue": True}}
"""An allocation lasts a day; a job whose node is lost is queued again."""
MOST_TIMEOUTS = 1000
"""How often a job that needs more of them is queued again."""
POLL_SECONDS = 2.0
IN_QUEUE = ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "CONFIGURING", "COMPLETING", "READY")


class SlurmEngine:
    """See ``Engine``. Jobs stay in Slurm's queue when this process ends, and are found again by the next.

    Args:
        plan: whose table ``slurm`` has the options of ``sbatch``.

    Raises:
        SettingsError: submitit or Slurm is missing.
    """

    def __init__(self, plan: Plan):
        try:
            import submitit
        except ImportError as error:
            raise SettingsError(
                "engine: expected the package submitit, found none; install it with pip install 'guidedflow[slurm]'"
            ) from error
        self._submitit = submitit
        self._options = {f"slurm_{name}": value for name, value in {**DEFAULTS, **plan.slurm}.items()}
        self._folder = plan.runs / "jobs" / "slurm"
        self._ids: dict[str, str] = {}
        self._record = plan.runs / "jobs" / "slurm.json"
        with contextlib.suppress(GuidedflowError, OSError):
            self._ids = dict(read_json(self._record))
        self._jobs: dict[str, tuple[Job, Any]] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """See ``Engine``."""
        groups: dict[Resources, list[Job]] = {}
        for job in jobs:
            if job.resources.gpus % 1:
                found = f"found {job.resources.gpus:g}"
                raise SettingsError(
                    f"resources: gpus: expected a whole number with Slurm, which lends no shares, {found}"
                )
            known = self._queued(job.name)
            if known is None:
                groups.setdefault(job.resources, []).append(job)
            else:
                self._jobs[job.name] = job, known
        for resources, group in groups.items():
            executor = self._executor(resources)
            try:
                with executor.batch():
                    submitted = [executor.submit(QueuedJob(job)) for job in group]
            except self._submitit.core.utils.FailedJobError as error:
                found = " ".join(str(error).split())[:200]
                raise RunError(f"slurm: expected sbatch to take {len(group)} jobs, found: {found}") from error
            for job, queued in zip(group, submitted, strict=True):
                self._jobs[job.name] = job, queued
                self._ids[job.name] = queued.job_id
            write_text(self._record, as_json(self._ids) + "\n")

    def _executor(self, resources: Resources) -> Any:
        try:
            executor = self._submitit.AutoExecutor(
                folder=self._folder, cluster="slurm", slurm_max_num_timeout=MOST_TIMEOUTS
            )
            executor.update_parameters(
                name="guidedflow",
                cpus_per_task=resources.cpus,
                **({"gpus_per_node": round(resources.gpus)} if resources.gpus else {}),
                **({"mem_gb": resources.memory_gb} if resources.memory_gb is not None else {}),
                **self._options,
            )
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            found = str(error).splitlines()[0]
            raise SettingsError(f"slurm: expected Slurm's commands and options of sbatch, found: {found}") from error
        return executor

    def _queued(self, name: str) -> Any:
        """What an earlier call left in the queue for a job; None if there is nothing."""
        if name not in self._ids:
            return None
        known: Any = self._submitit.SlurmJob(self._folder, self._ids[name], tasks=[0])
        return known if known.state in IN_QUEUE else None

    def wait(self) -> tuple[Job, Ending]:
        """See ``Engine``."""
        while True:
            for name, (job, queued) in self._jobs.items():
                if queued.done():
                    del self._jobs[name], self._ids[name]
                    write_text(self._record, as_json(self._ids) + "\n")
                    return job, self._ending(queued)
            time.sleep(POLL_SECONDS)

    def _ending(self, queued: Any) -> Ending:
        errors = self._submitit.core.utils
        try:
            return Ending(*queued.result())
        except (errors.UncompletedJobError, errors.FailedJobError) as error:
            return Ending(1, f"Slurm's job {queued.job_id}: {' '.join(str(error).split())[:200]}")

    def close(self) -> None:
        """See ``Engine``. What is in the queue stays there; ``scancel`` takes it out."""


class QueuedJob:
    """What Slurm runs: a job that saves its run and is queued again when Slurm warns that its time is up."""

    def __init__(self, job: Job):
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_job": self._job, "_process": None}

    def __call__(self) -> tuple[int, str]:
        """Carry the job out."""
        # In a thread, so that the warning can be answered while it runs.
        ended: list[Ending] = []
        thread = threading.Thread(target=lambda: ended.append(run_job(self._job, on_start=self._started)), daemon=True)
        thread.start()
        thread.join()
        code, words = ended[0]
        return code, words

    def _started(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def checkpoint(self) -> Any:
        """Called by submitit on the warning: stop, saving the run, and go on with it later."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        return DelayedSubmission(self)

"""Engine ``ray``: jobs as Ray Core tasks, on a cluster or on this machine."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from guidedflow.errors import RunError, SettingsError
from guidedflow.studies.launch import Ending, run_job
from guidedflow.studies.plan import Job


class RayEngine:
    """See ``Engine``. A job whose node or worker is lost runs again elsewhere, and goes on from its folder.

    Args:
        address: of the cluster; None: ``$RAY_ADDRESS``, else a cluster of this machine alone.

    Raises:
        SettingsError: Ray is not installed, or there is no cluster there.
    """

    def __init__(self, address: str | None):
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "engine: expected the package ray, found none; install it with pip install 'guidedflow[cluster]'"
            ) from error
        self._ray = ray
        self._jobs: dict[Any, Job] = {}
        # A driver's log shows each task's output otherwise, which is in the job's own log here.
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            found = str(error).splitlines()[0]
            raise SettingsError(f"address: expected a Ray cluster that can be reached, found: {found}") from error

    def submit(self, jobs: Sequence[Job]) -> None:
        """See ``Engine``."""
        task = self._ray.remote(_carry_out)
        for job in jobs:
            wanted = job.resources
            options = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "name": job.name, "max_retries": -1}
            if wanted.memory_gb is not None:
                options["memory"] = int(wanted.memory_gb * 1e9)
            self._jobs[task.options(**options).remote(dataclasses.asdict(job))] = job

    def wait(self) -> tuple[Job, Ending]:
        """See ``Engine``."""
        try:
            (ready, *_), _ = self._ray.wait(list(self._jobs), num_returns=1)
            job = self._jobs.pop(ready)
            return job, Ending(*self._ray.get(ready))
        except self._ray.exceptions.RayError as error:
            found = str(error).strip().splitlines()[0]
            raise RunError(
                f"ray: expected the cluster to be there, found: {found}; the same command goes on"
            ) from error

    def close(self) -> None:
        """See ``Engine``."""
        self._ray.shutdown()


def _carry_out(job: dict[str, Any]) -> tuple[int, str]:
    code, words = run_job(Job.from_json(job))
    return code, words

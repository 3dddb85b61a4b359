"""Engine ``local``: as many jobs at once as this machine's cores, memory and GPUs allow."""

import contextlib
import logging
import os
import queue
import subprocess
import threading
from collections.abc import Sequence

from guidedflow.errors import SettingsError
from guidedflow.processes import available_cores, available_memory
from guidedflow.studies.launch import Ending, run_job
from guidedflow.studies.plan import Job, Resources

logger = logging.getLogger("guidedflow")
ROUNDING = 1e-9
"""Three thirds of a GPU are one."""


class LocalEngine:
    """See ``Engine``. Jobs start in their order, as soon as there is room for them."""

    def __init__(self) -> None:
        self._cores = available_cores()
        self._memory = available_memory() / 1e9
        self._gpus = dict.fromkeys(visible_gpus(), 1.0)
        self._waiting: list[Job] = []
        self._used: dict[str, tuple[Resources, tuple[str, ...]]] = {}
        self._ended: queue.SimpleQueue[tuple[Job, Ending]] = queue.SimpleQueue()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """See ``Engine``."""
        for job in jobs:
            wanted, whole = job.resources, len(self._gpus)
            limits = {"cpus": self._cores, "gpus": whole, "memory_gb": self._memory}
            for name, there in limits.items():
                asked = getattr(wanted, name) or 0
                if asked > there:
                    raise SettingsError(
                        f"resources: {name}: expected at most {there:.4g}, which this machine has, found {asked:g}"
                    )
        if self._gpus and not self._used and not any(job.resources.gpus for job in jobs):
            logger.info("there are %d GPUs here, and no job asks for any (resources: gpus)", len(self._gpus))
        self._waiting += jobs
        self._start()

    def wait(self) -> tuple[Job, Ending]:
        """See ``Engine``."""
        job, ending = self._ended.get()
        self._processes.pop(job.name, None)
        resources, gpus = self._used.pop(job.name)
        for gpu in gpus:
            self._gpus[gpu] += min(1.0, resources.gpus)
        self._start()
        return job, ending

    def close(self) -> None:
        """See ``Engine``."""
        self._waiting.clear()
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in list(self._processes.values()):
            process.wait()

    def _start(self) -> None:
        """Start every waiting job that there is room for."""
        for job in list(self._waiting):
            used = [resources for resources, _ in self._used.values()]
            cores = sum(one.cpus for one in used) + job.resources.cpus
            memory = sum(one.memory_gb or 0 for one in used) + (job.resources.memory_gb or 0)
            gpus = self._free_gpus(job.resources.gpus)
            if cores > self._cores or memory > self._memory or gpus is None:
                continue
            self._waiting.remove(job)
            for gpu in gpus:
                self._gpus[gpu] -= min(1.0, job.resources.gpus)
            self._used[job.name] = job.resources, gpus
            threading.Thread(target=self._run, args=(job, gpus), daemon=True).start()

    def _free_gpus(self, wanted: float) -> tuple[str, ...] | None:
        """GPUs with room for a share, or for so many whole ones; None if there are none."""
        count, share = (1, wanted) if wanted < 1 else (round(wanted), 1.0)
        free = [gpu for gpu, left in self._gpus.items() if left + ROUNDING >= share]
        if not wanted:
            return ()
        return tuple(free[:count]) if len(free) >= count else None

    def _run(self, job: Job, gpus: Sequence[str]) -> None:
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if self._gpus else {}
        try:
            ending = run_job(job, environment, lambda process: self._processes.update({job.name: process}))
        except Exception as error:
            ending = Ending(1, str(error))
        self._ended.put((job, ending))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; JAX would take memory of each."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
        return [str(number) for number, _ in enumerate(listed.splitlines())]
    return []

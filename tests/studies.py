"""What the tests of studies share: small jobs, who trains them now, and whether two studies came to the same."""

import json
import os
import threading
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from conftest import own_arrays, trained_agents

from guidedflow.runs.folder import RunFolder
from guidedflow.studies.jobs import state_of
from guidedflow.studies.plan import read_plan


def wait_for(condition, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Trainers:
    """Watches which processes hold the locks of runs: a sample every 20 ms, from what Linux says of open files."""

    def __init__(self, runs: Path):
        self.most: dict[Path, int] = {}
        self._runs = runs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def holders(self) -> dict[Path, list[int]]:
        found: dict[Path, list[int]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if b"guidedflow.studies.worker" not in (process / "cmdline").read_bytes():
                    continue
                opened = {Path(os.readlink(link)) for link in (process / "fd").iterdir()}
            except OSError:
                continue
            for path in opened:
                if path.name == "lock" and path.is_relative_to(self._runs):
                    found.setdefault(path.parent, []).append(int(process.name))
        return found

    def _watch(self):
        while not self._stop.wait(0.02):
            for run, processes in self.holders().items():
                self.most[run] = max(self.most.get(run, 0), len(processes))


JOBS, KILLS = (12, 10) if os.environ.get("GUIDEDFLOW_WHOLE_TESTS") else (4, 3)
"""As many as docs/benchmarks.md tells of, or fewer, which take half a minute."""


def small_jobs(folder: Path, runs: str) -> Path:
    """A plan of ``JOBS`` small jobs, two at once."""
    plan = folder / f"{runs}.toml"
    names = []
    for i in range(JOBS // 4):
        names.append(f"own{i}.npz")
        np.savez(folder / names[-1], **own_arrays(seed=i))
    settings = "hidden = [8], steps = 3000, save_every = 500, log_every = 100, batch_size = 32"
    plan.write_text(
        f'runs = "{runs}"\nretries = 20\n[resources]\ncpus = 1\n[[jobs]]\ntasks = {json.dumps(names)}\n'
        f'agents = ["bc", "iql", "rebrac", "gfp"]\nseeds = [0, 1]\npreset = "quick"\nsettings = {{ {settings} }}\n'
    )
    return plan


def learned(run: Path) -> list[np.ndarray]:
    """What a run ended with: its agents, and every metric that is no rate."""
    rows = [{k: v for k, v in row.items() if k != "updates_per_second"} for row in RunFolder(run).metrics()]
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(trained_agents(run), eqx.is_array))]
    return [*arrays, np.array([[row[name] for name in sorted(row) if name != "variant"] for row in rows])]


def assert_same_runs(plan: Path, undisturbed: Path) -> None:
    jobs, others = read_plan(plan).jobs, read_plan(undisturbed).jobs
    assert len(jobs) == len(others) == JOBS
    for job, other in zip(jobs, others, strict=True):
        assert state_of(job).status == state_of(other).status == "done"
        for mine, theirs in zip(learned(job.run_dir), learned(other.run_dir), strict=True):
            np.testing.assert_array_equal(mine, theirs)

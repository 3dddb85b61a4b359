"""Studies on Slurm, as far as a machine without it can show: stand-ins of its commands run what submitit asks for."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import guidedflow, own_arrays
from studies import learned, wait_for

from guidedflow.errors import RunError, SettingsError
from guidedflow.studies.jobs import read_attempts, state_of
from guidedflow.studies.plan import read_plan
from guidedflow.studies.study import make_engine

pytest.importorskip("submitit")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

COMMANDS = {
    # Records what is asked for, and starts every task of the array at once.
    "sbatch": """
asked = folder / "asked.txt"
text = Path(sys.argv[1]).read_text()
asked.write_text((asked.read_text() if asked.exists() else "") + text)
number = str(100 * text_count(asked))
(folder / number).write_text(sys.argv[1])
array = re.search(r"--array=0-(\\d+)", text)
for task in range(int(array[1]) + 1 if array else 1):
    start(number, str(task) if array else None)
print("Submitted batch job", number)
""",
    "scontrol": "start(*([*sys.argv[2].split('_'), None][:2]))",
    "srun": "command = sys.argv[sys.argv.index(sys.executable) :]\nos.execv(command[0], command)",
    "sacct": """
print("JobID|State|NodeList")
for asked in (sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == "-j"):
    print(f"{asked}|RUNNING|here")
    for task in range(3):
        print(f"{asked}_{task}|RUNNING|here")
""",
    "scancel": "",
}
HEAD = """#!{python}
import os, re, subprocess, sys
from pathlib import Path
folder = Path({folder!r})


def text_count(asked):
    return asked.read_text().count("#!/bin/bash")


def start(number, task):
    environment = {{**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}}
    if task is not None:
        environment |= {{"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}}
    script = (folder / number).read_text()
    options = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}}
    subprocess.Popen(["bash", script], env=environment, **options)


"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Puts the stand-ins on the path; returns the folder in which sbatch records what it was asked for."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, code in COMMANDS.items():
        (folder / name).write_text(HEAD.format(python=sys.executable, folder=str(folder)) + code)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def write(folder: Path, runs: str) -> Path:
    np.savez(folder / "own.npz", **own_arrays())
    plan = folder / f"{runs}.toml"
    plan.write_text(
        f'runs = "{runs}"\n[resources]\ncpus = 1\nmemory_gb = 3\n[slurm]\npartition = "night"\ntime = 90\n'
        '[[jobs]]\ntasks = ["own.npz"]\nagents = ["bc", "iql"]\npreset = "quick"\n'
        "settings = { hidden = [8], steps = 4000, save_every = 500, log_every = 100, batch_size = 32 }\n"
    )
    return plan


def submitted() -> dict[str, int]:
    """The processes that Slurm would have started, by array task."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"submitit.core._submit" in (process / "cmdline").read_bytes().split(b"\0"):
                environment = (process / "environ").read_text()
                found[re.search(r"SLURM_ARRAY_TASK_ID=(\d+)", environment)[1]] = int(process.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.whole
def test_an_array_job_that_is_warned_saves_its_run_and_goes_on(tmp_path, slurm):
    plan = write(tmp_path, "runs")
    command = [sys.executable, "-m", "guidedflow", "study", "run", str(plan), "--engine", "slurm"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bc, iql = read_plan(plan).jobs
    wait_for(lambda: state_of(bc).step > 0)
    driver.kill()
    driver.wait()
    os.kill(submitted()["0"], signal.SIGUSR2)
    done = guidedflow("study", "run", plan, "--engine", "slurm")
    assert done.returncode == 0, done.stderr
    assert [state_of(job).status for job in (bc, iql)] == ["done", "done"]
    assert [one.code for one in read_attempts(bc)] == [128 + signal.SIGTERM, 0]
    assert [one.code for one in read_attempts(iql)] == [0]
    asked = (slurm / "asked.txt").read_text()
    assert asked.count("#!/bin/bash") == 1  # The second driver found the jobs in the queue.
    for option in (
        "array=0-1",
        "cpus-per-task=1",
        "mem=3GB",
        "partition=night",
        "time=90",
        "signal=USR2@90",
        "requeue",
    ):
        assert f"#SBATCH --{option}" in asked
    other = write(tmp_path, "undisturbed")
    assert guidedflow("study", "run", other).returncode == 0
    for mine, theirs in zip(read_plan(plan).jobs, read_plan(other).jobs, strict=True):
        for one, another in zip(learned(mine.run_dir), learned(theirs.run_dir), strict=True):
            np.testing.assert_array_equal(one, another)


def test_what_slurm_cannot_do_is_said(tmp_path, slurm, monkeypatch):
    plan = read_plan(write(tmp_path, "runs"))
    halves = [dataclasses.replace(job, resources=dataclasses.replace(job.resources, gpus=0.5)) for job in plan.jobs]
    with pytest.raises(SettingsError, match="gpus: expected a whole number with Slurm"):
        make_engine("slurm", plan, None).submit(halves)
    odd = dataclasses.replace(plan, slurm={"colour": "red"})
    with pytest.raises(SettingsError, match="colour"):
        make_engine("slurm", odd, None).submit(plan.jobs)
    (slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    with pytest.raises(RunError, match=r"expected sbatch to take 2 jobs, found: .*invalid partition"):
        make_engine("slurm", plan, None).submit(plan.jobs)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="expected Slurm's commands"):
        make_engine("slurm", plan, None).submit(plan.jobs)
    assert not (slurm / "asked.txt").exists()

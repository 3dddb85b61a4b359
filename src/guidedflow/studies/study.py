"""``study``: starts or continues all jobs of a plan."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import filelock

from guidedflow.errors import RunError, SettingsError
from guidedflow.locks import held
from guidedflow.notices import show_notices
from guidedflow.studies.engine import Engine
from guidedflow.studies.jobs import JobState, state_of
from guidedflow.studies.plan import Job, Plan, read_plan

logger = logging.getLogger("guidedflow")
EngineName = Literal["local", "ray", "slurm"]


class Study(NamedTuple):
    """A study that has been carried out."""

    runs: Path
    """The folder of its runs."""
    states: tuple[JobState, ...]
    """Where each job stands, in the plan's order."""


def study(
    plan: Path | str | Mapping[str, Any],
    *,
    engine: EngineName = "local",
    address: str | None = None,
    on_event: Callable[[Job, str], None] | None = None,
) -> Study:
    """Carry out all jobs of a plan: start them, or continue them after any failure. Jobs that are done are left alone.

    Args:
        plan: a TOML file, or what one holds (docs/studies.md).
        engine: ``local``: on this machine; ``ray``: on a Ray cluster; ``slurm``: by Slurm.
        address: of the Ray cluster; None: the one that the environment names, else one on this machine.
        on_event: called with a job and what became of it, ``done`` or what went wrong; None: that is logged.

    Raises:
        SettingsError: naming every mistake in the plan, before anything starts.
        RunError: somebody else carries out the study now; or jobs failed, once all others are done.
    """
    show_notices()
    made = read_plan(plan)
    report = on_event or (lambda job, text: logger.info("%s: %s", job.name, text))
    (made.runs / "jobs").mkdir(parents=True, exist_ok=True)
    try:
        with held(made.runs / "jobs" / "study.lock"):
            failed = _carry_out(made, engine, address, report)
    except filelock.Timeout as error:
        raise RunError(
            f"{made.runs}: expected a study that nobody carries out now, found another process; wait for it"
        ) from error
    if failed:
        each = "; ".join(f"{name}: {words}" for name, words in failed.items())
        found = f"{len(failed)} of {len(made.jobs)} jobs failed"
        raise RunError(f"{made.source}: {found}: {each}; the logs are in {made.runs / 'jobs'}")
    return Study(made.runs, tuple(map(state_of, made.jobs)))


def _carry_out(plan: Plan, name: EngineName, address: str | None, report: Callable[[Job, str], None]) -> dict[str, str]:
    """Why each job that failed did, by its name."""
    states = list(map(state_of, plan.jobs))
    differing = [state.why for state in states if state.status == "differs"]
    if differing:
        raise SettingsError(f"{plan.source}: {'; '.join(differing)}")
    todo = [state.job for state in states if state.status != "done"]
    logger.info("%d of %d jobs are done already", len(plan.jobs) - len(todo), len(plan.jobs))
    if not todo:
        return {}
    failures, failed, pending = Counter[str](), dict[str, str](), len(todo)
    engine = make_engine(name, plan, address)
    try:
        engine.submit(todo)
        while pending:
            job, ending = engine.wait()
            pending -= 1
            if ending.code == 0:
                report(job, f"done, {len(todo) - pending} of {len(todo)}")
                continue
            failures[job.name] += 1
            if failures[job.name] <= plan.retries:
                report(job, f"failed, is tried again ({failures[job.name]} of {plan.retries}): {ending.words}")
                engine.submit([job])
                pending += 1
            else:
                report(job, f"failed: {ending.words}")
                failed[job.name] = ending.words
    finally:
        engine.close()
    return failed


def make_engine(name: EngineName, plan: Plan, address: str | None) -> Engine:
    """The engine of a name.

    Raises:
        SettingsError: there is none, or its package is missing.
    """
    if address is not None and name != "ray":
        raise SettingsError(f"address: expected none with the engine {name}, found {address!r}")
    if name == "local":
        from guidedflow.studies.local import LocalEngine

        return LocalEngine()
    if name == "ray":
        from guidedflow.studies.ray import RayEngine

        return RayEngine(address)
    if name == "slurm":
        from guidedflow.studies.slurm import SlurmEngine

        return SlurmEngine(plan)
    raise SettingsError(f"engine: expected local, ray or slurm, found {name!r}")

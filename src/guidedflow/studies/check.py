"""What can be said against a study's jobs before any of them starts: agents, settings, data."""

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from pathlib import Path

from guidedflow.agents import Agent, find_agent
from guidedflow.data.formats import find_format
from guidedflow.errors import SettingsError
from guidedflow.runs.folder import RunFolder
from guidedflow.studies.plan import FETCH, Job, Mistakes, Plan
from guidedflow.suites import find_task
from guidedflow.suites.suite import Task
from guidedflow.training.prepare import check_task
from guidedflow.training.settings import TrainSettings, members, plain_sweep, resolve


def check_jobs(plan: Plan, mistakes: Mistakes) -> None:
    """Add what is wrong with the jobs of a plan.

    Args:
        plan: the plan.
        mistakes: where it is added.
    """
    task_of, agent_of = functools.cache(find_task), functools.cache(find_agent)
    for job in plan.jobs:
        with mistakes.gathered():
            RunFolder(job.run_dir).check_path()
            if job.task and not job.dataset:
                find_format(job.task)
        with mistakes.gathered():
            agent = agent_of(job.agent)
            for mistake in _in_settings(job, agent, task_of(job.task) if job.dataset else None):
                mistakes.add(mistake)
    for job in {job.dataset: job for job in plan.jobs if job.dataset}.values():
        with mistakes.gathered():
            _check_data(job, task_of(job.task))


def _in_settings(job: Job, agent: type[Agent], task: Task | None) -> list[str]:
    """What is wrong with a job's settings: every unknown name, else what is found first."""
    known = [field.name for found in (TrainSettings, agent.config_class) for field in dataclasses.fields(found)]
    mistakes = [
        f"{name}: expected a setting of {agent.__name__} or of the training, found none of that name; the nearest: "
        + ", ".join(difflib.get_close_matches(name, known, cutoff=0.3))
        for name in job.settings
        if name not in known
    ]
    try:
        _check_settings(job, agent, task)
    except SettingsError as error:
        return mistakes or [str(error)]
    return mistakes


def _check_settings(job: Job, agent: type[Agent], task: Task | None) -> None:
    resolved = resolve(agent, job.preset, task, {**job.settings, "seeds": job.seeds})
    members(resolved.config, resolved.train.seeds, plain_sweep(job.sweep))
    if resolved.train.online_steps:
        check_task(agent, task, resolved.train)


def _check_data(job: Job, task: Task) -> None:
    """That the data of a job is here, or can be made or fetched."""
    if isinstance(job.recipe, Mapping):
        makeable = task.suite.makes()
        if job.dataset not in makeable:
            raise SettingsError(f'data: expected "{FETCH}" for {job.dataset}, which cannot be made here, found a table')
        policy = job.recipe.get("policy")
        if policy is not None and not Path(policy).is_file():
            raise SettingsError(f"data: {job.dataset}: policy: expected a file, found none at {policy}")
    elif job.recipe is None and not task.suite.has_data(task, None if job.data_dir is None else Path(job.data_dir)):
        ways = " or ".join(f"`{command}`" for command in task.suite.commands(task))
        raise SettingsError(
            f"data: expected {job.dataset} here or in the table [data], found neither; get it with {ways}, or say "
            f'"{job.dataset}" = "{FETCH}" there'
        )

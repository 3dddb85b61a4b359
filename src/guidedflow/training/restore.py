"""Reads a run's folder back into what training made of it: its settings, its task and its agents."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from guidedflow.agents import Agent, agent_name, find_agent
from guidedflow.errors import DataError, RunError, SettingsError
from guidedflow.runs.config import FILE, RunConfig
from guidedflow.runs.folder import Row, RunFolder
from guidedflow.runs.summary import main_scores
from guidedflow.settings import build
from guidedflow.suites import find_task
from guidedflow.suites.gym import environment_task, is_safe_name
from guidedflow.suites.suite import Task
from guidedflow.training.checkpoint import Checkpoints
from guidedflow.training.members import init_agents
from guidedflow.training.settings import Member, TrainSettings, check_settings, members
from guidedflow.types import Variant, variant_text


def run_task(config: RunConfig, path: Path, env: Any = None) -> Task | None:
    """What a run was trained for, or an environment given in its place; None if there is neither.

    Args:
        config: of the run.
        path: what error messages call it.
        env: a gymnasium id, or a function that makes an environment.

    Raises:
        RunError: its environment is a function, or has to be imported: it has to be given again.
        DataError: the environment given does not fit the run's data.
    """
    if env is not None:
        task = environment_task(env, spec=config.spec)
        task.suite.check(task, config.spec, str(path))
        return task
    if config.task is not None:
        return find_task(config.task)
    if config.env is None:
        return None
    if not is_safe_name(config.env):  # A folder may come from anyone: no module is imported because it names one.
        raise RunError(f"{path}: its environment is {config.env}; give it again: env= (--env {config.env})")
    return environment_task(config.env, spec=config.spec)


class SavedRun:
    """A run as its folder describes it.

    Args:
        path: the folder.
        agent: the algorithm's class, where it is one of the user's own that no entry point names.

    Raises:
        RunError: it is no run's folder, or its settings are damaged.
        SettingsError: the algorithm has to be given.
    """

    def __init__(self, path: Path, agent: str | type[Agent] | None = None):
        self.folder = RunFolder(path)
        self.config = self.folder.config()
        self.folder.check_path()
        self.spec = self.config.spec
        self.agent = self._agent(agent)
        try:
            self.algorithm: Any = build(self.agent.config_class, self.config.config)
            self.settings = build(TrainSettings, self.config.settings)
            check_settings(self.settings)
            self.members = members(self.algorithm, self.settings.seeds, self.config.sweep)
            self.agent.check_spec(self.spec)
        except (SettingsError, DataError) as error:
            raise RunError(f"{path / FILE}: expected the settings of a run, found: {error}") from error

    def _agent(self, given: str | type[Agent] | None) -> type[Agent]:
        name = self.config.agent
        if given is not None:
            found = find_agent(given)
            if agent_name(found) != name:
                raise SettingsError(
                    f"{self.folder.path}: expected the settings of the run, found others: agent {name} -> "
                    f"{agent_name(found)}"
                )
            return found
        if ":" in name:  # A run's folder may come from anyone: no module is imported because it names one.
            raise SettingsError(
                f"{self.folder.path}: its algorithm is {name}, which no package registers; give it again: agent= "
                f"(--agent {name})"
            )
        return find_agent(name)

    def task(self, env: Any = None) -> Task | None:
        """As ``run_task``, of this run."""
        return run_task(self.config, self.folder.path, env)

    def filter(
        self, policy: str | None, variant: Variant | Mapping[str, float] | None, seed: int | None
    ) -> Callable[[Member, str], bool]:
        """Whether a member's policy is among those asked for.

        Raises:
            SettingsError: there is no such policy, variant or seed; the message lists those there are.
        """
        wanted = self.find_variant(variant) if variant is not None else None
        self._check("policy", policy, self.agent.policy_names)
        self._check("seed", seed, self.settings.seeds)
        return lambda member, name: (
            (policy is None or name == policy)
            and (wanted is None or member.variant == wanted)
            and (seed is None or member.seed == seed)
        )

    def find_variant(self, variant: Variant | Mapping[str, float]) -> Variant:
        """One of the run's variants, however its pairs are ordered.

        Raises:
            SettingsError: there is none.
        """
        there = list(dict.fromkeys(member.variant for member in self.members))
        try:
            asked = {name: float(value) for name, value in dict(variant).items()}
        except (TypeError, ValueError):
            asked = {"": float("nan")}
        found = next((one for one in there if dict(one) == asked), None)
        if found is None:
            listed = ", ".join(variant_text(one) or "none" for one in there)
            raise SettingsError(f"variant: expected one of {self.folder.path} ({listed}), found {variant!r}")
        return found

    def _check(self, name: str, value: Any, there: Any) -> None:
        if value is not None and value not in there:
            listed = ", ".join(map(str, there))
            raise SettingsError(f"{name}: expected one of {listed} of {self.folder.path}, found {value!r}")

    def assessed(self, policy: str | None, variant: Variant | Mapping[str, float] | None, seed: int | None) -> Row:
        """The row of assessment.csv of the best policy, among those asked for, whose checkpoint is there.

        Raises:
            RunError: there is none.
            SettingsError: as ``filter``.
        """
        only = self.filter(policy, variant, seed)
        with self.checkpoints() as checkpoints:
            steps = checkpoints.steps()
        for row in self.folder.assessment():
            if row["step"] in steps and only(Member(row["variant"], row["seed"], None), row["policy"]):
                return row
        raise RunError(
            f"{self.folder.path}: checkpoint: expected an assessment of such a policy at one of the steps "
            f"{', '.join(map(str, steps))}, found none; make it with `guidedflow assess "
            f"{shlex.quote(str(self.folder.path))}`"
        )

    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints, to be read.

        Raises:
            RunError: there is none yet.
        """
        if not self.folder.checkpoints.is_dir():
            raise RunError(f"{self.folder.path}: expected a checkpoint, found none yet")
        scores = main_scores(self.folder.evaluations())
        return Checkpoints(self.folder.checkpoints, scores=lambda: scores, read_only=True)

    def like(self) -> Agent:
        """The agents' shapes, stacked along a leading axis of members."""
        return jax.eval_shape(lambda: init_agents(self.agent, self.members, self.spec))

    def agents(self, checkpoint: str | int) -> tuple[Agent, int]:
        """The agents of a checkpoint, and its step.

        Raises:
            RunError: there is no such checkpoint, or it is damaged.
        """
        with self.checkpoints() as checkpoints:
            step = checkpoints.find(checkpoint)
            return checkpoints.restore(step, "agents", self.like()), step

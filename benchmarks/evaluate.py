"""How fast a policy is evaluated, and how much of that time is the policy's own.

    python -m benchmarks.evaluate
    python -m benchmarks.evaluate --run runs/TASK/RUN --policy vabc

The policy of a freshly initialised agent, which acts for as long as an episode lasts, or that of a run, which may end
its episodes early. Starting the environments and compiling the policy are counted apart: one episode a slot comes first
and is not measured. ``policy_share`` is the share of wall time that the policy's calls take, from observations on the
host to actions on the host. ``environments_seconds`` is the floor: the last evaluation again, its actions replayed.
``environments_megabytes`` is the memory of the processes that hold the environments.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

import guidedflow
from benchmarks.common import TASK, elapsed, parse, report, run, spread
from guidedflow.agents.agent import Act
from guidedflow.envs.vector import VectorEnv
from guidedflow.errors import SettingsError
from guidedflow.processes import available_cores
from guidedflow.settings import Count, Sizes
from guidedflow.suites import Task, find_task
from guidedflow.training.episodes import run_episodes
from guidedflow.training.restore import SavedRun
from guidedflow.types import Spec


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure evaluation."""

    task: str = TASK
    """What to act in; with --run that run's own task is taken."""
    agent: str = "gfp"
    """The algorithm of the fresh agent."""
    hidden: Sizes = (512, 512, 512, 512)
    """Its hidden layer sizes."""
    run: Path | None = None
    """A run whose newest checkpoint acts instead."""
    policy: str | None = None
    """One of the agent's policies; None: the main one."""
    episodes: Count = 50
    """Episodes an evaluation."""
    slots: Count = 4
    """Environments stepped side by side."""
    workers: Count | None = None
    """Processes for them; None: one a core."""
    repeats: Count = 3
    """Evaluations measured."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    policy, task = find_policy(arguments)
    row = measure(policy, task, arguments)
    settings = {**vars(arguments), "task": task.id, "device": jax.devices()[0].device_kind}
    if arguments.run is not None:
        del settings["agent"], settings["hidden"]
    report(settings, [row])


def find_policy(arguments: Arguments) -> tuple[guidedflow.Policy, Task]:
    """The policy that acts, and where."""
    if arguments.run is not None:
        policy = guidedflow.load_policy(arguments.run, arguments.policy)
        acted_in = SavedRun(arguments.run).task()
        if acted_in is None:
            raise SettingsError(
                f"run: expected one with an environment to act in, found {arguments.run}, which has none"
            )
        return policy, acted_in
    task = find_task(arguments.task)
    dtype = np.dtype(np.uint8 if task.is_visual else np.float32)
    spec = Spec(task.observation_shape, dtype, task.action_size)
    agent = guidedflow.make_agent(arguments.agent, spec, hidden=arguments.hidden)
    name = arguments.policy or agent.policy_names[0]
    if name not in agent.policy_names:
        raise SettingsError(f"policy: expected one of {', '.join(agent.policy_names)}, found {name}")
    return guidedflow.Policy(agent, name, spec), task


class Timed:
    """The policy as ``run_episodes`` calls it, with the time that its calls take."""

    def __init__(self, policy: guidedflow.Policy):
        self._policy = policy
        self.calls: list[float] = []
        self.actions: dict[int, np.ndarray] = {}

    def __call__(self, observations: np.ndarray, key: Any, call: int) -> np.ndarray:
        """Its actions; it draws noise of its own, as it does where it is deployed."""
        began = time.perf_counter()
        actions = self._policy(observations)
        self.calls.append(time.perf_counter() - began)
        self.actions[call] = actions
        return actions


def measure(policy: guidedflow.Policy, task: Task, arguments: Arguments) -> dict[str, Any]:
    """One row."""
    act = Timed(policy)
    spec = policy.spec._replace(action_range=None)  # The policy has put its actions into the range already.
    slots, episodes = min(arguments.slots, arguments.episodes), arguments.episodes
    make_env = functools.partial(task.suite.make_env, task)
    workers = arguments.workers or available_cores()
    began = time.perf_counter()
    options: dict[str, Any] = {"gl_backend": task.gl_backend(), "spec": spec}
    with VectorEnv(make_env, slots=slots, workers=workers, **options) as env:
        env.wait_until_ready()
        started = time.perf_counter() - began
        memory = sum(worker.memory_info().rss for worker in psutil.Process().children())
        run_episodes(act, env, spec, episodes=slots, seed=0)
        compiled = max(act.calls)
        seconds, steps, shares = [], [], []
        for repeat in range(arguments.repeats):
            act.calls.clear()
            act.actions.clear()
            began = time.perf_counter()
            found = run_episodes(act, env, spec, episodes=episodes, seed=repeat + 1)
            seconds.append(time.perf_counter() - began)
            steps.append(sum(episode.length for episode in found))
            shares.append(sum(act.calls) / seconds[-1])
        replay: Act = lambda observations, key, call: act.actions[call]  # noqa: E731
        alone = elapsed(lambda: run_episodes(replay, env, spec, episodes=episodes, seed=arguments.repeats))
    return {
        "seconds": spread(seconds),
        "episodes_per_second": spread(episodes / second for second in seconds),
        "steps_per_second": spread(count / second for count, second in zip(steps, seconds, strict=True)),
        "policy_share": spread(shares),
        "environments_seconds": alone,
        "start_seconds": started,
        "environments_megabytes": memory / 1e6,
        "compile_seconds": compiled,
    }


if __name__ == "__main__":
    run(main)

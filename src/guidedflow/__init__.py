"""Train, evaluate and deploy offline-RL policies with flow models: Guided Flow Policy and the methods beside it.

The names below are the public interface; each is loaded when it is first used, so that worker processes and
``guidedflow --help`` do not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidedflow.agents import AGENTS as AGENTS
    from guidedflow.agents import Agent as Agent
    from guidedflow.data.convert import convert as convert
    from guidedflow.data.dataset import Dataset as Dataset
    from guidedflow.data.inspect import inspect as inspect
    from guidedflow.deploy.export import Exported as Exported
    from guidedflow.deploy.export import export as export
    from guidedflow.deploy.policy import Policy as Policy
    from guidedflow.deploy.policy import load_policy as load_policy
    from guidedflow.deploy.serve import serve as serve
    from guidedflow.errors import DataError as DataError
    from guidedflow.errors import Diverged as Diverged
    from guidedflow.errors import GuidedflowError as GuidedflowError
    from guidedflow.errors import Interrupted as Interrupted
    from guidedflow.errors import RunError as RunError
    from guidedflow.errors import SettingsError as SettingsError
    from guidedflow.errors import WorkerDied as WorkerDied
    from guidedflow.graphs.hub import pull as pull
    from guidedflow.graphs.hub import push as push
    from guidedflow.results.compare import compare as compare
    from guidedflow.results.report import report as report
    from guidedflow.runs.config import RunConfig as RunConfig
    from guidedflow.runs.folder import RunFolder as RunFolder
    from guidedflow.studies.study import Study as Study
    from guidedflow.studies.study import study as study
    from guidedflow.suites import SUITES as SUITES
    from guidedflow.suites import find_task as find_task
    from guidedflow.suites import generate as generate
    from guidedflow.suites import load_dataset as load_dataset
    from guidedflow.suites import tasks as tasks
    from guidedflow.suites.suite import Suite as Suite
    from guidedflow.suites.suite import Task as Task
    from guidedflow.training.assess import assess as assess
    from guidedflow.training.evaluate import evaluate as evaluate
    from guidedflow.training.fit import fit as fit
    from guidedflow.training.fit import make_agent as make_agent
    from guidedflow.training.progress import Progress as Progress
    from guidedflow.training.run import Run as Run
    from guidedflow.training.train import resume as resume
    from guidedflow.training.train import train as train

_HOMES = {
    "AGENTS": "agents",
    "Agent": "agents",
    "DataError": "errors",
    "Dataset": "data.dataset",
    "Diverged": "errors",
    "Exported": "deploy.export",
    "GuidedflowError": "errors",
    "Interrupted": "errors",
    "Policy": "deploy.policy",
    "Progress": "training.progress",
    "Run": "training.run",
    "RunConfig": "runs.config",
    "RunError": "errors",
    "RunFolder": "runs.folder",
    "SUITES": "suites",
    "SettingsError": "errors",
    "Study": "studies.study",
    "Suite": "suites.suite",
    "Task": "suites.suite",
    "WorkerDied": "errors",
    "assess": "training.assess",
    "compare": "results.compare",
    "convert": "data.convert",
    "evaluate": "training.evaluate",
    "export": "deploy.export",
    "find_task": "suites",
    "fit": "training.fit",
    "generate": "suites",
    "inspect": "data.inspect",
    "load_dataset": "suites",
    "load_policy": "deploy.policy",
    "make_agent": "training.fit",
    "pull": "graphs.hub",
    "push": "graphs.hub",
    "report": "results.report",
    "resume": "training.train",
    "serve": "deploy.serve",
    "study": "studies.study",
    "tasks": "suites",
    "train": "training.train",
}

__all__ = list(_HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("guidedflow")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"guidedflow.{_HOMES[name]}"), name)

"""Train, evaluate and deploy offline-RL policies with flow models: Guided Flow Policy and its rivals.

The names below are the public interface; each is loaded when it is first used, so that worker processes and
``guidedflow --help`` do not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidedflow.agents import AGENTS as AGENTS
    from guidedflow.api import Policy as Policy
    from guidedflow.api import Run as Run
    from guidedflow.api import compare as compare
    from guidedflow.api import evaluate as evaluate
    from guidedflow.api import generate_adroit as generate_adroit
    from guidedflow.api import generate_stand_in as generate_stand_in
    from guidedflow.api import load_dataset as load_dataset
    from guidedflow.api import load_policy as load_policy
    from guidedflow.api import make_agent as make_agent
    from guidedflow.api import report as report
    from guidedflow.api import resume as resume
    from guidedflow.api import train as train
    from guidedflow.data.convert import convert as convert
    from guidedflow.data.dataset import Dataset as Dataset
    from guidedflow.errors import UserError as UserError
    from guidedflow.suites.ogbench.oracles import generate as generate
    from guidedflow.training.trainer import fit as fit

_HOMES = {
    "AGENTS": "guidedflow.agents",
    "Dataset": "guidedflow.data.dataset",
    "Policy": "guidedflow.api",
    "Run": "guidedflow.api",
    "UserError": "guidedflow.errors",
    "compare": "guidedflow.api",
    "convert": "guidedflow.data.convert",
    "evaluate": "guidedflow.api",
    "fit": "guidedflow.training.trainer",
    "generate": "guidedflow.suites.ogbench.oracles",
    "generate_adroit": "guidedflow.api",
    "generate_stand_in": "guidedflow.api",
    "load_dataset": "guidedflow.api",
    "load_policy": "guidedflow.api",
    "make_agent": "guidedflow.api",
    "report": "guidedflow.api",
    "resume": "guidedflow.api",
    "train": "guidedflow.api",
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
    return getattr(importlib.import_module(_HOMES[name]), name)

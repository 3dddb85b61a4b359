"""One algorithm a file, losses first. To add one: its file, and a line in ``AGENTS``."""

from guidedflow.agents.agent import Agent
from guidedflow.errors import SettingsError
from guidedflow.plugins import Registry, import_named

AGENTS: Registry[type[Agent]] = Registry(
    "agent",
    {
        "gfp": "guidedflow.agents.gfp:GFP",
        "fql": "guidedflow.agents.fql:FQL",
        "rebrac": "guidedflow.agents.rebrac:ReBRAC",
        "brac": "guidedflow.agents.brac:BRAC",
        "iql": "guidedflow.agents.iql:IQL",
        "ifql": "guidedflow.agents.ifql:IFQL",
        "bc": "guidedflow.agents.bc:BC",
    },
    group="guidedflow.agents",
)
"""Every algorithm by the name that ``--agent`` takes; other packages add theirs by entry points of that group."""


def find_agent(agent: str | type[Agent]) -> type[Agent]:
    """The algorithm of a name, of ``module:Class``, or the class itself.

    Raises:
        SettingsError: there is none, or it is no ``Agent``.
    """
    found: object = agent
    if isinstance(agent, str):
        found = import_named(agent, "agent") if ":" in agent else AGENTS.find(agent)
    if not (isinstance(found, type) and issubclass(found, Agent)):
        names = ", ".join(AGENTS)
        raise SettingsError(f"agent: expected one of {names}, or a class derived from Agent, found {agent!r}")
    return found


def agent_name(agent: type[Agent]) -> str:
    """The name by which ``find_agent`` finds a class: its registered one, else ``module:Class``."""
    return AGENTS.name_of(agent) or f"{agent.__module__}:{agent.__qualname__}"

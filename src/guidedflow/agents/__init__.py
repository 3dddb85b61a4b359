"""One algorithm a file, losses first. To add one: its file, and a line in ``AGENTS``."""

from guidedflow.agents.agent import Agent
from guidedflow.agents.bc import BC
from guidedflow.agents.brac import BRAC
from guidedflow.agents.fql import FQL
from guidedflow.agents.gfp import GFP
from guidedflow.agents.ifql import IFQL
from guidedflow.agents.iql import IQL
from guidedflow.agents.rebrac import ReBRAC
from guidedflow.errors import UserError

AGENTS: dict[str, type[Agent]] = {
    "gfp": GFP,
    "fql": FQL,
    "rebrac": ReBRAC,
    "brac": BRAC,
    "iql": IQL,
    "ifql": IFQL,
    "bc": BC,
}
"""Every algorithm by the name that ``--agent`` takes."""


def find_agent(name: object) -> type[Agent]:
    """The algorithm of that name.

    Raises:
        UserError: there is none.
    """
    if not isinstance(name, str) or name not in AGENTS:
        raise UserError(f"agent: expected one of {', '.join(AGENTS)}, found {name!r}")
    return AGENTS[name]

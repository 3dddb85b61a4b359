"""One algorithm a file, losses first. To add one: its file, and a line in ``AGENTS``."""

from guidedflow.agents.agent import Agent
from guidedflow.agents.gfp import GFP

AGENTS: dict[str, type[Agent]] = {
    "gfp": GFP,
}
"""Every algorithm by the name that ``--agent`` takes."""

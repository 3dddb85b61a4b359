"""``guidedflow agents``: the algorithms."""

import dataclasses

from guidedflow.cli.show import print_columns


@dataclasses.dataclass(frozen=True)
class Agents:
    """List the algorithms."""

    def __call__(self) -> int:
        """Print a line an algorithm."""
        from guidedflow.agents import AGENTS

        rows = [
            {
                "agent": name,
                "policies": ", ".join(agent.policy_names),
                "learns from": agent.needs,
                "online": "yes" if agent.goes_online else "no",
                "paper": agent.paper,
            }
            for name, agent in AGENTS.items()
        ]
        print_columns(rows, left_out=("online", "learns from"), folds=24)
        return 0

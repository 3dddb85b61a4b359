"""``guidedflow agents``: the algorithms."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Agents:
    """List the algorithms."""

    def __call__(self) -> int:
        """Print a line an algorithm."""
        from guidedflow.agents import AGENTS

        print(f"{'agent':8} {'policies':13} {'learns from':23} {'online':7} paper")
        for name, agent in AGENTS.items():
            policies, online = ", ".join(agent.policy_names), "yes" if agent.goes_online else "no"
            print(f"{name:8} {policies:13} {agent.needs:23} {online:7} {agent.paper}")
        return 0

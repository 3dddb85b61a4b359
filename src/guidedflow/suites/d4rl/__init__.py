"""D4RL's Adroit and AntMaze tasks, on today's MuJoCo (docs/tasks.md, "D4RL")."""

from guidedflow.suites.d4rl.suite import D4RL

__all__ = ["D4RL"]

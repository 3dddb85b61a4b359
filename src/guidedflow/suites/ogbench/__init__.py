"""OGBench's single-task environments: 100 of states and 5 of pixels (docs/tasks.md, "OGBench")."""

from guidedflow.suites.ogbench.suite import OGBench

__all__ = ["OGBench"]

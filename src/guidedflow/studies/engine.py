"""What carries out the jobs of a study."""

from collections.abc import Sequence
from typing import Protocol

from guidedflow.studies.launch import Ending
from guidedflow.studies.plan import Job


class Engine(Protocol):
    """Carries out jobs, each by ``launch.run_job`` on some machine."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs on; does not wait for them.

        Raises:
            SettingsError: one asks for more than there can be.
        """

    def wait(self) -> tuple[Job, Ending]:
        """Wait until one of the jobs has ended.

        Raises:
            RunError: the engine itself is lost.
        """

    def close(self) -> None:
        """Give up what this process holds. What runs on this machine, or by Ray, is saved and ends."""

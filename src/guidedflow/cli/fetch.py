"""``guidedflow data fetch``: published data."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.show import NEW_DATA_DIR, optional


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Download a task's published data set."""

    interrupted: ClassVar[str] = "interrupted; the same command goes on with what has been received"

    task: Annotated[Positional[str], optional("TASK")]
    """A task's id, or the name of its data."""
    data_dir: Annotated[Path | None, NEW_DATA_DIR] = None
    """Where to put the files."""

    def __call__(self) -> int:
        """Print the paths of what is there now."""
        from guidedflow.suites import find_data_task

        task = find_data_task(self.task)
        print(*task.suite.fetch(task, self.data_dir), sep="\n")
        return 0

"""``guidedflow tasks``: the tasks of all benchmarks."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from guidedflow.cli.show import DATA_DIR, Flag, optional, print_columns, print_json
from guidedflow.errors import SettingsError


@dataclasses.dataclass(frozen=True)
class Tasks:
    """List the tasks."""

    match: Annotated[Positional[str], optional("MATCH")] = ""
    """Only tasks in whose id, category or data this is found."""
    here: Flag = False
    """Only tasks whose data is here."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        """Print a line a task, or JSON."""
        from guidedflow.suites import tasks

        found = [task for task in tasks() if self.match in f"{task.id} {task.category} {task.dataset}"]
        rows = [(task, task.suite.has_data(task, self.data_dir)) for task in found]
        rows = [(task, here) for task, here in rows if here or not self.here]
        if not rows:
            where = " with data here" if self.here else ""
            raise SettingsError(f"match: expected a part of a task's id, found {self.match!r}, in no task{where}")
        if self.json:
            print_json([_as_json(task) | {"here": here} for task, here in rows])
            return 0
        table = [
            {
                "task": task.id,
                "observation": "x".join(map(str, shape)) if isinstance(shape, tuple) else str(shape),
                "action": str(task.action_size),
                "score": task.scored_by,
                "data": "here" if here else "-",
                "environment": task.environment,
                "category": task.category,
            }
            for task, here in rows
            for shape in [task.observation_shape]
        ]
        print_columns(table, left_out=("environment", "category", "observation", "action", "score", "data"))
        return 0


def _as_json(task: Any) -> dict[str, Any]:
    names = ("id", "category", "dataset", "environment", "observation_shape", "action_size", "scored_by", "is_visual")
    return {"benchmark": task.suite.name} | {name: getattr(task, name) for name in names}

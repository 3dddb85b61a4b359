"""``guidedflow data inspect``: what is in a data file."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional

from guidedflow.cli.show import DATA_DIR, Flag, optional, print_json
from guidedflow.errors import SettingsError


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what is in a data file and what is wrong with it."""

    interrupted: ClassVar[str] = "interrupted"

    what: Annotated[Positional[str], optional("TASK_OR_PATH")]
    """A task's id, the name of its data, an npz or HDF5 file, or a Minari data set's folder."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        """Print a table and what was found amiss, which makes the exit status 2."""
        from guidedflow.data.inspect import inspect
        from guidedflow.suites import find_data_task

        try:
            task = find_data_task(self.what)
        except SettingsError:
            if not Path(self.what).exists() and not self.what.endswith((".npz", ".h5", ".hdf5")):
                raise
            report = inspect(Path(self.what))
        else:
            path = task.suite.find_data(task, self.data_dir)
            report = inspect(path, functools.partial(task.suite.load, task))
        if self.json:
            fields = [field._asdict() for field in report.fields]
            print_json({**report._asdict(), "path": str(report.path), "fields": fields})
        else:
            _print_report(report)
        return 2 if report.problems else 0


def _print_report(report: Any) -> None:
    from rich.table import Table

    from guidedflow.training.display import make_console

    console = make_console()
    table = Table("field", "shape", "type", "lowest", "highest", title=str(report.path))
    for field in report.fields:
        low, high = ("" if value is None else f"{value:.4g}" for value in (field.low, field.high))
        table.add_row(field.name, str(field.shape), field.dtype, low, high)
    console.print(table)
    console.print(f"made by: {report.made_by}", soft_wrap=True)
    if report.spec is not None and report.spec["observation_keys"]:
        keys = ", ".join(f"{name} {tuple(shape)}" for name, shape in report.spec["observation_keys"].items())
        console.print(f"an observation is, end to end: {keys}", soft_wrap=True)
    if report.spec is not None and report.spec["action_range"]:
        low, high = (" ".join(f"{number:g}" for number in bound) for bound in report.spec["action_range"])
        console.print(f"actions of [-1, 1] stand for {low} to {high}", soft_wrap=True)
    if report.transitions is not None:
        shortest, longest = report.episode_lengths
        console.print(
            f"{report.transitions:,} transitions in {report.episodes:,} episodes of {shortest} to {longest} steps"
        )
        console.print(
            f"mean reward {report.mean_reward:.4g}, fraction of terminal states {report.success_fraction:.3%}"
        )
    for problem in report.problems:
        make_console(stderr=True).print(f"problem: {problem}", style="red", soft_wrap=True)
    if not report.problems:
        console.print("no problems found")

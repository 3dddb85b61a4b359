"""``guidedflow data inspect``: what is in a data file."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from guidedflow.cli.show import DATA_DIR, INSTRUCTION, REWARD, Flag, Reward, optional, print_fitting, print_json
from guidedflow.errors import SettingsError
from guidedflow.notices import plain

MOST_ACTIONS = 10
"""Rows of the table of actions; more would not fit on a screen beside the rest."""
BARS, ASCII_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what is in a data file, what is wrong with it and what is worth a look."""

    what: Annotated[Positional[str], optional("TASK_OR_PATH")]
    """A task's id, the name of its data, an npz or HDF5 file, or a LeRobot or Minari data set's folder."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    reward: Annotated[Reward | None, REWARD] = None
    """Rewards of LeRobot's and robomimic's data; success: 1 where a step succeeds, else 0; step-cost: 0, else -1."""
    instruction: Annotated[str | None, INSTRUCTION] = None
    """Of LeRobot's data: the text of the only task to look at."""
    html: Annotated[Path | None, optional("PAGE.html")] = None
    """Also write a page with histograms and, of cameras, pictures; one file, replaced if it exists."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        """Print what is worth a look, a table and what was found amiss, which makes the exit status 2."""
        from guidedflow.data import formats
        from guidedflow.data.inspect import inspect
        from guidedflow.suites import find_data_task

        options: dict[str, Any] = {"reward": self.reward, "instruction": self.instruction}
        if formats.is_data(self.what):
            found = inspect(self.what, html=self.html, **options)
        else:
            try:
                task = find_data_task(self.what)
            except SettingsError:
                if Path(self.what).exists():
                    formats.find_format(self.what)  # Which says what was looked for.
                raise
            path = task.suite.find_data(task, self.data_dir)
            load, is_success = functools.partial(task.suite.load, task), task.scored_by == "success"
            found = inspect(path, load, ends_at_success=is_success, html=self.html, **options)
        if self.json:
            tables = ("fields", "actions", "observations", "pictures", "gaps")
            rows = {name: [row._asdict() for row in getattr(found, name) or ()] for name in tables}
            returns = None if found.episode_returns is None else found.episode_returns._asdict()
            print_json({**found._asdict(), "path": str(found.path), **rows, "episode_returns": returns})
        else:
            _print(found)
            if self.html is not None:
                print(self.html)
        return 2 if found.problems else 0


def _print(found: Any) -> None:
    from rich.table import Table

    from guidedflow.data.inspect import summary_lines
    from guidedflow.training.display import make_console

    console = make_console()
    for line in found.findings:
        console.print(plain(f"worth a look: {line}"), style="yellow", soft_wrap=True)
    for line in summary_lines(found):
        console.print(plain(line), soft_wrap=True)
    if found.actions:
        print_fitting(console, _actions(found.actions, BARS if "utf" in console.encoding else ASCII_BARS))
    table = Table("field", "shape", "type", "lowest", "highest", title=str(found.path))
    for field in found.fields:
        low, high = ("" if value is None else f"{value:.4g}" for value in (field.low, field.high))
        table.add_row(field.name, str(field.shape), field.dtype, low, high)
    print_fitting(console, table)
    for problem in found.problems:
        make_console(stderr=True).print(f"problem: {problem}", style="red", soft_wrap=True)
    if not found.problems:
        console.print("no problems found")


def _actions(columns: Any, bars: str) -> Any:
    from rich.table import Table

    left = len(columns) - MOST_ACTIONS
    caption = f"and {left} more, which --html and --json show" if left > 0 else None
    table = Table("action", "lowest", "mean", "highest", "at the lowest, highest", "histogram", caption=caption)
    for column in columns[:MOST_ACTIONS]:
        low, mean, high = (f"{value:.4g}" for value in (column.low, column.mean, column.high))
        limits = f"{column.at_low:.0%}, {column.at_high:.0%}"
        most = max(column.histogram)
        histogram = "".join(bars[-(-count * (len(bars) - 1) // most)] for count in column.histogram)
        table.add_row(column.name, low, mean, high, limits, histogram)
    return table

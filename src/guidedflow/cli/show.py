"""What several commands' options and outputs have in common."""

from typing import Annotated, Any, Self

import tyro

from guidedflow.files import as_json


def optional(metavar: str, default: str = "") -> Any:
    """An option that is None by default, and what that stands for."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "")


DATA_DIR = optional("PATH", "$GUIDEDFLOW_DATA or ~/.guidedflow/data, then ~/.ogbench/data")
NEW_DATA_DIR = optional("PATH", "$GUIDEDFLOW_DATA or ~/.guidedflow/data")
WORKERS = optional("INT", "one a core")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def print_json(value: Any) -> None:
    """Print a value as JSON; what is not a number becomes null."""
    print(as_json(value))


class EpisodeBar:
    """Episodes made and time left, on standard error; a line every tenth where there is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        from guidedflow.training.display import make_console

        self._console = make_console(stderr=True)
        columns = (TextColumn("episodes"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal, expand=True)
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how many are done."""
        if self._task is None:  # Only now: what an interrupted call left was not made in no time.
            self._task = self._bars.add_task("", completed=done, total=total)
        self._bars.update(self._task, completed=done)
        if not self._console.is_terminal and done % max(1, total // 10) == 0:
            self._console.print(f"episodes: {done}/{total}")

"""What several commands' options and outputs have in common."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import tyro

from guidedflow.files import as_json


def optional(metavar: str, default: str = "") -> Any:
    """An option that is None by default, and what that stands for."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "")


DATA_DIR = optional("PATH", "$GUIDEDFLOW_DATA or ~/.guidedflow/data, then ~/.ogbench/data")
NEW_DATA_DIR = optional("PATH", "$GUIDEDFLOW_DATA or ~/.guidedflow/data")
WORKERS = optional("INT", "one a core")
REWARD = optional("{recorded,success,step-cost,none}", "recorded, else success, else none")
INSTRUCTION = optional("TEXT", "all tasks")
Reward = Literal["recorded", "success", "step-cost", "none"]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def print_json(value: Any) -> None:
    """Print a value as JSON; what is not a number becomes null."""
    print(as_json(value))


def print_columns(rows: Sequence[Mapping[str, str]], left_out: Sequence[str] = (), *, folds: int = 0) -> None:
    """Print rows in columns, all of them into a pipe.

    Args:
        rows: texts by the names of their columns.
        left_out: columns that a narrow terminal does without, the least important first.
        folds: the last column goes on below itself rather than being narrower than this; 0: it is as wide as it is.
    """
    from rich.table import Table

    from guidedflow.training.display import make_console

    console = make_console()
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    if not console.is_terminal:
        for texts in ({name: name for name in widths}, *rows):
            print("  ".join(texts[name].ljust(width) for name, width in widths.items()).rstrip())
        return
    last = [*widths][-1]
    if folds:
        widths[last] = min(widths[last], folds)
    for name in left_out:
        if sum(widths.values()) + len(widths) - 1 > console.width:
            del widths[name]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in widths:
        table.add_column(name, no_wrap=not folds or name != last)
    for row in rows:
        table.add_row(*(row[name] for name in widths))
    console.print(table)


def print_fitting(console: Any, content: Any) -> None:
    """Print tables without their lines where they are wider than the terminal."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.table import Table

    for part in content.renderables if isinstance(content, Group) else [content]:
        if isinstance(part, Table) and _width(part) > console.width:
            part.box, part.padding = SIMPLE, 0
            for column in part.columns:
                column.no_wrap, column.overflow = False, "fold"
        console.print(part)


def _width(table: Any) -> int:
    """Of a table with all the room that it can use."""
    from rich.console import Console

    return Console(width=1000).measure(table).maximum


class CountBar:
    """How many of a number of things are done, and the time left, on standard error.

    Where there is no terminal it prints a line every tenth.

    Args:
        things: what is counted.
    """

    def __init__(self, things: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        from guidedflow.training.display import make_console

        self._things = things
        self._console = make_console(stderr=True)
        columns = (TextColumn(things), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
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
        self._bars.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and done % max(1, total // 10) == 0:
            self._console.print(f"{self._things}: {done}/{total}")

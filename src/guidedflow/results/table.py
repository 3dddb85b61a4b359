"""The table in the published layout, ours beside the published figures, and its four renderings."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from guidedflow.results.protocol import TOLERANCE, protocol
from guidedflow.results.reference import published
from guidedflow.results.runs import Method, Scored
from guidedflow.results.statistics import Figure, difference_half_width, over_tasks_and_seeds
from guidedflow.suites import tasks

# The order of the published table's columns; whatever it does not have follows.
ORDER = ("iql", "rebrac", "fql", "gfp", "gfp-vabc")
NEAR_BEST = 0.05
CSV_FIELDS = (
    "row",
    "method",
    "tasks",
    "tasks_of_row",
    "seeds",
    "mean",
    "deviation",
    "half_width",
    "comparable",
    "published_mean",
    "published_deviation",
    "difference",
    "difference_half_width",
    "verdict",
    "notes",
)


class Cell(NamedTuple):
    """One method's scores on one row."""

    row: str
    method: Method
    used: tuple[Scored, ...]
    """What the figure is made of: the comparable scores, or all of them if none is."""
    tasks: tuple[str, ...]
    """Ids of the tasks that the figure is made of."""
    row_size: int
    """How many tasks the row has."""
    figure: Figure
    reasons: tuple[str, ...]
    """Why it is not comparable with the published figures; empty if it is."""
    notes: tuple[str, ...]
    """What else a reader has to know."""
    published: Figure | None
    """Over the same tasks."""
    bold: bool = False
    published_bold: bool = False

    @property
    def difference(self) -> float | None:
        """Ours less the published figure; None if they cannot be compared."""
        return None if self.published is None or self.reasons else self.figure.mean - self.published.mean

    @property
    def difference_half_width(self) -> float:
        """Half of the 95% interval of the difference; NaN where one of the two has no interval."""
        return math.nan if self.published is None else difference_half_width(self.figure, self.published)

    @property
    def verdict(self) -> str:
        """``inside`` the combined interval, ``within 2 points``, ``outside``, ``no interval``, or not comparable."""
        if self.published is None:
            return ""
        if self.difference is None:
            return "not comparable"
        tolerance, half = TOLERANCE[self.used[0].run.task.benchmark], self.difference_half_width
        if abs(self.difference) <= half + 1e-9:
            return "inside"
        if abs(self.difference) <= tolerance:
            return f"within {tolerance:g} points"
        return "no interval" if math.isnan(half) else "outside"


class Table(NamedTuple):
    """Rows are categories and benchmarks' averages; columns are methods."""

    rows: tuple[str, ...]
    methods: tuple[Method, ...]
    cells: dict[tuple[str, Method], Cell]
    notes: tuple[str, ...]
    """Of the runs as a whole."""


def build_table(scored: Sequence[Scored], notes: Sequence[str] = ()) -> Table:
    """The table of these scores. Scores that do not exist yet (no evaluation) are not in it."""
    sizes: dict[str, int] = {}
    for task in tasks():
        for row in (task.category, f"average/{task.benchmark}"):
            sizes[row] = sizes.get(row, 0) + 1
    groups: dict[tuple[str, Method], list[Scored]] = {}
    for one in scored:
        for row in (one.run.task.category, f"average/{one.run.task.benchmark}"):
            groups.setdefault((row, one.method), []).append(one)
    methods = sorted({one.method for one in scored}, key=_column)
    rows = [row for row in _ordered(list(sizes)) if any((row, method) in groups for method in methods)]
    # The average of one category says nothing new.
    rows = [row for row in rows if not row.startswith("average/") or _categories(row, rows) > 1]
    cells: dict[tuple[str, Method], Cell] = {}
    for row in rows:
        mine = {m: _cell(row, m, groups[row, m], sizes[row]) for m in methods if (row, m) in groups}
        cells |= {(row, method): cell for method, cell in _embolden(mine).items()}
    return Table(tuple(rows), tuple(methods), cells, tuple(notes))


def _column(method: Method) -> tuple[int, str]:
    name = method.published
    return (ORDER.index(name) if name in ORDER else len(ORDER)), method.label


def _ordered(rows: list[str]) -> list[str]:
    return [row for row in rows if not row.startswith("average/")] + [row for row in rows if row.startswith("average/")]


def _categories(average: str, rows: Sequence[str]) -> int:
    return sum(row.startswith(f"{average.removeprefix('average/')}/") for row in rows)


def comparable_or_all(scored: Sequence[Scored]) -> list[Scored]:
    """The scores that may stand beside the published ones; all of them if none may."""
    return [one for one in scored if not one.verdict.reasons] or list(scored)


def _cell(row: str, method: Method, scored: Sequence[Scored], row_size: int) -> Cell:
    used = comparable_or_all(scored)
    by_task: dict[str, dict[int, float]] = {}
    for one in used:
        assert one.verdict.score is not None
        by_task.setdefault(one.run.task.id, {})[one.seed] = one.verdict.score
    figure = over_tasks_and_seeds(by_task)
    reasons = tuple(dict.fromkeys(reason for one in used for reason in one.verdict.reasons))
    notes = []
    left_out = [one for one in scored if one.verdict.reasons and not reasons]
    if left_out:
        why = ", ".join(dict.fromkeys(reason for one in left_out for reason in one.verdict.reasons))
        notes.append(f"{len(left_out)} of {len(scored)} scores left out, which are not comparable ({why})")
    if len(by_task) < row_size:
        notes.append(f"{len(by_task)} of {row_size} tasks")
    counts = {len(seeds) for seeds in by_task.values()}
    wanted = protocol(used[0].run.task).seeds
    if figure.seeds < 2:
        notes.append(
            "a single seed, so no interval" if counts == {1} else "no two seeds that all tasks have: no interval"
        )
    elif counts != {figure.seeds}:
        notes.append(f"interval over the {figure.seeds} seeds that all tasks have")
    elif figure.seeds < wanted:
        notes.append(f"{figure.seeds} seeds instead of {wanted}")
    other = published().figure(method.published, row, list(by_task), row_size) if method.published else None
    return Cell(row, method, tuple(used), tuple(by_task), row_size, figure, reasons, tuple(notes), other)


def _embolden(cells: dict[Method, Cell]) -> dict[Method, Cell]:
    """Bold are the best and what is within 5% of it, among cells of the same standing over the same tasks."""
    rivals = [cell for cell in cells.values() if not cell.reasons] or list(cells.values())
    fullest = max(rivals, key=lambda cell: len(cell.tasks)).tasks
    rivals = [cell for cell in rivals if set(cell.tasks) == set(fullest)]
    bar = _bar([cell.figure.mean for cell in rivals])
    others = [c.published.mean for c in cells.values() if c.published is not None and set(c.tasks) == set(fullest)]
    other_bar = _bar(others) if others else math.inf
    return {
        method: cell._replace(
            bold=cell in rivals and cell.figure.mean >= bar,
            published_bold=cell.published is not None
            and set(cell.tasks) == set(fullest)
            and cell.published.mean >= other_bar,
        )
        for method, cell in cells.items()
    }


def _bar(means: Sequence[float]) -> float:
    best = max(means)
    return best - NEAR_BEST * abs(best)


# ------------------------------------------------------------------------------------------------------- renderings


PARTS = ("ours", "published", "difference")
"""Columns of a method; one that was never published has the first alone."""


class _Text(NamedTuple):
    """What a cell of a rendering says."""

    text: str
    bold: bool = False


class _Grid(NamedTuple):
    """A table as text, before it gets a format's own marks."""

    groups: list[tuple[str, int]]
    """Headings and how many columns each spans, without the first column."""
    columns: list[str]
    rows: list[list[_Text]]
    notes: list[str]


def show(figure: Figure) -> str:
    """A mean and its deviation over seeds, as the published table prints them."""
    return f"{figure.mean:.1f}" if math.isnan(figure.deviation) else f"{figure.mean:.1f} ± {figure.deviation:.1f}"


def _grid(table: Table) -> _Grid:
    marks: dict[str, int] = {}
    compared = {m for m in table.methods if any(c.published for (_, of), c in table.cells.items() if of == m)}
    rows = []
    for row in table.rows:
        line = [_Text(row)]
        for method in table.methods:
            cell = table.cells.get((row, method))
            line += _texts(cell, marks) if cell else [_Text("")] * 3
            if method not in compared:
                del line[-2:]
        rows.append(line)
    spans = [(method.label, 3 if method in compared else 1) for method in table.methods]
    columns = ["category", *(name for _, n in spans for name in PARTS[:n])]
    return _Grid(spans, columns, rows, [f"[{mark}] {text}" for text, mark in marks.items()] + list(table.notes))


def _texts(cell: Cell, marks: dict[str, int]) -> list[_Text]:
    noted = [f"not comparable: {'; '.join(cell.reasons)}"] if cell.reasons else []
    numbers = sorted(marks.setdefault(note, len(marks) + 1) for note in [*noted, *cell.notes])
    mark = f" [{','.join(map(str, numbers))}]" if numbers else ""
    ours = _Text(show(cell.figure) + mark, cell.bold)
    if cell.published is None:
        return [ours, _Text(""), _Text("")]
    difference = cell.verdict if cell.difference is None else f"{cell.difference:+.1f}, {cell.verdict}"
    return [ours, _Text(show(cell.published), cell.published_bold), _Text(difference)]


LEGEND = (
    "Scores: success rate in percent (OGBench, D4RL AntMaze), else normalised return. Mean ± population standard "
    "deviation over seeds, as published. Difference: ours less published over the same tasks; inside: of its 95% "
    "interval (Welch, both over seeds). Bold: the best and what is within 5% of it, ours and published apart."
)


def as_markdown(table: Table) -> str:
    """As Markdown; names are escaped."""
    grid = _grid(table)

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    heads = [f"{_in_markdown(label)}: {name}" for label, n in grid.groups for name in PARTS[:n]]
    text = line(["category", *heads]) + "|" + "---|" * len(grid.columns) + "\n"
    for row in grid.rows:
        text += line([f"**{_in_markdown(cell.text)}**" if cell.bold else _in_markdown(cell.text) for cell in row])
    return f"{text}\n{LEGEND}\n" + "".join(f"\n{_in_markdown(note)}\n" for note in grid.notes)


def _in_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_<>|[]#" else c for c in text)


def as_latex(table: Table) -> str:
    r"""As a LaTeX table; needs \usepackage{booktabs}."""
    grid = _grid(table)
    widths = [n for _, n in grid.groups]
    starts = [2 + sum(widths[:i]) for i in range(len(widths))]
    heads = [rf"\multicolumn{{{n}}}{{c}}{{{_in_latex(label)}}}" for label, n in grid.groups]
    rules = " ".join(rf"\cmidrule(lr){{{a}-{a + n - 1}}}" for a, n in zip(starts, widths, strict=True))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}",
        r"\toprule",
        rf" & {' & '.join(heads)} \\",
        rules,
        rf"{' & '.join(grid.columns)} \\",
        r"\midrule",
    ]
    for i, row in enumerate(grid.rows):
        if row[0].text.startswith("average/") and not grid.rows[i - 1][0].text.startswith("average/"):
            lines.append(r"\midrule")
        cells = [rf"\textbf{{{_in_latex(cell.text)}}}" if cell.bold else _in_latex(cell.text) for cell in row]
        lines.append(rf"{' & '.join(cells)} \\")
    notes = r" \\ ".join(_in_latex(note) for note in grid.notes)
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_in_latex(LEGEND)}}}"]
    lines += [rf"\par\footnotesize {notes}"] if notes else []
    return "\n".join([*lines, r"\end{table}", ""])


LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)


def as_csv(table: Table) -> str:
    """As CSV: a line for each row and method; numbers unrounded, empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for (row, method), cell in table.cells.items():
        other = cell.published
        values: list[Any] = [row, method.label, len(cell.tasks), cell.row_size, cell.figure.seeds]
        values += [cell.figure.mean, cell.figure.deviation, cell.figure.half_width, not cell.reasons]
        values += [other.mean, other.deviation] if other else ["", ""]
        values += ["", ""] if cell.difference is None else [cell.difference, cell.difference_half_width]
        values += [cell.verdict, "; ".join([*cell.reasons, *cell.notes])]
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in values])
    return file.getvalue()


def as_terminal(table: Table) -> Any:
    """As something that a rich console prints: a line for each row and method, for a terminal is narrow."""
    import rich.console
    import rich.table
    from rich.text import Text

    grid = _grid(table)
    numbers = [rich.table.Column(name, no_wrap=True) for name in PARTS]
    drawn = rich.table.Table(rich.table.Column("method", overflow="fold"), *numbers)
    for row in grid.rows:
        place = 1
        drawn.add_row(Text(row[0].text, style="bold underline"))
        for label, n in grid.groups:
            cells = row[place : place + n]
            place += n
            if cells[0].text:
                texts = [Text(cell.text, style="bold" if cell.bold else "") for cell in cells]
                drawn.add_row(Text(label), *texts)
        drawn.add_section()
    return rich.console.Group(drawn, *(Text(note) for note in [*grid.notes, LEGEND]))

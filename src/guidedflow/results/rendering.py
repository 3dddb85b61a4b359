"""The table as Markdown, LaTeX, CSV and text on a terminal."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from guidedflow.results.figures import Figure
from guidedflow.results.table import Cell, Row, Table

PARTS = ("ours", "published", "difference")
"""Columns of a method; one that was never published has the first alone."""
CSV_FIELDS = (
    "row",
    "kind",
    "method",
    "shared",
    "tasks",
    "tasks_of_row",
    "seeds",
    "mean",
    "deviation",
    "low",
    "high",
    "comparable",
    "published_mean",
    "published_deviation",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "notes",
)
LEGEND = (
    "Scores: the success rate in percent, else the return, normalised where the benchmark says how. Mean ± population "
    "standard deviation over seeds, as published. Difference: ours less published over the same tasks; inside: its 95% "
    "interval (Welch over the seeds of both, at least Wilson over our episodes) holds 0. Bold: the best and what is "
    "within 5% of it, ours and published apart."
)


class _Text(NamedTuple):
    """What a cell of a rendering says."""

    text: str
    bold: bool = False


class _Grid(NamedTuple):
    """A part of the table as text, before it gets a format's own marks."""

    groups: list[tuple[str, int]]
    """Headings and how many columns each spans, without the first column."""
    rows: list[list[_Text]]
    notes: list[str]


def show(figure: Figure) -> str:
    """A mean and its deviation over seeds, as the published table prints them."""
    return f"{figure.mean:.1f}" if math.isnan(figure.deviation) else f"{figure.mean:.1f} ± {figure.deviation:.1f}"


def in_all(table: Table) -> str:
    """A line on what all methods share; empty if they share nothing."""
    return f"All methods: {', '.join(table.shared)}." if table.shared else ""


def _grid(table: Table, rows: Sequence[Row]) -> _Grid:
    footnotes: dict[str, int] = {}
    methods = [method for method in table.methods if any((row.name, method) in table.cells for row in rows)]
    compared = {m for m in methods if any(table.cells[r.name, m].published for r in rows if (r.name, m) in table.cells)}
    lines = []
    for row in rows:
        line = [_Text(row.name)]
        for method in methods:
            cell = table.cells.get((row.name, method))
            texts = _texts(cell, footnotes) if cell else [_Text("")] * len(PARTS)
            line += texts if method in compared else texts[:1]
        lines.append(line)
    spans = [(method.label, len(PARTS) if method in compared else 1) for method in methods]
    return _Grid(spans, lines, [f"[{number}] {text}" for text, number in footnotes.items()])


def _texts(cell: Cell, footnotes: dict[str, int]) -> list[_Text]:
    noted = [f"not comparable: {'; '.join(cell.reasons)}"] if cell.reasons else []
    numbers = sorted(footnotes.setdefault(note, len(footnotes) + 1) for note in [*noted, *cell.notes])
    suffix = f" [{','.join(map(str, numbers))}]" if numbers else ""
    ours = _Text(show(cell.figure) + suffix, cell.bold)
    if cell.published is None:
        return [ours, _Text(""), _Text("")]
    difference = cell.verdict if cell.difference is None else f"{cell.difference:+.1f}, {cell.verdict}"
    return [ours, _Text(show(cell.published), cell.published_bold), _Text(difference)]


# -------------------------------------------------------------------------------------------------------- Markdown


def as_markdown(table: Table) -> str:
    """As Markdown, the tasks in a table of their own; names are escaped."""
    shared = f"{_in_markdown(in_all(table))}\n\n" if table.shared else ""
    notes = "".join(f"\n{_in_markdown(note)}\n" for note in table.notes)
    categories = _markdown_part("category", _grid(table, table.of_kind("category", "average")))
    tasks = _markdown_part("task", _grid(table, table.of_kind("task")))
    return f"{shared}{categories}\n{LEGEND}\n{notes}\n## Tasks\n\n{tasks}"


def _markdown_part(first: str, grid: _Grid) -> str:
    heads = [head for label, n in grid.groups for head in (_in_markdown(label), *PARTS[1:n])]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    text = line([first, *heads]) + "|" + "---|" * (1 + len(heads)) + "\n"
    for row in grid.rows:
        text += line([f"**{_in_markdown(cell.text)}**" if cell.bold else _in_markdown(cell.text) for cell in row])
    return text + "".join(f"\n{_in_markdown(note)}\n" for note in grid.notes)


def _in_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_<>|[]#" else c for c in text)


# ----------------------------------------------------------------------------------------------------------- LaTeX


def as_latex(table: Table) -> str:
    r"""As two LaTeX tables, the second of the tasks; needs \usepackage{booktabs}."""
    categories = _grid(table, table.of_kind("category", "average"))
    parts = [("category", categories, f"{in_all(table)} {LEGEND}".strip(), table.notes)]
    parts += [("task", _grid(table, table.of_kind("task")), "The same by task.", ())]
    return "\n".join(_latex_part(*part) for part in parts)


def _latex_part(first: str, grid: _Grid, caption: str, notes: Sequence[str]) -> str:
    widths = [n for _, n in grid.groups]
    starts = [2 + sum(widths[:i]) for i in range(len(widths))]
    heads = [rf"\multicolumn{{{n}}}{{c}}{{{_in_latex(label)}}}" for label, n in grid.groups]
    rules = " ".join(rf"\cmidrule(lr){{{a}-{a + n - 1}}}" for a, n in zip(starts, widths, strict=True))
    columns = [name for n in widths for name in PARTS[:n]]
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule"]
    lines += [rf" & {' & '.join(heads)} \\", rules, rf"{' & '.join([first, *columns])} \\", r"\midrule"]
    for i, row in enumerate(grid.rows):
        if row[0].text.startswith("average/") and not grid.rows[i - 1][0].text.startswith("average/"):
            lines.append(r"\midrule")
        cells = [rf"\textbf{{{_in_latex(cell.text)}}}" if cell.bold else _in_latex(cell.text) for cell in row]
        lines.append(rf"{' & '.join(cells)} \\")
    below = r" \\ ".join(_in_latex(note) for note in [*grid.notes, *notes])
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_in_latex(caption)}}}"]
    lines += [rf"\par\footnotesize {below}"] if below else []
    return "\n".join([*lines, r"\end{table}", ""])


DOCUMENT = r"""\documentclass{{article}}
\usepackage[a4paper,landscape,margin=15mm]{{geometry}}
\usepackage{{booktabs,longtable}}
\begin{{document}}
\footnotesize
\begin{{longtable}}{{l{columns}}}
\toprule
{heads} \\
\midrule
\endhead
\bottomrule
\endfoot
{rows}
\end{{longtable}}
{notes}
\end{{document}}
"""


def as_latex_document(table: Table) -> str:
    """As a LaTeX document: our scores alone, a column a method; bold as in ``as_latex``."""
    lines: list[str] = []
    before = ""
    for row in table.rows:
        cells = [table.cells.get((row.name, method)) for method in table.methods]
        texts = [_in_latex(show(cell.figure)) if cell else "" for cell in cells]
        marked = [
            rf"\textbf{{{text}}}" if cell and cell.bold else text for text, cell in zip(texts, cells, strict=True)
        ]
        lines += [r"\midrule"] if before not in ("", row.kind) else []
        lines.append(rf"{' & '.join([_in_latex(row.name), *marked])} \\")
        before = row.kind
    return DOCUMENT.format(
        columns="r" * len(table.methods),
        heads=" & ".join(["", *(_in_latex(method.label) for method in table.methods)]),
        rows="\n".join(lines),
        notes="\n\n".join(_in_latex(note) for note in [in_all(table), *table.notes] if note),
    )


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


# ------------------------------------------------------------------------------------------------------------- CSV


def as_csv(table: Table) -> str:
    """As CSV: a line for each row and method; numbers unrounded, empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for cell in table.cells.values():
        other, figure = cell.published, cell.figure
        values: list[Any] = [cell.row.name, cell.row.kind, cell.method.label, "; ".join(table.shared)]
        values += [len(cell.tasks), cell.row.size, figure.seeds, figure.mean, figure.deviation, *figure.interval]
        values += [not cell.reasons, *((other.mean, other.deviation) if other else ("", ""))]
        values += ["", "", ""] if cell.difference is None else [cell.difference, *cell.difference_interval]
        values += [cell.verdict, "; ".join([*cell.reasons, *cell.notes])]
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in values])
    return file.getvalue()


# -------------------------------------------------------------------------------------------------------- terminal


def as_terminal(table: Table) -> Any:
    """As something that a rich console prints: a table for each row, in which a method is a line."""
    import rich.console
    import rich.table
    from rich.text import Text

    grid = _grid(table, table.of_kind("category", "average"))
    labels = [printable(label) for label, _ in grid.groups]
    # Every table's columns are as wide as the widest one's.
    head = "method".ljust(max(map(len, labels)))
    heads = [name.ljust(width) for name, width in zip(PARTS, _widths(grid), strict=False)]
    parts: list[Any] = []
    for row in grid.rows:
        numbers = [rich.table.Column(Text(name), no_wrap=True) for name in heads]
        drawn = rich.table.Table(rich.table.Column(Text(head), overflow="fold"), *numbers)
        place = 1
        for label, (_, n) in zip(labels, grid.groups, strict=True):
            cells = row[place : place + n]
            place += n
            if cells[0].text:
                drawn.add_row(Text(label), *(Text(c.text, style="bold" if c.bold else "") for c in cells))
        parts += [Text(row[0].text, style="bold"), drawn]
    notes = [*grid.notes, *table.notes, in_all(table), LEGEND]
    return rich.console.Group(*parts, *(Text(printable(note)) for note in notes if note))


def _widths(grid: _Grid) -> list[int]:
    """Of the columns that follow the method's, in characters."""
    widths = [0] * max(n for _, n in grid.groups)
    for row in grid.rows:
        place = 1
        for _, n in grid.groups:
            texts = row[place : place + n]
            widths[:n] = [max(width, len(cell.text)) for width, cell in zip(widths, texts, strict=False)]
            place += n
    return widths


def printable(text: str) -> str:
    """Without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

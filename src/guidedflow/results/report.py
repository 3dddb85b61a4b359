"""Writes a report: tables, statistics, pictures and the page."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from guidedflow.errors import UserError
from guidedflow.files import whole_file
from guidedflow.results import aggregate
from guidedflow.results.aggregate import Statistics
from guidedflow.results.page import draw_page
from guidedflow.results.plots import draw_all, guidance_curves
from guidedflow.results.runs import Runs
from guidedflow.results.table import Table, as_csv, as_latex, as_markdown, build_table


class Report(NamedTuple):
    """A written report."""

    path: Path
    """The folder with index.html, table.md, table.tex, table.csv, statistics.md and plots/."""
    table: Table
    statistics: Statistics


def write_report(runs: Runs, folder: Path, on_file: Callable[[Path], None] = lambda _: None) -> Report:
    """Write a report of these runs; files of an earlier one there are replaced, each whole.

    Raises:
        UserError: no run has been evaluated yet, or the folder cannot be written.
    """
    if not runs.scored:
        raise UserError(f"runs: expected at least one evaluation, found none; {runs.notes[0]}")
    table = build_table(runs.scored, runs.notes)
    statistics = aggregate.summarize(table, runs.scored)
    curves = guidance_curves(runs.scored)

    def write(name: str, content: str | bytes) -> None:
        path = folder / name
        with whole_file(path) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        on_file(path)

    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        write("table.md", as_markdown(table))
        write("table.tex", as_latex(table))
        write("table.csv", as_csv(table))
        write("statistics.md", aggregate.as_markdown(statistics))
        for name, content in draw_all(table, runs.scored, statistics, curves):
            write(f"plots/{name}", content)
        write("index.html", draw_page(table, runs.scored, statistics, curves))
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return Report(folder, table, statistics)

"""Writes a report: tables, statistics, pictures and the page."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from guidedflow.errors import RunError, SettingsError
from guidedflow.results import aggregate, plots, rendering
from guidedflow.results.aggregate import Statistics
from guidedflow.results.columns import Records, read_records
from guidedflow.results.guidance import guidance_curves
from guidedflow.results.page import draw_page
from guidedflow.results.table import Table, build_table
from guidedflow.runs.find import find_runs
from guidedflow.runs.folder import RunFolder

PLOTS = "plots"
FILES = ("index.html", "table.md", "table.tex", "table.csv", "statistics.md")


class Report(NamedTuple):
    """A written report."""

    path: Path
    """The folder with index.html, table.md, table.tex, table.csv, statistics.md and plots/."""
    table: Table
    statistics: Statistics


def report(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str = "report",
    *,
    per_task: Sequence[str] | str = (),
    notes: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Set runs beside the published numbers: tables, statistics, pictures, and a page that needs no network.

    Args:
        runs: folders of runs, folders above them, or patterns; any mix of tasks, agents and seeds, finished or not. A
            run that is damaged is left out, and the report says so.
        out: the report's folder. An earlier report there is replaced as a whole, once the new one is written.
        per_task: settings that were chosen for each task, such as ``alpha``: their values do not split a column.
        notes: what a reader has to know besides.
        on_progress: called with how many runs were read and pictures drawn, and how many there are of both.

    Raises:
        RunError: no run there, none that was evaluated, or the folder cannot be written.
        SettingsError: two runs have the same seed of one column, or two values of a setting of ``per_task`` on one
            task; ``per_task`` names what nobody set by hand; or ``out`` holds something else than a report.
    """
    folder = Path(out)
    _check_out(folder)
    folders = [RunFolder(path) for path in find_runs([runs] if isinstance(runs, Path | str) else runs)]
    done = 0

    def step(total: int) -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    names = [per_task] if isinstance(per_task, str) else per_task
    records = read_records(folders, names, on_read=lambda: step(len(folders)))
    records = records._replace(notes=(*notes, *records.notes))
    table = build_table(records)
    statistics = aggregate.summarize(table, records)
    try:
        with _replaced(folder) as new:
            for name, content in _files(table, records, statistics, step, len(folders)):
                (new / name).write_bytes(content)
    except OSError as error:
        raise RunError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return Report(folder, table, statistics)


def _files(
    table: Table, records: Records, statistics: Statistics, step: Callable[[int], None], read: int
) -> Iterator[tuple[str, bytes]]:
    """Every file's name and content."""
    curves = guidance_curves(
        row for run in {one.run.path: one.run for one in records.scored}.values() for row in run.guidance
    )
    yield "table.md", rendering.as_markdown(table).encode()
    yield "table.tex", rendering.as_latex(table).encode()
    yield "table.csv", rendering.as_csv(table).encode()
    yield "statistics.md", aggregate.as_markdown(statistics, rendering.in_all(table)).encode()
    yield "index.html", draw_page(table, records, statistics, curves).encode()
    drawings = plots.drawings(table, records, statistics, curves)
    for name, draw in drawings.items():
        for kind, content in plots.render(draw):
            yield f"{PLOTS}/{name}.{kind}", content
        step(read + len(drawings))


def _check_out(folder: Path) -> None:
    """Raise SettingsError unless the folder may be replaced: there is none, or nothing in it that is not a report's."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SettingsError(f"{folder}: expected a new folder or an earlier report, found a file; choose another")
    plotted = folder / PLOTS
    others = [path.name for path in folder.iterdir() if path.name not in (*FILES, PLOTS)]
    others += [f"{PLOTS}/{path.name}" for path in plotted.glob("*") if path.suffix[1:] not in plots.FORMATS]
    if others:
        found = f"{min(others)}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
        raise SettingsError(
            f"{folder}: expected a new folder or an earlier report, found {found} in it; choose another"
        )


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` once it is full. A kill leaves one of the two whole."""
    place = folder.resolve()  # A link to a folder stays a link.
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        (new / PLOTS).mkdir(parents=True)
        yield new
        if place.exists():
            os.replace(place, old)
        os.replace(new, place)

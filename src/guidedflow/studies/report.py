"""A study's report: as of any runs, but it refuses gaps, or names them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guidedflow.errors import RunError
from guidedflow.files import write_text
from guidedflow.results.rendering import as_latex_document
from guidedflow.results.report import Report
from guidedflow.results.report import report as report_runs
from guidedflow.studies.jobs import JobState, state_of
from guidedflow.studies.plan import read_plan
from guidedflow.studies.status import cell

MOST_NAMED = 10


def report(
    plan: Path | str | Mapping[str, Any],
    out: Path | str = "report",
    *,
    is_partial: bool = False,
    per_task: Sequence[str] | str = (),
    latex: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Set a study's runs beside the published numbers.

    Args:
        plan: as ``study`` takes it.
        out: see ``guidedflow.report``.
        is_partial: report the jobs that are done, and name the others in the report's notes.
        per_task: see ``guidedflow.report``.
        latex: a file for the table as a LaTeX document.
        on_progress: see ``guidedflow.report``.

    Raises:
        SettingsError: there is a mistake in the plan; or as ``guidedflow.report``.
        RunError: jobs are not done, and ``is_partial`` is False; or as ``guidedflow.report``.
    """
    made = read_plan(plan, is_checked=False)
    states = list(map(state_of, made.jobs))
    done = [state.job.run_dir for state in states if state.status == "done"]
    gaps = [state for state in states if state.status != "done"]
    if gaps and not (is_partial and done):
        raise RunError(
            f"{made.source}: {_named(gaps, len(states))}; `guidedflow study run {made.source}` goes on with them"
            + ("" if is_partial else ", and --partial reports what is done")
        )
    notes = [_named(gaps, len(states), most=len(gaps))] if gaps else []
    written = report_runs(done, out, per_task=per_task, notes=notes, on_progress=on_progress)
    if latex is not None:
        try:
            write_text(latex, as_latex_document(written.table))
        except OSError as error:
            raise RunError(f"{latex}: cannot be written: {error.strerror}") from error
    return written


def _named(gaps: Sequence[JobState], total: int, most: int = MOST_NAMED) -> str:
    """Which jobs are not done."""
    each = ", ".join(f"{state.job.name} ({cell(state)})" for state in gaps[:most])
    rest = f" and {len(gaps) - most} more" if len(gaps) > most else ""
    return f"{len(gaps)} of {total} jobs are not done: {each}{rest}"

"""A page on where a study's jobs stand; it needs no network, and loads itself again."""

import html
import time
from collections.abc import Sequence
from pathlib import Path

from guidedflow.errors import RunError
from guidedflow.files import write_text
from guidedflow.notices import plain
from guidedflow.studies.jobs import JobState
from guidedflow.studies.status import cell, problems, summary

RELOAD_SECONDS = 30
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; } th, td { padding: .25rem .6rem; text-align: left; white-space: nowrap; }
thead th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #1b1f24; }
tbody tr:nth-child(even) { background: #f6f8fa; } th { font-weight: 600; }
.done { color: #116329; } .running { color: #0550ae; } .waiting { color: #57606a; }
.failed, .differs { color: #a40e26; font-weight: 600; }
"""


def draw_page(title: str, states: Sequence[JobState]) -> str:
    """The page as HTML: totals, a row a task with a cell a job, and why jobs failed."""
    columns = list(dict.fromkeys(state.job.name.rpartition("/")[2] for state in states))
    by_task: dict[str, dict[str, JobState]] = {}
    for state in states:
        task, _, column = state.job.name.rpartition("/")
        by_task.setdefault(task, {})[column] = state
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("task", *columns))
    lines = [
        f'<tr><th scope="row">{html.escape(task)}</th>{"".join(_cell(found.get(name)) for name in columns)}</tr>'
        for task, found in by_task.items()
    ]
    failures = "".join(f"<li>{html.escape(plain(line))}</li>" for line in problems(states))
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(summary(states))}, at {time.strftime('%Y-%m-%d %H:%M:%S')}</p>",
        f"<h2>What went wrong</h2><ul>{failures}</ul>" if failures else "",
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>",
    ]
    head = f'<meta charset="utf-8"><meta http-equiv="refresh" content="{RELOAD_SECONDS}">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>{html.escape(title)}</title><style>{STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _cell(state: JobState | None) -> str:
    if state is None:
        return "<td></td>"
    details = f"{state.step:,} of {state.steps:,} steps" if state.steps else "not begun"
    return f'<td class="{state.status}" title="{details}">{html.escape(cell(state))}</td>'


def write_page(path: Path, title: str, states: Sequence[JobState]) -> None:
    """Write the page.

    Raises:
        RunError: it cannot be written.
    """
    try:
        write_text(path, draw_page(title, states))
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error

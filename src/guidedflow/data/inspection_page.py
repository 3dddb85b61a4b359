"""An inspection as one HTML file that needs no network: its histograms and pictures are in it."""

import base64
import html
import io
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # No pyplot: no screen and no global state needed.
from matplotlib.ticker import MaxNLocator
from PIL import Image

from guidedflow.data.dataset import Dataset
from guidedflow.data.findings import NEARLY_ALL, Column
from guidedflow.data.inspect import Inspection, entries, summary_lines
from guidedflow.notices import plain

MOST_COLUMNS = 300
"""Rows of a table of columns."""
MOST_EPISODES = 4
"""Episodes whose pictures are shown."""
MOST_PIXELS = 240
"""Width and height of a picture; larger ones are made smaller."""
BLUE, RED = "#0072b2", "#d55e00"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem .2rem 0; text-align: left; white-space: nowrap; }
.numbers th:nth-child(n+2):nth-child(-n+7) { text-align: right; }
thead th { border-bottom: 2px solid #1b1f24; } tbody tr:nth-child(even) { background: #f6f8fa; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
.problem { color: #a40e26; font-weight: 600; }
tbody tr.told { background: #fdecd8; }
figure { margin: 0; } img { max-width: 100%; } svg { display: block; } figcaption { color: #57606a; }
.frames td { text-align: center; } .frames img { width: 150px; image-rendering: pixelated; display: block; }
"""


def draw_page(found: Inspection, dataset: Dataset | None) -> str:
    """The page's HTML; ``dataset`` is what the inspection saw, None if it could not be loaded."""
    title = _text(found.path.name)
    body = [f"<h1>{title}</h1>", *(f'<p class="problem">problem: {_text(line)}</p>' for line in found.problems)]
    if dataset is not None:
        worth = _list(found.findings) if found.findings else "<p>nothing unusual</p>"
        body += ["<h2>Worth a look</h2>", worth, "<h2>Content</h2>", _list(summary_lines(found))]
        saturated = {column.name for column in found.actions or () if column.is_saturated}
        body += [_episodes(found), _columns("Actions", found.actions or (), "in the environment's units", saturated)]
        body.append(_columns("Observations", found.observations or (), "as networks see them"))
        body += _pictures(found, dataset)
    body.append(_fields(found))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _text(text: str) -> str:
    return html.escape(plain(text))


def _list(lines: Any) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _table(heads: Sequence[str], rows: Iterator[str], kind: str = "") -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _image(content: bytes, alternative: str) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}" alt="{_text(alternative)}">'


# ---------------------------------------------------------------------------------------------------------- episodes


def _episodes(found: Inspection) -> str:
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    numbers = np.arange(found.episodes or 0)
    known = {"steps": found.lengths, "return": found.returns}
    shown = {name: values for name, values in known.items() if values is not None and len(set(values)) > 1}
    if not shown:
        return ""
    grid = figure.add_gridspec(1, 2 * len(shown), width_ratios=[3, 1] * len(shown))
    for place, (name, values) in enumerate(shown.items()):
        axis = figure.add_subplot(grid[2 * place])
        beside = figure.add_subplot(grid[2 * place + 1], sharey=axis)
        succeeded = np.ones(len(numbers), bool) if found.successes is None else np.array(found.successes)
        for rows, colour, mark in ((succeeded, BLUE, "o"), (~succeeded, RED, "x")):
            label = None if found.successes is None else "success" if mark == "o" else "failure"
            axis.scatter(numbers[rows], np.array(values)[rows], s=12, c=colour, marker=mark, label=label)
        axis.set(xlabel="episode", ylabel=name)
        beside.hist(values, bins=20, orientation="horizontal", color=BLUE)
        beside.tick_params(labelleft=False)
        beside.set(xlabel="episodes")
        for one in (axis, beside):
            one.spines[["top", "right"]].set_visible(False)
            one.xaxis.set_major_locator(MaxNLocator(integer=True))
    if found.successes is not None:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return f"<h2>Episodes</h2><figure>{_image(content.getvalue(), 'steps and return of each episode')}</figure>"


# ----------------------------------------------------------------------------------------------------------- columns


def _columns(title: str, described: Sequence[Column], units: str, told: Container[str] = ()) -> str:
    if not described:
        return ""
    heads = ("", "lowest", "mean", "highest", "deviation", "at the lowest", "at the highest", "histogram")
    left = len(described) - MOST_COLUMNS
    more = f"<p>and {left:,} more, which --json has</p>" if left > 0 else ""
    table = _table(heads, (_row(one, one.name in told) for one in described[:MOST_COLUMNS]), "numbers")
    return f"<h2>{title}</h2><p>{units}; histograms go from the lowest to the highest value</p>{table}{more}"


def _row(column: Column, told: bool) -> str:
    mark = ' class="told"' if told or column.common_share >= NEARLY_ALL else ""
    numbers = [f"{value:.4g}" for value in (column.low, column.mean, column.high, column.deviation)]
    numbers += [f"{share:.1%}" for share in (column.at_low, column.at_high)]
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return f'<tr{mark}><th scope="row">{_text(column.name)}</th>{cells}<td>{_bars(column.histogram)}</td></tr>'


def _bars(counts: Sequence[int]) -> str:
    most, width, height = max(counts), 9, 24
    bars = "".join(
        f'<rect x="{place * width}" y="{height - tall:.1f}" width="{width - 1}" height="{tall:.1f}"/>'
        for place, tall in enumerate(height * count / most for count in counts)
        if tall
    )
    return f'<svg width="{width * len(counts)}" height="{height}" fill="{BLUE}" role="img">{bars}</svg>'


# ---------------------------------------------------------------------------------------------------------- pictures


def _pictures(found: Inspection, dataset: Dataset) -> Iterator[str]:
    """A contact sheet: some episodes' first, middle and last frames of each camera."""
    if not found.pictures:
        return
    arrays = entries(dataset)
    starts, ends = (np.unique(np.asarray(rows)) for rows in (dataset.episode_starts, dataset.episode_ends))
    heads = [f"{seen.name}, {when}" for seen in found.pictures for when in ("first", "middle", "last")]
    rows = []
    for episode in _shown(found):
        at = [starts[episode], (starts[episode] + ends[episode]) // 2, ends[episode]]
        images = [_image(_png(np.asarray(arrays[seen.name][row])), seen.name) for seen in found.pictures for row in at]
        cells = "".join(f"<td>{image}</td>" for image in images)
        rows.append(f'<tr><th scope="row">{_text(_episode(found, episode))}</th>{cells}</tr>')
    yield f"<h2>Pictures</h2>{_table(['', *heads], iter(rows), 'frames')}"
    yield _list(
        f"{seen.name}: {' x '.join(map(str, seen.shape))}; {seen.compared:,} frames were compared with the next: "
        f"{seen.repeated:.1%} are the same, {seen.plain:.1%} have one colour only"
        for seen in found.pictures
    )


def _shown(found: Inspection) -> list[int]:
    """The best and the worst episode, where there are returns, and others evenly spread."""
    assert found.episodes is not None
    known = found.episode_returns
    spread = np.linspace(0, found.episodes - 1, MOST_EPISODES).astype(int).tolist()
    extremes = [] if known is None else [known.best[0], known.worst[0]]
    return sorted([*dict.fromkeys([*extremes, *spread])][:MOST_EPISODES])


def _episode(found: Inspection, episode: int) -> str:
    parts = [f"episode {episode}"]
    if found.returns is not None:
        parts.append(f"return {found.returns[episode]:.4g}")
    if found.successes is not None:
        parts.append("success" if found.successes[episode] else "failure")
    return ", ".join(parts)


def _png(frame: np.ndarray) -> bytes:
    channels = frame.shape[-1]
    image = Image.fromarray(np.ascontiguousarray(frame[..., :3] if channels >= 3 else frame[..., 0]))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    content = io.BytesIO()
    image.save(content, format="png")
    return content.getvalue()


# ------------------------------------------------------------------------------------------------------------ fields


def _fields(found: Inspection) -> str:
    def rows() -> Iterator[str]:
        for field in found.fields:
            low, high = ("" if value is None else f"{value:.4g}" for value in (field.low, field.high))
            cells = f"<td>{_text(str(field.shape))}</td><td>{_text(field.dtype)}</td>"
            numbers = f'<td class="number">{low}</td><td class="number">{high}</td>'
            yield f'<tr><th scope="row">{_text(field.name)}</th>{cells}{numbers}</tr>'

    return f"<h2>Fields of the file</h2>{_table(('', 'shape', 'type', 'lowest', 'highest'), rows())}"

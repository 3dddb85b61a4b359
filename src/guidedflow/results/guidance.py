"""GFP's guidance over training: read from metrics.jsonl, of which a full run has too much to read whole."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from guidedflow.errors import RunError
from guidedflow.types import parse_variant

NAMES = ("guidance", "guidance_above_half")
STRENGTH = "eta"
"""The setting by which curves are told apart."""
# metrics.jsonl of a full run has 4000 rows a seed; of files larger than this many bytes, so many places are read.
READ_WHOLE = 20_000
PLACES = 100
POINTS = 60


class GuidanceRow(NamedTuple):
    """One agent's guidance at a step: its mean over the batch, and the share of the batch where it is above 1/2."""

    step: int
    seed: int
    eta: float
    mean: float
    above_half: float


class GuidanceCurve(NamedTuple):
    """Guidance over training, averaged over the runs with the same eta."""

    eta: float
    steps: tuple[int, ...]
    means: tuple[float, ...]
    above_half: tuple[float, ...]


def read_guidance(path: Path, settings: Mapping[str, Any]) -> list[GuidanceRow]:
    """Guidance in a metrics.jsonl; of a long one, rows of every agent at evenly spaced places.

    Args:
        path: the file.
        settings: of the run.

    Returns:
        Nothing if the run's algorithm has no such metrics, or no setting ``eta``.

    Raises:
        RunError: a damaged line among those read.
    """
    eta = settings.get(STRENGTH)
    if not path.is_file() or isinstance(eta, bool) or not isinstance(eta, int | float):
        return []
    with path.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n") or not all(isinstance(_parsed(path, first).get(name), float) for name in NAMES):
            return []
        size = path.stat().st_size
        file.seek(0)
        lines = list(file) if size <= READ_WHOLE else _sample(path, file, size)
    # A line that a kill cut short has no line break, and is no row yet.
    rows = [_row(path, line, eta) for line in lines if line.endswith(b"\n")]
    return [row for row in rows if all(map(math.isfinite, row))]


def guidance_curves(rows: Iterable[GuidanceRow]) -> list[GuidanceCurve]:
    """One curve for each eta, weakest filter last."""
    groups: dict[float, list[GuidanceRow]] = {}
    for row in rows:
        groups.setdefault(row.eta, []).append(row)
    curves = []
    for eta, mine in sorted(groups.items()):
        table = np.array([(row.step, row.mean, row.above_half) for row in mine])
        # Runs are written at steps of their own, so what lies close together is averaged.
        edges = np.linspace(0, table[:, 0].max(), POINTS + 1)
        bins = np.digitize(table[:, 0], edges[1:-1], right=True)
        means = np.array([table[bins == i].mean(axis=0) for i in np.unique(bins)])
        steps, mean, above = means.T.tolist()
        curves.append(GuidanceCurve(eta, tuple(round(step) for step in steps), tuple(mean), tuple(above)))
    return curves


def _sample(path: Path, file: BinaryIO, size: int) -> Sequence[bytes]:
    """Lines at ``PLACES`` places. The agents' rows take turns: as many lines as there are agents have each once."""
    lines = [file.readline()]
    step = _parsed(path, lines[0])["step"]
    lines += itertools.takewhile(lambda line: _parsed(path, line)["step"] == step, file)
    agents = len(lines)
    for place in range(1, PLACES):
        file.seek(size * place // PLACES)
        file.readline()  # The rest of the line that the place lies in.
        lines += itertools.islice(file, agents)
    return lines


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        return {**row, "step": int(row["step"]), "seed": int(row["seed"])}
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise RunError(f"{path}: expected JSON objects with step and seed, found {line[:60]!r}") from error


def _row(path: Path, line: bytes, eta: float) -> GuidanceRow:
    row = _parsed(path, line)
    try:
        swept = dict(parse_variant(row.get("variant", "")))
        mean, above = (float(row[name]) for name in NAMES)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise RunError(f"{path}: expected {' and '.join(NAMES)} in every row, found {line[:60]!r}") from error
    return GuidanceRow(row["step"], row["seed"], float(swept.get(STRENGTH, eta)), mean, above)

"""What a person would look for in training data: how its columns are spread, where it jumps, what is there twice."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from guidedflow.data.dataset import Dataset, Rows

PIECE = 2**21
"""Numbers that are looked at in one piece, so that memory does not grow with the data."""
BINS = 20
AT_A_LIMIT = 1e-3
"""Within this share of a column's range from its lowest or highest value, a value counts as that."""
SATURATED = 0.1
"""Share of the steps at the lowest or highest value from which on it is told."""
NEARLY_ALL = 0.99
"""Share of the steps with one value from which on a column is nearly constant."""
SCALES = 100.0
"""A column is badly scaled if it goes beyond this, or if its deviation is so many times the median column's, or as
many times less."""
NARROW = 0.1
"""Actions that go no further than this in [-1, 1] are told."""
LATE = 2.0
"""A step is late if it lasts longer than so many median ones."""
JUMP = 4.0
"""An observation jumps if a quarter of its columns change by more than so many times what they do in 90% of the steps.
Of D4RL's door-human no step within an episode does, and every reset."""
SHORT = 0.1
"""An episode is short if it has less than this share of the median one's steps."""
MOST_FRAMES, MOST_FRAME_BYTES = 2000, 2**28
"""Of a camera's frames as many are compared with the next ones."""
REPEATED = 0.2
"""Share of frames that are the same as the next from which on it is told."""
MOST_NAMED = 6
"""Columns or episodes that one finding names."""


class Column(NamedTuple):
    """One number of an action, in the environment's units, or of an observation, over all steps."""

    name: str
    low: float
    high: float
    mean: float
    deviation: float
    at_low: float
    """Share of the steps at its lowest value, or within ``AT_A_LIMIT`` of its range from there."""
    at_high: float
    common: float
    """The median of up to ``PIECE`` evenly spread numbers."""
    common_share: float
    """Share of the steps that have exactly this value."""
    histogram: tuple[int, ...]
    """Steps in ``BINS`` equal parts of the range from ``low`` to ``high``."""

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in all steps."""
        return self.low == self.high

    @property
    def is_saturated(self) -> bool:
        """Whether it often is at its lowest or highest value; one that has these two alone, as a gripper, is not."""
        return not self.is_constant and SATURATED <= self.at_low + self.at_high < 1 - AT_A_LIMIT


class Gaps(NamedTuple):
    """Where rows that follow each other in an episode are further apart than usual."""

    field: str
    """``timestamps`` or ``timestamp``; or ``observations``: each column's change is divided by its 90% quantile, and of
    these the 75% quantile over the columns is taken."""
    usual: float
    """The median."""
    largest: float
    total: int
    """How many there are."""
    places: tuple[tuple[int, int], ...]
    """Episode and step after which they are, the largest first; at most ten."""


class Pictures(NamedTuple):
    """A camera. Its frames are sampled, because they may be more than fit into memory."""

    name: str
    shape: tuple[int, ...]
    compared: int
    """Evenly spread frames that were compared with the following one of their episode."""
    repeated: float
    """Share of these that are the same."""
    plain: float
    """Share of these that have one colour only."""


def columns(
    values: Shaped[Rows, "N n"],
    names: Sequence[str],
    rows: Bool[np.ndarray, " N"],
    convert: Callable[[Float[np.ndarray, "B n"]], Float[np.ndarray, "B n"]] = lambda piece: piece,
) -> list[Column]:
    """How each column is spread over the rows that count, in memory that does not grow with N.

    Args:
        values: the numbers; at least one row counts.
        names: of the columns.
        rows: which rows count.
        convert: makes of the numbers those that are described.
    """

    def pieces() -> Iterator[np.ndarray]:
        size = max(1, PIECE // len(names))
        for start in range(0, len(values), size):
            piece = np.asarray(values[start : start + size])[rows[start : start + size]]
            if len(piece):
                yield convert(piece).astype(np.float64)

    low, high, total = np.full(len(names), np.inf), np.full(len(names), -np.inf), np.zeros(len(names))
    for piece in pieces():
        low, high = np.minimum(low, piece.min(axis=0)), np.maximum(high, piece.max(axis=0))
        total += piece.sum(axis=0)
    counted = np.flatnonzero(rows)
    mean, spread = total / len(counted), high - low
    sample = counted[:: -(-len(counted) * len(names) // PIECE)]
    common = np.quantile(convert(np.asarray(values[sample])).astype(np.float64), 0.5, axis=0, method="lower")
    squares, at_low, at_high, same = (np.zeros(len(names)) for _ in range(4))
    histogram = np.zeros(len(names) * BINS, np.int64)
    for piece in pieces():
        squares += np.square(piece - mean).sum(axis=0)
        at_low += (piece <= low + AT_A_LIMIT * spread).sum(axis=0)
        at_high += (piece >= high - AT_A_LIMIT * spread).sum(axis=0)
        same += (piece == common).sum(axis=0)
        bins = ((piece - low) / np.where(spread > 0, spread, 1) * BINS).astype(np.int64)
        places = np.minimum(bins, BINS - 1) + BINS * np.arange(len(names))
        histogram += np.bincount(places.ravel(), minlength=len(histogram))
    deviation = np.where(spread > 0, np.sqrt(squares / len(counted)), 0.0)
    shares = (at_low / len(counted), at_high / len(counted), common, same / len(counted))
    numbers = np.stack([low, high, mean, deviation, *shares], axis=1).tolist()
    bars = histogram.reshape(len(names), BINS).tolist()
    return [Column._make((name, *row, tuple(bar))) for name, row, bar in zip(names, numbers, bars, strict=True)]


def time_gaps(field: str, times: Shaped[np.ndarray, " N"], dataset: Dataset) -> list[Gaps]:
    """Steps that last longer than ``LATE`` median ones, and those in which the time does not go on."""
    together = _together(dataset)
    lasted = np.diff(np.where(np.isfinite(times), times, np.nan))
    known = together & ~np.isnan(lasted)
    usual = float(np.median(lasted[known])) if known.any() else 0.0
    late, still = lasted > LATE * max(usual, 0.0), ~(lasted > 0)
    return [gaps for found in (late, still) for gaps in _gaps(field, lasted, together & found, usual, dataset)]


def jumps(values: Float[Rows, "N n"], dataset: Dataset) -> list[Gaps]:
    """Rows in which many columns at once change by far more than they usually do.

    Many and not one: contacts and switches make single columns jump, a reset moves most of them.
    """
    together, size = _together(dataset), max(2, PIECE // values.shape[1])
    rows = np.flatnonzero(together)
    rows = rows[:: max(1, -(-len(rows) // size))]
    if not len(rows):
        return []
    usual = np.quantile(np.abs(np.asarray(values[rows + 1], np.float64) - values[rows]), 0.9, axis=0)
    moves = usual > 0
    if not moves.any():
        return []
    changes = np.empty(len(together))
    for start in range(0, len(changes), size):
        piece = np.asarray(values[start : start + size + 1], np.float64)[:, moves] / usual[moves]
        changes[start : start + size] = np.quantile(np.abs(np.diff(piece, axis=0)), 0.75, axis=1, method="lower")
    found = together & (changes > JUMP)
    return _gaps("observations", changes, found, float(np.median(changes[together])), dataset)


def _together(dataset: Dataset) -> Bool[np.ndarray, " N-1"]:
    """Which rows are followed by one of their episode."""
    ends = np.asarray(dataset.episode_ends)
    return ends[:-1] == ends[1:]


def _gaps(
    field: str, sizes: Float[np.ndarray, " M"], found: Bool[np.ndarray, " M"], usual: float, dataset: Dataset
) -> list[Gaps]:
    rows = np.flatnonzero(found)
    if not len(rows):
        return []
    largest = rows[np.argsort(-sizes[rows], kind="stable")[:10]]
    starts = np.asarray(dataset.episode_starts)
    numbers = np.searchsorted(np.unique(starts), starts[largest])
    places = zip(numbers.tolist(), (largest - starts[largest]).tolist(), strict=True)
    return [Gaps(field, usual, float(sizes[largest[0]]), len(rows), tuple(places))]


def pictures(name: str, frames: UInt8[Rows, "N h w c"], dataset: Dataset) -> Pictures:
    """Compare some frames with those that follow them."""
    rows = np.flatnonzero(_together(dataset))
    most = min(MOST_FRAMES, max(1, MOST_FRAME_BYTES // int(np.prod(frames.shape[1:]))))
    rows = rows[:: max(1, -(-len(rows) // most))]
    repeated = plain = 0
    for row in rows:
        frame = np.asarray(frames[row])
        repeated += np.array_equal(frame, frames[row + 1])
        plain += bool((frame == frame[0, 0]).all())
    share = 1 / max(1, len(rows))
    return Pictures(name, tuple(frames.shape[1:]), len(rows), repeated * share, plain * share)


def duplicates(arrays: Mapping[str, Rows], dataset: Dataset) -> list[tuple[int, ...]]:
    """Groups of episodes that are the same in all arrays; of pictures the first, middle and last are compared."""
    groups: dict[bytes, list[int]] = {}
    starts, ends = (np.unique(np.asarray(rows)) for rows in (dataset.episode_starts, dataset.episode_ends))
    for episode, (start, end) in enumerate(zip(starts, ends, strict=True)):
        digest = hashlib.blake2b(str(end - start).encode())
        for array in arrays.values():
            rows = slice(start, end + 1) if array.ndim == 2 else [start, (start + end) // 2, end]
            digest.update(np.ascontiguousarray(array[rows]).data)
        groups.setdefault(digest.digest(), []).append(episode)
    return [tuple(group) for group in groups.values() if len(group) > 1]


# ------------------------------------------------------------------------------------------------- lines of findings


def column_findings(described: Sequence[Column]) -> Iterator[str]:
    """Lines on columns that do not vary, or hardly."""
    constant = [column for column in described if column.is_constant]
    yield from _of_columns(constant, lambda c: f"is constant: {c.low:.4g}", "are constant")
    nearly = [column for column in described if column.common_share >= NEARLY_ALL and not column.is_constant]
    yield from _of_columns(
        nearly,
        lambda c: f"is {c.common:.4g} in {c.common_share:.2%} of the steps",
        f"have one value in at least {NEARLY_ALL:.0%} of the steps",
    )


def action_findings(described: Sequence[Column], unit: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Lines on actions; ``unit`` has each one's lowest and highest value in [-1, 1]."""
    yield from _of_columns(
        sorted((c for c in described if c.is_saturated), key=lambda c: -c.at_low - c.at_high),
        lambda c: (
            f"is at its lowest or highest value in {c.at_low + c.at_high:.0%} of the steps ({c.low:.4g} in "
            f"{c.at_low:.0%}, {c.high:.4g} in {c.at_high:.0%})"
        ),
        f"are at their lowest or highest value in at least {SATURATED:.0%} of the steps",
    )
    yield from column_findings(described)
    narrow = [
        column
        for column, bounds in zip(described, unit, strict=True)
        if max(map(abs, bounds)) < NARROW and not column.is_constant
    ]
    yield from _of_columns(
        narrow,
        lambda c: f"lies between {c.low:.3g} and {c.high:.3g}, a small part of its range; see --action-range measured",
        f"use less than {NARROW:.0%} of their range; see --action-range measured",
    )


def observation_findings(described: Sequence[Column]) -> Iterator[str]:
    """Lines on vectors' columns, which networks see as they are."""
    yield from column_findings(described)
    deviations = np.array([column.deviation for column in described])
    if not (deviations > 0).any():
        return
    usual = float(np.median(deviations[deviations > 0]))
    varying = [column for column in described if not column.is_constant]
    large = [c for c in varying if max(abs(c.low), abs(c.high)) > SCALES or c.deviation > SCALES * usual]
    small = [c for c in varying if c.deviation < usual / SCALES]
    beside = f"the median column's deviation is {usual:.2g}"

    def spread(column: Column) -> str:
        return f"is badly scaled: {column.low:.4g} to {column.high:.4g}, deviation {column.deviation:.2g} ({beside})"

    yield from _of_columns(large, spread, f"are badly scaled, too large ({beside})")
    yield from _of_columns(small, spread, f"are badly scaled, too small ({beside})")


def episode_findings(lengths: Int[np.ndarray, " E"], groups: Sequence[Sequence[int]]) -> Iterator[str]:
    """Lines on episodes that are short, or there more than once."""
    usual = float(np.median(lengths))
    short = np.flatnonzero(lengths < SHORT * usual)
    if len(short):
        what = f"shorter than {SHORT:.0%} of the usual {usual:g} steps"
        subject = f"episodes {_listed(short.tolist())} are" if len(short) > 1 else f"episode {short[0]} is"
        yield f"{subject} {what}"
    if groups:
        more = sum(len(group) - 1 for group in groups)
        yield f"episodes {_listed(groups[0])} are the same; {more} of {len(lengths)} episodes repeat another one"


def return_findings(returns: Float[np.ndarray, " E"], successes: Bool[np.ndarray, " E"]) -> Iterator[str]:
    """A line where failures are rewarded more than successes."""
    if successes.all() or not successes.any():
        return
    good, bad = float(returns[successes].mean()), float(returns[~successes].mean())
    if bad > good:
        yield (
            f"episodes that fail have the higher returns, {bad:.4g} on average, than those that succeed, {good:.4g}: "
            "their rewards may teach to fail"
        )


def gap_finding(gaps: Gaps) -> str:
    """A line on gaps."""
    (episode, step), more = gaps.places[0], f"{gaps.total:,} such place{'s' if gaps.total > 1 else ''}"
    where = f"after step {step} of episode {episode}"
    if gaps.field == "observations":
        return (
            f"the observation jumps {where}, by {gaps.largest:.0f} times what 90% of the steps change it ({more}): a "
            "gap in the recording, or a reset without the end of an episode"
        )
    if not gaps.largest > 0:  # Or unknown, where a time is no number.
        return f"{gaps.field}: the time does not go on {where} ({more})"
    return f"{gaps.field}: a step usually lasts {gaps.usual:.4g}, but {gaps.largest:.4g} {where} ({more})"


def picture_findings(seen: Pictures) -> Iterator[str]:
    """Lines on a camera."""
    of = f"of {seen.compared:,} frames looked at"
    if seen.repeated >= REPEATED:
        yield f"{seen.name}: {seen.repeated:.0%} {of} are the same as the next: a slow camera, or one that stood still"
    if seen.plain > 0:
        yield f"{seen.name}: {seen.plain:.1%} {of} have one colour only"


def _of_columns(found: Sequence[Column], one: Callable[[Column], str], several: str) -> Iterator[str]:
    """A line each, or one line on all where they are many."""
    if len(found) <= 3:
        yield from (f"{column.name} {one(column)}" for column in found)
    else:
        yield f"{_listed([column.name for column in found])} {several}; for instance, {found[0].name} {one(found[0])}"


def _listed(things: Sequence[object]) -> str:
    names = list(map(str, things))
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

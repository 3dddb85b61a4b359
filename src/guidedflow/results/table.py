"""The table in the published layout: ours beside the published figures, by category, suite and task."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from guidedflow.results.columns import Method, Records, Scored, figure_of
from guidedflow.results.figures import Figure, difference_interval
from guidedflow.results.reference import published
from guidedflow.suites import tasks

NEAR_BEST = 0.05


class Row(NamedTuple):
    """A category, all categories of a suite, or one task."""

    name: str
    """As the published table has it: a category, or ``average/`` and a suite; or a task's id."""
    kind: Literal["category", "average", "task"]
    suite: str
    category: str
    """Its own or its task's; empty for an average."""
    size: int
    """How many tasks it has."""

    def holds(self, one: Scored) -> bool:
        """Whether a score belongs to it."""
        subject = one.run.subject
        return self.name in (subject.id, subject.category, f"average/{subject.suite}")


class Cell(NamedTuple):
    """One method's scores on one row."""

    row: Row
    method: Method
    used: tuple[Scored, ...]
    """What the figure is made of: the comparable scores, or all of them if none is."""
    tasks: tuple[str, ...]
    """Ids of the tasks that the figure is made of."""
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
    def difference_interval(self) -> tuple[float, float]:
        """The 95% interval of the difference; NaN where one of the two has no interval."""
        return (math.nan, math.nan) if self.published is None else difference_interval(self.figure, self.published)

    @property
    def verdict(self) -> str:
        """``inside`` the interval of the difference, ``within N points``, ``outside``, ``no interval``, or why not."""
        if self.published is None:
            return ""
        if self.difference is None:
            return "not comparable"
        low, high = self.difference_interval
        if low - 1e-9 <= 0.0 <= high + 1e-9:
            return "inside"
        protocols = [one.run.subject.protocol for one in self.used if one.run.subject.protocol]
        tolerance = math.fsum(protocol.tolerance for protocol in protocols) / len(protocols)
        if abs(self.difference) <= tolerance:
            return f"within {tolerance:.3g} points"
        return "no interval" if math.isnan(low) else "outside"


class Table(NamedTuple):
    """What a report says of every row and method."""

    rows: tuple[Row, ...]
    """Categories, then averages, then tasks."""
    methods: tuple[Method, ...]
    cells: dict[tuple[str, Method], Cell]
    """By the row's name."""
    shared: tuple[str, ...]
    """In what all methods differ from the published settings."""
    notes: tuple[str, ...]
    """Of the runs as a whole."""

    def of_kind(self, *kinds: str) -> list[Row]:
        """The rows of these kinds."""
        return [row for row in self.rows if row.kind in kinds]


def build_table(records: Records) -> Table:
    """The table of these scores."""
    methods = sorted({one.method for one in records.scored}, key=_place)
    cells: dict[tuple[str, Method], Cell] = {}
    rows = _rows(records.scored)
    for row in rows:
        groups: dict[Method, list[Scored]] = {}
        for one in filter(row.holds, records.scored):
            groups.setdefault(one.method, []).append(one)
        mine = _embolden({method: _cell(row, method, groups[method]) for method in methods if method in groups})
        cells |= {(row.name, method): cell for method, cell in mine.items()}
    return Table(tuple(rows), tuple(methods), cells, records.shared, records.notes)


def _rows(scored: Sequence[Scored]) -> list[Row]:
    """Those that have a score, in the order in which suites list their tasks, environments of the user's own last."""
    listed = {task.id: place for place, task in enumerate(tasks())}
    there = {one.run.subject.id: one.run.subject for one in scored}
    subjects = sorted(there.values(), key=lambda subject: listed.get(subject.id, len(listed)))
    own = [subject for subject in subjects if subject.id not in listed]
    sizes = Counter(subject.category for subject in own)
    for task in tasks():
        sizes.update([task.category, f"average/{task.suite.name}"])
    categories = {s.category: Row(s.category, "category", s.suite, s.category, sizes[s.category]) for s in subjects}
    by_suite: dict[str, dict[str, bool]] = {}
    for subject in subjects:
        by_suite.setdefault(subject.suite, {})[subject.category] = subject.in_percent
    # The average of one category says nothing new.
    averaged = [suite for suite, found in by_suite.items() if len(found) > 1 and all(found.values())]
    averages = [Row(f"average/{suite}", "average", suite, "", sizes[f"average/{suite}"]) for suite in averaged]
    return [*categories.values(), *averages, *(Row(s.id, "task", s.suite, s.category, 1) for s in subjects)]


def _place(method: Method) -> tuple[int, str]:
    order = list(published().methods.values())
    return (order.index(method.published) if method.published else len(order)), method.label


def comparable_or_all(scored: Sequence[Scored]) -> list[Scored]:
    """The scores that may stand beside the published ones; all of them if none may."""
    return [one for one in scored if not one.verdict.reasons] or list(scored)


def _cell(row: Row, method: Method, scored: Sequence[Scored]) -> Cell:
    used = comparable_or_all(scored)
    ids = tuple(dict.fromkeys(one.run.subject.id for one in used))
    figure = figure_of(used)
    reasons = tuple(dict.fromkeys(reason for one in used for reason in one.verdict.reasons))
    other = published().figure(method.published, row.name, ids, row.size) if method.published else None
    return Cell(row, method, tuple(used), ids, figure, reasons, tuple(_notes(row, scored, used, figure)), other)


def _notes(row: Row, scored: Sequence[Scored], used: Sequence[Scored], figure: Figure) -> list[str]:
    notes = []
    if len(used) < len(scored):
        left_out = [reason for one in scored if one.verdict.reasons for reason in one.verdict.reasons]
        why = ", ".join(dict.fromkeys(left_out))
        notes.append(f"{len(scored) - len(used)} of {len(scored)} scores left out, which are not comparable ({why})")
    seeds: dict[str, set[int]] = {}
    for one in used:
        seeds.setdefault(one.run.subject.id, set()).add(one.seed)
    if len(seeds) < row.size:
        notes.append(f"{len(seeds)} of {row.size} tasks")
    counts = {len(found) for found in seeds.values()}
    wanted = max((one.run.subject.protocol.seeds for one in used if one.run.subject.protocol), default=0)
    if figure.seeds < 2:
        single = counts == {1}
        notes.append("a single seed, so no interval" if single else "no two seeds that all tasks have: no interval")
    elif counts != {figure.seeds}:
        notes.append(f"interval over the {figure.seeds} seeds that all tasks have")
    elif figure.seeds < wanted:
        notes.append(f"{figure.seeds} seeds instead of {wanted}")
    return notes


def _embolden(cells: dict[Method, Cell]) -> dict[Method, Cell]:
    """Bold are the best and what is within 5% of it, among cells of the same standing over the same tasks."""
    rivals = [cell for cell in cells.values() if not cell.reasons] or list(cells.values())
    fullest = set(max(rivals, key=lambda cell: len(cell.tasks)).tasks)
    bar = _bar([cell.figure.mean for cell in rivals if set(cell.tasks) == fullest])
    others = [c.published.mean for c in cells.values() if c.published is not None and set(c.tasks) == fullest]
    other_bar = _bar(others) if others else math.inf
    found = {}
    for method, cell in cells.items():
        full, other = set(cell.tasks) == fullest, cell.published
        bold = full and cell in rivals and cell.figure.mean >= bar
        found[method] = cell._replace(bold=bold, published_bold=full and other is not None and other.mean >= other_bar)
    return found


def _bar(means: Sequence[float]) -> float:
    best = max(means)
    return best - NEAR_BEST * abs(best)

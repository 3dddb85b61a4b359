"""Two runs side by side: their settings, and their scores seed by seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from guidedflow.errors import UserError
from guidedflow.results.protocol import brief
from guidedflow.results.runs import Folder

MISSING = "not set"
# Where a run is and when it was made says nothing of what it computes.
SECTIONS = ("settings", "config", "versions", "data")


class Difference(NamedTuple):
    """A setting that differs."""

    name: str
    a: str
    b: str


class Paired(NamedTuple):
    """One policy's scores in both runs, paired by seed. ``b`` less ``a``."""

    variants: tuple[str, str]
    policy: str
    steps: tuple[int, int]
    """The last step at which both runs have an evaluation of every shared seed; each run's last if there is none."""
    seeds: tuple[int, ...]
    a: float
    b: float
    difference: float
    half_width: float
    """Half of the 95% interval of the mean difference (Student's t over seeds); NaN with one seed."""
    p_value: float
    """Of the paired t-test, two-sided; NaN with one seed or where every seed differs by the same."""


class Comparison(NamedTuple):
    """What differs between two runs."""

    differences: tuple[Difference, ...]
    results: tuple[Paired, ...]
    notes: tuple[str, ...]


def compare(a: Folder, b: Folder) -> Comparison:
    """Compare two runs' settings and scores.

    Raises:
        UserError: a damaged file, or nothing to compare: other tasks, or no shared policy and seed.
    """
    saved = (a.config(), b.config())
    if saved[0].get("task") != saved[1].get("task"):
        tasks = " and ".join(str(config.get("task") or "data of one's own") for config in saved)
        raise UserError(f"{a.path} and {b.path}: expected two runs of one task, found {tasks}")
    notes: list[str] = []
    rows = (a.evaluations(), b.evaluations())
    for folder, found in zip((a, b), rows, strict=True):
        if not found:
            notes.append(f"{folder.path}: no evaluation, so there is no result to compare")
        if not folder.is_finished():
            notes.append(f"{folder.path}: not finished yet")
    results = _results(rows, notes, f"{a.path} and {b.path}") if all(rows) else []
    for result in results:
        if result.steps[0] != result.steps[1]:
            notes.append(f"{result.policy}: no step was evaluated in both runs, so the last of each are compared")
        name = f"{' / '.join(dict.fromkeys(result.variants))} {result.policy}".strip()
        if len(result.seeds) == 1:
            notes.append(f"{name}: a single shared seed ({result.seeds[0]}), so no test and no interval")
        elif math.isnan(result.p_value):
            notes.append(f"{name}: every seed differs by the same, so there is no test")
    return Comparison(tuple(_differences(*saved)), tuple(results), tuple(notes))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    flat = [_flat(config) for config in (a, b)]
    found = []
    for name in dict.fromkeys([*flat[0], *flat[1]]):
        x, y = (brief(config[name]) if name in config else MISSING for config in flat)
        if x != y:
            found.append(Difference(name, x, y))
    return found


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config.get(name) for name in ("agent", "preset", "sweep", "device")}
    for section in SECTIONS:
        values = config.get(section)
        prefix = f"{section}." if section in ("versions", "data") else ""
        found |= {f"{prefix}{name}": value for name, value in (values if isinstance(values, Mapping) else {}).items()}
    return found


def _results(rows: Sequence[Sequence[Mapping[str, Any]]], notes: list[str], where: str) -> list[Paired]:
    scores: list[dict[tuple[str, str], dict[int, dict[int, float]]]] = [{}, {}]
    for found, mine in zip(rows, scores, strict=True):
        for row in found:
            by_step = mine.setdefault((row["variant"], row["policy"]), {}).setdefault(row["step"], {})
            by_step[row["seed"]] = row["score"]
    variants = [list(dict.fromkeys(variant for variant, _ in mine)) for mine in scores]
    pairs = [(name, name) for name in variants[0] if name in variants[1]]
    if not pairs and len(variants[0]) == len(variants[1]) == 1:
        pairs = [(variants[0][0], variants[1][0])]
    unpaired = sorted(set(variants[0]) ^ set(variants[1])) if pairs and pairs[0][0] == pairs[0][1] else []
    if unpaired:
        notes.append(f"only one of the runs has {', '.join(name or 'no sweep' for name in unpaired)}")
    results = []
    for first, second in pairs:
        for policy in dict.fromkeys(policy for variant, policy in scores[0] if variant == first):
            x, y = scores[0][first, policy], scores[1].get((second, policy), {})
            result = _pair((first, second), policy, x, y)
            results += [result] if result else []
    if not results:
        raise UserError(f"{where}: expected a policy and a seed that both have, found none")
    return results


def _pair(
    variants: tuple[str, str], policy: str, x: Mapping[int, Mapping[int, float]], y: Mapping[int, Mapping[int, float]]
) -> Paired | None:
    if not x or not y:
        return None
    shared = {(step, step): sorted(set(x[step]) & set(y[step])) for step in x if step in y}
    ends = max(x), max(y)
    shared = shared or {ends: sorted(set(x[ends[0]]) & set(y[ends[1]]))}
    most = max(map(len, shared.values()))
    if not most:
        return None
    steps = max(pair for pair, seeds in shared.items() if len(seeds) == most)
    seeds = shared[steps]
    a, b = (np.array([found[step][seed] for seed in seeds]) for found, step in zip((x, y), steps, strict=True))
    difference, n = b - a, len(seeds)
    half = p_value = math.nan
    if n > 1:
        error = float(difference.std(ddof=1)) / math.sqrt(n)
        half = float(scipy.special.stdtrit(n - 1, 0.975)) * error
        # Scores are rounded in the files; what differs by less than that does not differ.
        if error > 1e-9:
            p_value = 2 * float(scipy.special.stdtr(n - 1, -abs(difference.mean()) / error))
    means = float(a.mean()), float(b.mean())
    return Paired(variants, policy, steps, tuple(seeds), *means, float(difference.mean()), half, p_value)


def as_terminal(comparison: Comparison, names: tuple[str, str]) -> Any:
    """As something that a rich console prints."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    settings = Table("setting", *map(escape, names), title="what differs")
    for difference in comparison.differences:
        settings.add_row(*map(Text, difference))
    results = Table("variant", "policy", "step", "seeds", "A", "B", "B - A [95% interval]", "p", title="scores")
    for one in comparison.results:
        interval = "" if math.isnan(one.half_width) else f" ± {one.half_width:.1f}"
        p_value = "" if math.isnan(one.p_value) else f"{one.p_value:.3g}"
        variant = " / ".join(dict.fromkeys(one.variants))
        steps = " / ".join(f"{step:,}" for step in dict.fromkeys(one.steps))
        numbers = steps, str(len(one.seeds)), f"{one.a:.1f}", f"{one.b:.1f}"
        results.add_row(Text(variant), one.policy, *numbers, f"{one.difference:+.1f}{interval}", p_value)
    parts: list[Any] = [settings if comparison.differences else Text("the settings do not differ")]
    parts += [results] if comparison.results else []
    return Group(*parts, *map(Text, comparison.notes))

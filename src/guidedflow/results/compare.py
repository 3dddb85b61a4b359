"""Two runs side by side: their settings, and their scores seed by seed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr

from guidedflow.errors import RunError
from guidedflow.results.figures import Score, paired_interval
from guidedflow.results.protocol import brief
from guidedflow.results.records import Evaluated, read_evaluations
from guidedflow.results.rendering import printable
from guidedflow.runs.config import RunConfig
from guidedflow.runs.folder import RunFolder
from guidedflow.types import Variant, variant_text

MISSING = "not set"


class Difference(NamedTuple):
    """A setting that differs."""

    name: str
    a: str
    b: str


class Paired(NamedTuple):
    """One policy's scores in both runs, paired by seed. ``b`` less ``a``."""

    variants: tuple[Variant, Variant]
    policy: str
    steps: tuple[int, int]
    """The last step at which both runs have an evaluation of every shared seed; each run's last if there is none."""
    seeds: tuple[int, ...]
    a: float
    b: float
    difference: float
    low: float
    """Of the 95% interval of the mean difference over seeds; NaN with one seed."""
    high: float
    p_value: float
    """Of the paired t-test, two-sided; NaN with one seed or where every seed differs by the same."""

    @property
    def name(self) -> str:
        """Variant and policy, for people."""
        return f"{' / '.join(filter(None, dict.fromkeys(map(variant_text, self.variants))))} {self.policy}".strip()


class Comparison(NamedTuple):
    """What differs between two runs."""

    differences: tuple[Difference, ...]
    results: tuple[Paired, ...]
    notes: tuple[str, ...]


Scores = Mapping[Evaluated, Mapping[int, Score]]
"""By variant, seed and policy, then by step."""


def compare(run_a: Path | str, run_b: Path | str) -> Comparison:
    """What differs between two runs of a task or environment, in settings and in scores (paired by seed).

    Raises:
        RunError: no such run, a damaged one, or runs of different tasks.
    """
    folders = RunFolder(Path(run_a)), RunFolder(Path(run_b))
    a, b = (folder.config() for folder in folders)
    if (a.task, a.env) != (b.task, b.env):
        found = " and ".join(config.task or config.env or "data without an environment" for config in (a, b))
        where = f"{folders[0].path} and {folders[1].path}"
        raise RunError(f"{where}: expected two runs of one task or environment, found {found}")
    notes: list[str] = []
    scores: list[Scores] = []
    for folder in folders:
        found_scores = read_evaluations(folder, folder.config(), notes)
        scores.append({key: {one.step: one.score for one in evaluations} for key, evaluations in found_scores.items()})
        if not folder.is_finished():
            notes.append(f"{folder.path}: not finished yet")
    results = _results(scores[0], scores[1], notes) if all(scores) else []
    for result in results:
        notes += _notes(result)
    return Comparison(tuple(_differences(a, b)), tuple(results), tuple(notes))


def _notes(result: Paired) -> list[str]:
    notes = []
    if result.steps[0] != result.steps[1]:
        notes.append(f"{result.name}: no step was evaluated in both runs, so the last of each are compared")
    if len(result.seeds) == 1:
        notes.append(f"{result.name}: a single shared seed ({result.seeds[0]}), so no test and no interval")
    elif math.isnan(result.p_value):
        notes.append(f"{result.name}: every seed differs by the same, so there is no test")
    return notes


def _differences(a: RunConfig, b: RunConfig) -> list[Difference]:
    flat = [_flat(config) for config in (a, b)]
    found = []
    for name in dict.fromkeys([*flat[0], *flat[1]]):
        x, y = (config.get(name) for config in flat)
        if x != y:
            found.append(
                Difference(name, *(brief(name, config[name]) if name in config else MISSING for config in flat))
            )
    return found


def _flat(config: RunConfig) -> dict[str, Any]:
    """Everything that decides what a run computes; where it lies and when it was made does not."""
    found: dict[str, Any] = {"agent": config.agent, "preset": config.preset, "device": config.device}
    found |= {f"sweep.{name}": list(values) for name, values in config.sweep.items()}
    found |= {**config.settings, **config.config}
    found |= {f"versions.{name}": version for name, version in config.versions.items()}
    data = {
        name: getattr(config.data, name) for name in ("source", "fingerprint", "transitions", "episodes", "made_by")
    }
    return found | {f"data.{name}": value for name, value in data.items()}


def _results(a: Scores, b: Scores, notes: list[str]) -> list[Paired]:
    variants = [list(dict.fromkeys(variant for variant, _, _ in scores)) for scores in (a, b)]
    pairs = [(variant, variant) for variant in variants[0] if variant in variants[1]]
    if not pairs and len(variants[0]) == len(variants[1]) == 1:
        pairs = [(variants[0][0], variants[1][0])]
    elif pairs:
        unpaired = [variant_text(variant) or "no sweep" for variant in sorted(set(variants[0]) ^ set(variants[1]))]
        notes += [f"only one of the runs has {', '.join(unpaired)}"] if unpaired else []
    results = []
    for first, second in pairs:
        for policy in dict.fromkeys(policy for variant, _, policy in a if variant == first):
            mine = {seed: by_step for (v, seed, p), by_step in a.items() if (v, p) == (first, policy)}
            theirs = {seed: by_step for (v, seed, p), by_step in b.items() if (v, p) == (second, policy)}
            chosen = _steps(mine, theirs)
            results += [_pair((first, second), policy, mine, theirs, chosen)] if chosen else []
    if not results:
        notes.append("no policy, seed and swept value that both runs have, so there is no result to compare")
    return results


By_seed = Mapping[int, Mapping[int, Score]]


def _steps(a: By_seed, b: By_seed) -> tuple[int, int] | None:
    """The last step at which both evaluated the most shared seeds; each one's last if there is none."""
    shared = sorted(set(a) & set(b))
    counts: dict[int, int] = {}
    for seed in shared:
        for step in set(a[seed]) & set(b[seed]):
            counts[step] = counts.get(step, 0) + 1
    if counts:
        most = max(counts.values())
        step = max(step for step, count in counts.items() if count == most)
        return step, step
    last = [max((max(found[seed]) for seed in shared), default=0) for found in (a, b)]
    return (last[0], last[1]) if any(last[0] in a[seed] and last[1] in b[seed] for seed in shared) else None


def _pair(variants: tuple[Variant, Variant], policy: str, a: By_seed, b: By_seed, steps: tuple[int, int]) -> Paired:
    seeds = sorted(seed for seed in set(a) & set(b) if steps[0] in a[seed] and steps[1] in b[seed])
    x, y = ([found[seed][step] for seed in seeds] for found, step in zip((a, b), steps, strict=True))
    difference = np.array([two.value - one.value for one, two in zip(x, y, strict=True)])
    n, p_value = len(seeds), math.nan
    # Scores are rounded in the files; what differs by less than that does not differ.
    if n > 1 and (error := float(difference.std(ddof=1)) / math.sqrt(n)) > 1e-9:
        p_value = 2 * float(stdtr(n - 1, -abs(float(difference.mean())) / error))
    before, after = (float(np.mean([score.value for score in scores])) for scores in (x, y))
    mean, (low, high) = float(difference.mean()), paired_interval(x, y)
    return Paired(variants, policy, steps, tuple(seeds), before, after, mean, low, high, p_value)


def as_terminal(comparison: Comparison, names: tuple[str, str]) -> Any:
    """As something that a rich console prints."""
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    def text(content: str) -> Text:
        return Text(printable(content))

    settings = Table("setting", *(Column(text(name)) for name in names), title="what differs")
    for difference in comparison.differences:
        settings.add_row(*map(text, difference))
    results = Table("policy", "step", "seeds", "A", "B", "B - A [95% interval]", "p", title="scores")
    for one in comparison.results:
        interval = "" if math.isnan(one.low) else f" [{one.low:+.1f}, {one.high:+.1f}]"
        p_value = "" if math.isnan(one.p_value) else f"{one.p_value:.3g}"
        steps = " / ".join(f"{step:,}" for step in dict.fromkeys(one.steps))
        numbers = steps, " ".join(map(str, one.seeds)), f"{one.a:.1f}", f"{one.b:.1f}"
        results.add_row(text(one.name), *numbers, f"{one.difference:+.1f}{interval}", p_value)
    parts: list[Any] = [settings if comparison.differences else Text("the settings do not differ")]
    parts += [results] if comparison.results else []
    return Group(*parts, *map(text, comparison.notes))

"""Which column of the table each score belongs to, and what columns are called."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from guidedflow.errors import GuidedflowError, RunError, SettingsError
from guidedflow.results.figures import PERCENT, UNLIMITED, Figure, Score, over_tasks_and_seeds
from guidedflow.results.protocol import CHECKED, NOT_COMPARED, Evaluation, Verdict, brief, deviations, in_words, judge
from guidedflow.results.records import RunRecord, read_run
from guidedflow.results.reference import published
from guidedflow.runs.folder import RunFolder
from guidedflow.types import Variant, variant_text


class Method(NamedTuple):
    """A column: one policy of an algorithm with one choice of settings."""

    agent: str
    policy: str
    changes: tuple[str, ...]
    """In what it differs from the published settings, less what all columns differ in."""
    published: str | None
    """The published method that it is."""

    @property
    def label(self) -> str:
        """A name for people."""
        return f"{self.agent} {self.policy}" + (f" ({', '.join(self.changes)})" if self.changes else "")


class Scored(NamedTuple):
    """One policy of one agent of a run: its evaluations and its score."""

    method: Method
    run: RunRecord
    variant: Variant
    seed: int
    evaluations: tuple[Evaluation, ...]
    """One a step, in their order."""
    verdict: Verdict
    deviations: tuple[str, ...]
    """Everything in which it differs from the published protocol and settings, in words."""


class Records(NamedTuple):
    """All scores of a report."""

    scored: tuple[Scored, ...]
    shared: tuple[str, ...]
    """In what all columns differ from the published settings."""
    notes: tuple[str, ...]
    """What a reader has to know of the runs as a whole."""


class Curve(NamedTuple):
    """Mean score over tasks and seeds at each step, with its 95% interval (NaN with one seed)."""

    steps: tuple[int, ...]
    means: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def read_records(
    folders: Iterable[RunFolder], per_task: Sequence[str] = (), on_read: Callable[[], None] = lambda: None
) -> Records:
    """Read runs, give each score its column, and check that no seed counts twice.

    A run that cannot be read, or was never evaluated, is left out, and a note says so.

    Args:
        folders: of the runs.
        per_task: settings that were chosen for each task, one value each, and do not tell columns apart.
        on_read: called after each.

    Raises:
        RunError: nothing is left.
        SettingsError: two runs have the same seed of a column and task, or two values of a setting of ``per_task`` on a
            task; or nobody set such a setting by hand.
    """
    notes: list[str] = []
    runs: list[RunRecord] = []
    for folder in folders:
        try:
            run = read_run(folder)
        except OSError as error:
            notes.append(f"{error.filename}: cannot be read ({error.strerror}); the run is left out")
        except GuidedflowError as error:
            notes.append(f"{error}; the run is left out")
        else:
            notes += (
                run.notes if run else [f"{folder.path}: trained without an environment, so it has no score; left out"]
            )
            runs += [run] if run and run.evaluations else []
        on_read()
    if not runs:
        raise RunError(f"runs: expected at least one evaluation of a task or environment, found none; {notes[0]}")
    _check_per_task(runs, per_task)
    chosen = {
        agent: _chosen([run for run in runs if run.agent == agent]) - set(per_task)
        for agent in {run.agent for run in runs}
    }
    scored, shared = _without_shared([one for run in runs for one in _score(run, chosen[run.agent])])
    _check_seeds(scored)
    return Records(tuple(scored), shared, (*notes, *_versions(runs), *_per_task(scored, per_task)))


def figure_of(scored: Sequence[Scored]) -> Figure:
    """The mean of the scores over tasks and seeds."""
    return _figure([(one, one.verdict.score) for one in scored])


def learning_curve(scored: Sequence[Scored]) -> Curve:
    """Of one method's runs; at the steps at which all of its tasks have at least one evaluation."""
    at: dict[int, list[tuple[Scored, Score]]] = {}
    for one in scored:
        for evaluation in one.evaluations:
            at.setdefault(evaluation.step, []).append((one, evaluation.score))
    tasks = {one.run.subject.id for one in scored}
    steps = sorted(step for step, found in at.items() if {one.run.subject.id for one, _ in found} == tasks)
    figures = [_figure(at[step]) for step in steps]
    bounds = [figure.interval for figure in figures]
    low, high = tuple(bound[0] for bound in bounds), tuple(bound[1] for bound in bounds)
    return Curve(tuple(steps), tuple(figure.mean for figure in figures), low, high)


def _figure(scores: Sequence[tuple[Scored, Score]]) -> Figure:
    by_task: dict[str, dict[int, Score]] = {}
    for one, score in scores:
        by_task.setdefault(one.run.subject.id, {})[one.seed] = score
    return over_tasks_and_seeds(by_task, PERCENT if all(one.run.subject.by_success for one, _ in scores) else UNLIMITED)


def _chosen(runs: Sequence[RunRecord]) -> set[str]:
    """Settings chosen by hand, in some run of an algorithm, that tell its columns apart.

    They differ from the published ones, or where there are none, from those of another run.
    """
    given = {name for run in runs for name in run.given} - set(NOT_COMPARED)
    varied = {name for name in given if len({str(run.settings.get(name)) for run in runs}) > 1}
    return {name for run in runs for name in run.given & (set(run.changed) if run.version else varied)}


def _check_per_task(runs: Sequence[RunRecord], names: Sequence[str]) -> None:
    """Raise SettingsError unless each is a setting that somebody chose, and that makes no other algorithm of it."""
    versions = {name for run in runs if run.version for name in run.version.choices}
    there = {name for run in runs for name in run.given} - set(NOT_COMPARED) - versions
    for name in names:
        if name not in there:
            listed = ", ".join(sorted(there)) or "these runs have none"
            raise SettingsError(f"per_task: expected a setting that was set by hand ({listed}), found {name!r}")


def _score(run: RunRecord, chosen: set[str]) -> list[Scored]:
    found = []
    for (variant, seed, policy), evaluations in run.evaluations.items():
        verdict = judge(run.subject.protocol, run.settings, evaluations, run.data)
        words = (*verdict.reasons, *_words(run, variant))
        method = _method(run, policy, variant, chosen)
        found.append(Scored(method, run, variant, seed, evaluations, verdict, words))
    return found


def _words(run: RunRecord, variant: Variant) -> list[str]:
    if run.version is None:
        return []
    changed = deviations({**run.settings, **dict(variant)}, run.version.settings)
    words = [in_words(name, *pair) for name, pair in changed.items() if name not in CHECKED]
    steps, protocol = run.settings["steps"], run.subject.protocol
    if protocol is None:
        return []
    if not run.version.is_tuned:
        words.append(f"other settings: nobody published those of {run.version.name} for this task; these are its own")
    if steps > protocol.steps:
        words.append(f"more steps: trained to {steps:,}, scored by the evaluations up to {protocol.steps:,}")
    if run.settings["online_steps"]:
        words.append(f"goes online afterwards for {run.settings['online_steps']:,} steps, which the score leaves out")
    return words


def _method(run: RunRecord, policy: str, variant: Variant, chosen: set[str]) -> Method:
    # What the quick preset sets is told by its name; what was set by hand is told one by one.
    changes = [run.preset] if run.preset != "published" else []
    names = chosen | set(run.version.choices if run.version else ())
    by_hand = sorted((names & run.given) - {name for name, _ in variant})
    changes += [f"{name}={brief(name, run.settings[name])}" for name in by_hand]
    changes += variant_text(variant).split() + (["other data"] if run.data is not None else [])
    method = published().methods.get((run.version.name, policy)) if run.version else None
    return Method(run.agent, policy, tuple(changes), method)


def _without_shared(scored: Sequence[Scored]) -> tuple[list[Scored], tuple[str, ...]]:
    """The scores with methods that leave out what all of them say, and that."""
    first = scored[0].method.changes
    shared = tuple(change for change in first if all(change in one.method.changes for one in scored))
    found = []
    for one in scored:
        left = tuple(change for change in one.method.changes if change not in shared)
        found.append(one._replace(method=one.method._replace(changes=left)))
    return found, shared


def _check_seeds(scored: Sequence[Scored]) -> None:
    seen: dict[tuple[Method, str, int], Path] = {}
    for one in scored:
        key = one.method, one.run.subject.id, one.seed
        if key in seen:
            where = f"{seen[key]} and {one.run.path}"
            what = f"{one.method.label} on {one.run.subject.id}"
            raise SettingsError(
                f"{where}: expected each seed of {what} once, found seed {one.seed} in both; leave one out"
            )
        seen[key] = one.run.path


def _per_task(scored: Sequence[Scored], names: Sequence[str]) -> list[str]:
    """Which value each column has on which task."""
    notes = []
    for name in names:
        found: dict[tuple[Method, str], tuple[str, Path]] = {}
        for one in scored:
            if name in one.run.settings and name not in dict(one.variant):
                value = brief(name, one.run.settings[name])
                known, where = found.setdefault((one.method, one.run.subject.id), (value, one.run.path))
                if known != value:
                    what = f"{name} of {one.method.label} on {one.run.subject.id}"
                    raise SettingsError(
                        f"{where} and {one.run.path}: expected one {what}, found {known} and {value}; leave one out"
                    )
        each = dict.fromkeys(f"{method.agent} on {task} {value}" for (method, task), (value, _) in found.items())
        notes.append(f"{name} was chosen for each task: {', '.join(each)}")
    return notes


def _versions(runs: Sequence[RunRecord]) -> list[str]:
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.versions):
        counts = Counter(run.versions.get(name, "unknown") for run in runs)
        if len(counts) > 1:
            listed = ", ".join(
                f"{version} ({n} {'run' if n == 1 else 'runs'})" for version, n in sorted(counts.items())
            )
            notes.append(f"the runs were made with different versions of {name}: {listed}")
    return notes

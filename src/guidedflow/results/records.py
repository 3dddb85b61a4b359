"""Reads a run's folder into a plain record."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from guidedflow.agents import AGENTS
from guidedflow.errors import RunError
from guidedflow.results.figures import Score
from guidedflow.results.guidance import GuidanceRow, read_guidance
from guidedflow.results.protocol import Evaluation, deviations
from guidedflow.runs.config import IN_MEMORY, RunConfig
from guidedflow.runs.folder import RunFolder
from guidedflow.suites import find_task
from guidedflow.suites.suite import Protocol, Task
from guidedflow.training.settings import published_values
from guidedflow.types import Variant

OWN_ENVIRONMENTS = "environments"
"""Stands for the suite of environments of the user's own."""
Evaluated = tuple[Variant, int, str]
"""Variant, seed and policy."""


class Subject(NamedTuple):
    """What runs are scored on: a task of a suite, or an environment of the user's own."""

    id: str
    category: str
    suite: str
    by_success: bool
    """Whether success rates are scored, not returns."""
    protocol: Protocol | None
    """How the published scores were made; None if there are none."""

    @property
    def in_percent(self) -> bool:
        """Whether 100 is a full score, so that scores of several tasks can be averaged; not so for plain returns."""
        return self.by_success or self.protocol is not None


class PublishedVersion(NamedTuple):
    """The published version of an algorithm that a run's settings choose."""

    name: str
    settings: Mapping[str, Any]
    """Those tuned for the task, else the algorithm's defaults."""
    choices: tuple[str, ...]
    """Settings that choose it, if it is another one than by default."""
    is_tuned: bool
    """Whether the authors tuned it for the task."""


class RunRecord(NamedTuple):
    """What a run's folder says."""

    path: Path
    subject: Subject
    agent: str
    preset: str
    settings: Mapping[str, Any]
    """The run's own and the algorithm's, by name."""
    version: PublishedVersion | None
    """None for an algorithm of the user's own, of which nothing can have been published."""
    changed: Mapping[str, tuple[Any, Any]]
    """Settings that differ from the version's: found and published. Swept ones are not among them."""
    given: frozenset[str]
    """Settings that the user chose by hand."""
    data: str | None
    """What it was trained on, if that was not the published data."""
    versions: Mapping[str, str]
    device: str
    is_finished: bool
    evaluations: Mapping[Evaluated, tuple[Evaluation, ...]]
    """One a step, in their order."""
    guidance: Sequence[GuidanceRow]
    videos: tuple[Path, ...]
    notes: tuple[str, ...]
    """What a reader has to know of its files."""


def read_run(folder: RunFolder) -> RunRecord | None:
    """Read a run; None if it has no environment, and so no score.

    Raises:
        RunError: config.json or evaluations.csv is damaged.
        SettingsError: it is a run of a task that is not known here.
        OSError: a file cannot be read.
    """
    config = folder.config()
    task = None if config.task is None else find_task(config.task)
    if task is None and config.env is None:
        return None
    settings = {**config.settings, **config.config}
    version = _version(config, task, settings)
    changed = deviations(settings, version.settings) if version else {}
    notes: list[str] = []
    evaluations = read_evaluations(folder, config, notes)
    guidance: list[GuidanceRow] = []
    try:
        guidance = read_guidance(folder.path / "metrics.jsonl", settings)
    except RunError as error:
        notes.append(f"{error}; its guidance is left out")
    if _is_cut(folder.path / "metrics.jsonl"):
        notes.append(f"{folder.path / 'metrics.jsonl'}: ends in a half-written line, which is left out")
    return RunRecord(
        path=folder.path,
        subject=_subject(config, task),
        agent=config.agent,
        preset=config.preset,
        settings=settings,
        version=version,
        changed={name: pair for name, pair in changed.items() if name not in config.sweep},
        given=frozenset(name for name, source in config.sources.items() if source == "given"),
        data=None if task is None else _data(config),
        versions=config.versions,
        device=config.device,
        is_finished=folder.is_finished(),
        evaluations=evaluations,
        guidance=guidance,
        videos=tuple(folder.videos()),
        notes=tuple(notes),
    )


def _subject(config: RunConfig, task: Task | None) -> Subject:
    if task is not None:
        by_success = task.scored_by == "success"
        return Subject(task.id, task.category, task.suite.name, by_success, task.suite.protocol(task))
    data = IN_MEMORY if config.data.source == IN_MEMORY else Path(config.data.source).name
    category = f"{OWN_ENVIRONMENTS}/{config.env}"
    return Subject(f"{config.env} from {data}", category, OWN_ENVIRONMENTS, by_success=False, protocol=None)


def _version(config: RunConfig, task: Task | None, settings: Mapping[str, Any]) -> PublishedVersion | None:
    if config.agent not in AGENTS:
        return None  # A class of the user's own is not imported: no file must say what code runs.
    agent = AGENTS[config.agent]
    name = agent.published_name(settings)
    return PublishedVersion(
        name,
        published_values(agent, task, settings),
        choices=agent.published_choices if name != agent.published_name({}) else (),
        is_tuned=task is not None and task.suite.published_settings(name, task) is not None,
    )


def _data(config: RunConfig) -> str | None:
    if config.data.made_by is not None:
        return f"locally generated, {config.data.transitions:,} transitions"
    if config.data.source == IN_MEMORY:
        return IN_MEMORY
    return "a file of the user's own" if config.data.is_own else None


def read_evaluations(folder: RunFolder, config: RunConfig, notes: list[str]) -> dict[Evaluated, tuple[Evaluation, ...]]:
    """One evaluation a step of everything that was evaluated.

    Of several at a step, the one of the most episodes counts, of equal ones the first. The choice must not depend on
    what was found, or evaluating until the score pleases would pay.

    Args:
        folder: the run's.
        config: the run's.
        notes: what a reader has to know is added to it.

    Raises:
        RunError: evaluations.csv is damaged.
        SettingsError: the task is not known here.
    """
    score = _scorer(None if config.task is None else find_task(config.task))
    found: dict[Evaluated, dict[int, Evaluation]] = {}
    by_training: set[tuple[Any, ...]] = set()
    path, left_out = folder.path / "evaluations.csv", 0
    for number, row in enumerate(folder.evaluations(), 2):
        _check(f"{path}: line {number}", row, by_training)
        if not math.isfinite(row["score"]):
            left_out += 1
            continue
        by_step = found.setdefault((row["variant"], row["seed"], row["policy"]), {})
        known = by_step.get(row["step"])
        if known is None or row["episodes"] > known.episodes:
            by_step[row["step"]] = Evaluation(row["step"], row["episodes"], _score(row, score))
    if left_out:
        notes.append(f"{path}: left out {left_out} row{'s' * (left_out > 1)} without a finite score")
    if not found:
        notes.append(f"{folder.path}: no evaluation yet, so it has no score")
    return {key: tuple(by_step[step] for step in sorted(by_step)) for key, by_step in found.items()}


def _scorer(task: Task | None) -> Callable[[float, float], float]:
    """The score of a success rate and a mean return."""
    return (lambda _, returned: returned) if task is None else (lambda *means: task.suite.score(task, *means))


def _check(place: str, row: Mapping[str, Any], by_training: set[tuple[Any, ...]]) -> None:
    if row["episodes"] < 1 or row["success"] < 0 or row["success"] > 1:
        found = f"{row['success']:g} in {row['episodes']} episodes at step {row['step']}"
        raise RunError(f"{place}: expected a success rate from 0 to 1 in at least one episode, found {found}")
    if row["source"] == "training":
        key = row["step"], row["variant"], row["seed"], row["policy"]
        if key in by_training:
            found = f"two of {row['policy']}, seed {row['seed']}, at step {row['step']}"
            raise RunError(f"{place}: expected each evaluation of the training once, found {found}")
        by_training.add(key)


def _score(row: Mapping[str, Any], score: Callable[[float, float], float]) -> Score:
    """A row's score; the interval follows from those of success and return, so it is Wilson's for a success rate."""
    value, half = row["score"], row["return_half_width"]
    low = score(row["success_low"], row["mean_return"] - half)
    high = score(row["success_high"], row["mean_return"] + half)
    # A single episode's return has none.
    return Score(value, min(low, value), max(high, value)) if math.isfinite(low + high) else Score.exact(value)


def _is_cut(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"

"""What a run must have done for its score to stand beside the published ones, and in what it differs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from guidedflow.suites import Task

# They decide how often something is written or looked at, or are checked as part of the protocol below.
NOT_COMPARED = ("seeds", "log_every", "save_every", "eval_every", "eval_episodes", "eval_slots")
CHECKED = ("steps", "online_steps", "success_timing")
# OGBench's published evaluation counted short episodes too often: 0.5 to 2 points around 50%.
TOLERANCE = {"ogbench": 2.0, "d4rl": 0.0, "minari": 0.0}


class Protocol(NamedTuple):
    """How the published scores of a task were made."""

    steps: int
    """Gradient steps on the data."""
    marks: tuple[int, ...]
    """Steps whose evaluations are averaged."""
    episodes: int
    """Of each evaluation."""
    seeds: int


def protocol(task: Task) -> Protocol:
    """The protocol of a task's published scores."""
    if task.benchmark == "d4rl":
        return Protocol(500_000, (500_000,), 100, 8)
    if task.benchmark == "minari":
        return Protocol(1_000_000, (1_000_000,), 100, 8)
    steps, seeds = (500_000, 4) if task.id.startswith("visual-") else (1_000_000, 8)
    return Protocol(steps, (steps - 200_000, steps - 100_000, steps), 100, seeds)


class Verdict(NamedTuple):
    """The score of one policy of one agent."""

    score: float | None
    """By the protocol; of the last evaluation if there are reasons; None if there was no evaluation."""
    step: int | None
    """Of the last evaluation that the score is made of."""
    reasons: tuple[str, ...]
    """Why it is not comparable with the published ones, in plain words; empty if it is."""


def judge(
    task: Task, settings: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]], data: str | None
) -> Verdict:
    """The score of one policy of one agent, and whether it may stand beside the published ones.

    Args:
        task: what it was trained on.
        settings: of the run.
        evaluations: the policy's rows of evaluations.csv in the order of their steps.
        data: what the run was trained on, if it was not the published data.
    """
    if not evaluations:
        return Verdict(None, None, ("no evaluation yet",))
    wanted, last = protocol(task), evaluations[-1]
    reasons = []
    if settings["steps"] < wanted.steps:
        reasons.append(f"fewer steps: {settings['steps']:,} instead of {wanted.steps:,}")
    elif last["step"] < wanted.steps:
        reasons.append(f"unfinished: evaluated up to step {last['step']:,} of {wanted.steps:,}")
    by_step = {row["step"]: row for row in evaluations}
    missing = [mark for mark in wanted.marks if mark not in by_step]
    if missing and not reasons:
        reasons.append(f"other evaluations: none at {' and '.join(f'{mark:,}' for mark in missing)} steps")
    used = [last] if missing else [by_step[mark] for mark in wanted.marks]
    fewest = min(row["episodes"] for row in used)
    if fewest < wanted.episodes:
        reasons.append(f"fewer episodes: {fewest} an evaluation instead of {wanted.episodes}")
    if data is not None:
        reasons.append(f"other data: {data}")
    if task.benchmark == "ogbench" and settings["success_timing"] != "post":
        reasons.append("other success timing: of the state before a step instead of after it")
    return Verdict(sum(row["score"] for row in used) / len(used), used[-1]["step"], tuple(reasons))


def deviations(settings: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from the published ones: name to what was found and what was published."""
    return {
        name: (value, tuned[name])
        for name, value in settings.items()
        if name in tuned and name not in NOT_COMPARED and value != tuned[name]
    }


def in_words(name: str, found: Any, expected: Any) -> str:
    """A setting that differs from the published one, for a reader."""
    if name == "hidden":
        return f"other network: hidden layers {brief(found)} instead of {brief(expected)}"
    return f"other setting: {name} = {brief(found)} instead of {brief(expected)}"


def brief(value: Any) -> str:
    """A setting's value in few characters."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:_}".replace("_", ",") if isinstance(value, int) and not isinstance(value, bool) else str(value)

"""Whether a run's score may stand beside the published ones, and in what the run differs from theirs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from guidedflow.results.figures import Score, mean_score
from guidedflow.suites.suite import Protocol

# They decide how often something is written or looked at, or are checked as part of the protocol below.
NOT_COMPARED = ("seeds", "log_every", "save_every", "eval_every", "eval_episodes", "eval_slots")
CHECKED = ("steps", "online_steps", "success_timing")
TIMINGS = {"post": "of the state after a step", "pre": "of the state before a step"}


class Evaluation(NamedTuple):
    """One policy of one agent at one step."""

    step: int
    episodes: int
    score: Score


class Verdict(NamedTuple):
    """The score of one policy of one agent."""

    score: Score
    """By the protocol; of the last evaluation if there are reasons, or no protocol."""
    step: int
    """Of the last evaluation that the score is made of."""
    reasons: tuple[str, ...]
    """Why it is not comparable with the published ones, in plain words; empty if it is, or nothing was published."""


def judge(
    wanted: Protocol | None, settings: Mapping[str, Any], evaluations: Sequence[Evaluation], data: str | None
) -> Verdict:
    """The score of one policy of one agent, and whether it may stand beside the published ones.

    Args:
        wanted: how the published scores of the task were made; None if there are none.
        settings: of the run.
        evaluations: at least one, in the order of their steps, one a step.
        data: what the run was trained on, if it was not the published data.
    """
    last = evaluations[-1]
    if wanted is None:
        return Verdict(last.score, last.step, ())
    reasons = []
    if settings["steps"] < wanted.steps:
        reasons.append(f"fewer steps: {settings['steps']:,} instead of {wanted.steps:,}")
    elif last.step < wanted.steps:
        reasons.append(f"unfinished: evaluated up to step {last.step:,} of {wanted.steps:,}")
    by_step = {one.step: one for one in evaluations}
    missing = [step for step in wanted.score_steps if step not in by_step]
    if missing and not reasons:
        reasons.append(f"other evaluations: none at {' and '.join(f'{step:,}' for step in missing)} steps")
    used = [last] if missing else [by_step[step] for step in wanted.score_steps]
    fewest = min(one.episodes for one in used)
    if fewest < wanted.episodes:
        reasons.append(f"fewer episodes: {fewest} an evaluation instead of {wanted.episodes}")
    if data is not None:
        reasons.append(f"other data: {data}")
    timing = settings["success_timing"]
    if wanted.success_timing not in (None, timing):
        found, expected = (TIMINGS.get(one, one) for one in (timing, wanted.success_timing))
        reasons.append(f"other success timing: {found} instead of {expected}")
    return Verdict(mean_score(one.score for one in used), used[-1].step, tuple(reasons))


def deviations(settings: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from the published ones: name to what was found and what was published."""
    return {
        name: (value, published[name])
        for name, value in settings.items()
        if name in published
        and name not in NOT_COMPARED
        and value != published[name]
        # A validation file of its own takes nothing from the training data.
        and (name, value) != ("validation", "own")
    }


def in_words(name: str, found: Any, expected: Any) -> str:
    """A setting that differs from the published one, for a reader."""
    if name == "hidden":
        return f"other network: hidden layers {brief(name, found)} instead of {brief(name, expected)}"
    return f"other setting: {name} = {brief(name, found)} instead of {brief(name, expected)}"


def brief(name: str, value: Any) -> str:
    """A setting's value in few characters."""
    if isinstance(value, list | tuple):
        return ("x" if name == "hidden" else " ").join(brief(name, item) for item in value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return f"{value:_}".replace("_", ",") if isinstance(value, int) and not isinstance(value, bool) else str(value)

"""What a study's states say: totals, the time left, and rows for tables."""

from collections import Counter
from collections.abc import Sequence

from guidedflow.studies.jobs import JobState

ORDER = ("done", "running", "waiting", "failed", "differs")


def counts(states: Sequence[JobState]) -> dict[str, int]:
    """How many jobs there are of each status, those without any left out."""
    found = Counter[str](state.status for state in states)
    return {status: found[status] for status in ORDER if found[status]}


def seconds_left(states: Sequence[JobState]) -> float | None:
    """How long the study still takes with as many jobs at once as run now; None before any of them has a rate.

    A job that waits is taken to last as long as the finished ones of its agent did on average, else as all did, else
    as a running one will.
    """
    running = [state for state in states if state.status == "running"]
    done: dict[str, list[float]] = {}
    for state in states:
        if state.status == "done" and state.seconds:
            done.setdefault(state.job.agent, []).append(state.seconds)
    expected = [state.steps / state.rate for state in running if state.rate]
    everything = [seconds for found in done.values() for seconds in found] or expected
    if not (running and everything):
        return None
    mean = sum(everything) / len(everything)
    work = 0.0
    for state in states:
        if state.status in ("running", "waiting"):
            found = done.get(state.job.agent)
            whole = sum(found) / len(found) if found else mean
            left = state.seconds_left
            work += left if left is not None and state.status == "running" else whole * (1 - state.share)
    return work / len(running)


def cell(state: JobState) -> str:
    """A job in a word or two: ``42% 1:23 left``, ``waiting``, ``done``."""
    from guidedflow.training.display import duration

    if state.status == "running":
        left = state.seconds_left
        return f"{state.share:.0%}" + (f" {duration(left)} left" if left is not None else "")
    if state.status == "waiting" and state.step:
        return f"waiting at {state.share:.0%}"
    return state.status


def summary(states: Sequence[JobState]) -> str:
    """The totals, in a line."""
    from guidedflow.training.display import duration

    parts = [f"{number} {status}" for status, number in counts(states).items()]
    rate = sum(state.rate for state in states if state.status == "running")
    if rate:
        parts.append(f"{rate:,.0f} updates/s")
    left = seconds_left(states)
    if left is not None:
        parts.append(f"about {duration(left)} left")
    return f"{len(states)} jobs: {', '.join(parts)}"


def rows(states: Sequence[JobState]) -> list[dict[str, str]]:
    """A row a task, a column for each of its jobs."""
    found: dict[str, dict[str, str]] = {}
    names = dict.fromkeys(state.job.name.rpartition("/")[2] for state in states)
    for state in states:
        task, _, column = state.job.name.rpartition("/")
        found.setdefault(task, {"task": task, **dict.fromkeys(names, "-")})[column] = cell(state)
    return list(found.values())


def problems(states: Sequence[JobState]) -> list[str]:
    """A line for each job that cannot go on as it is."""
    return [f"{state.job.name}: {state.why}" for state in states if state.status in ("failed", "differs")]

"""What can be seen of a training while it runs, and what others may do about it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Phase = Literal["starting", "compiling", "training", "evaluating", "saving", "stopping", "finished"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training is."""

    step: int
    """Gradient steps done."""
    steps: int
    """Gradient steps of the whole run."""
    phase: Phase
    """What happens now. The first steps of a process are compiled first."""
    elapsed: float = 0.0
    """Seconds since this process began to train."""
    seconds_left: float | None = None
    """Estimated, the evaluations to come included; None while nothing is known."""
    updates_per_second: float = 0.0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Means over the steps since the last call and over all agents; empty where no step was made."""
    evaluations: Sequence[Mapping[str, Any]] = ()
    """The rows of the last evaluation, each with its ``step``."""
    episodes_done: int = 0
    """Of the evaluation that runs now."""
    episodes_total: int = 0
    agents: Any = dataclasses.field(default=None, repr=False)
    """The agents, stacked along a leading axis of members. The next steps take over their memory: copy what you keep,
    with ``jax.tree.map(jax.numpy.copy, agents)``."""


class Callbacks:
    """Calls every callback, and remembers whether one of them asked to stop.

    Args:
        callbacks: functions of a ``Progress``, or objects with any of the methods ``on_progress`` (after every few
            seconds of steps, and whenever the phase changes), ``on_evaluation`` (after an evaluation) and ``on_end``.
            What returns False stops the run; it is saved and can be continued.
    """

    def __init__(self, callbacks: Sequence[Any]):
        self._callbacks = callbacks
        self.stop = False

    def __call__(self, event: Literal["on_progress", "on_evaluation", "on_end"], progress: Progress) -> None:
        """Tell all of them of an event."""
        for callback in self._callbacks:
            method: Callable[[Progress], Any] | None = getattr(callback, event, None)
            if method is None and event == "on_progress" and callable(callback):
                method = callback
            if method is not None and method(progress) is False:
                self.stop = True


class Clock:
    """Estimates how long the rest of a run takes: its steps at the last rate, its evaluations as long as the last."""

    def __init__(self) -> None:
        self.updates_per_second = 0.0
        self._evaluation_seconds: float | None = None
        self._is_measured = False
        self._rest = 0.0

    def evaluating(self, seconds: float, share: float) -> None:
        """An evaluation has taken so long for this share of its episodes; for the first one, that is extrapolated."""
        if share == 1 or (share and not self._is_measured):
            self._evaluation_seconds, self._is_measured = seconds / share, share == 1
        self._rest = 1 - share

    def left(self, steps: int, evaluations: int) -> float | None:
        """Seconds for so many steps and evaluations, and what is left of one that runs; None while that is unknown."""
        to_come = evaluations + self._rest
        if (steps and not self.updates_per_second) or (to_come and self._evaluation_seconds is None):
            return None
        return (steps / self.updates_per_second if steps else 0.0) + to_come * (self._evaluation_seconds or 0.0)

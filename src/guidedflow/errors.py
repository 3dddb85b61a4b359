"""What a user can catch. Each message is one line: what, what was expected, what was found, what to do."""

import signal
from pathlib import Path


class GuidedflowError(Exception):
    """Whatever this package raises on purpose. The command line prints it without a traceback and exits with 2."""


class SettingsError(GuidedflowError, ValueError):
    """An argument, option or setting is not possible: a wrong name, type, value or combination."""


class DataError(GuidedflowError, ValueError):
    """Data is missing, malformed, damaged, or does not fit the task."""


class RunError(GuidedflowError, RuntimeError):
    """A run cannot go on, or its folder cannot be read or written."""


class Diverged(RunError):
    """A loss or another metric is no finite number any more."""


class WorkerDied(RunError):
    """A helper process ended without an answer: killed, for instance because memory ran out."""


class Interrupted(GuidedflowError):
    """SIGINT, SIGTERM or a closed terminal stopped the training; the run is saved at ``step`` in ``path``."""

    def __init__(self, path: Path, step: int, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}, saved at step {step}")
        self.path = path
        self.step = step
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type, tuple[Path, int, int]]:
        return type(self), (self.path, self.step, self.signal_number)

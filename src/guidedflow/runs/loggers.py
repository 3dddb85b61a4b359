"""Services that show a run's numbers elsewhere. Any object with these three methods is one."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from guidedflow.errors import SettingsError


class Logger(Protocol):
    """Somewhere else that a run's numbers go."""

    def start(self, path: Path, config: Mapping[str, Any], step: int) -> None:
        """A run begins, or goes on.

        Args:
            path: the run's folder.
            config: what config.json holds.
            step: where it begins: what was logged after it will be logged again.
        """

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """Numbers of one agent (``seed0`` for instance, or ``alpha-0.3/seed0``) at a step."""

    def close(self) -> None:
        """The run has ended: write what is pending."""


class TensorBoard:
    """Writes event files into the run's folder, a series for each agent."""

    def start(self, path: Path, config: Mapping[str, Any], step: int) -> None:
        """Open a new event file; TensorBoard forgets what earlier ones hold after this step."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """See ``Logger``."""
        for name, value in values.items():
            self._writer.add_scalar(f"{label}/{name}", value, step)

    def close(self) -> None:
        """See ``Logger``."""
        self._writer.close()


class WeightsAndBiases:
    """Sends the numbers to Weights & Biases, or with mode ``offline`` into the run's folder for later.

    Raises:
        SettingsError: another mode, or the wandb package is not installed.
    """

    def __init__(self, mode: Literal["online", "offline"] = "online"):
        if mode not in ("online", "offline"):
            raise SettingsError(f"wandb: expected online or offline, found {mode!r}")
        if importlib.util.find_spec("wandb") is None:
            raise SettingsError("wandb: expected the wandb package, found none; pip install 'guidedflow[wandb]'")
        self._mode = mode

    def start(self, path: Path, config: Mapping[str, Any], step: int) -> None:
        """Begin or continue the run of that id there."""
        import wandb

        self._run = wandb.init(
            project="guidedflow",
            name=path.name,
            dir=str(path),
            config=dict(config),
            mode=self._mode,
            id=config.get("run_id") or path.name,
            resume="allow",
        )

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """See ``Logger``."""
        self._run.log({f"{label}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """See ``Logger``."""
        self._run.finish()


@contextmanager
def started(loggers: Sequence[Logger], path: Path, config: Mapping[str, Any], step: int) -> Iterator[Sequence[Logger]]:
    """Loggers for the duration of a run; all that were started are closed."""
    begun: list[Logger] = []
    try:
        for logger in loggers:
            logger.start(path, config, step)
            begun.append(logger)
        yield loggers
    finally:
        for logger in begun:
            logger.close()

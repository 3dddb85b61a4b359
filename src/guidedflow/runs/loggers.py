"""Services that show a run's numbers elsewhere. Any object with these three methods is one."""

import importlib.util
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from guidedflow.errors import SettingsError

logger = logging.getLogger("guidedflow")


class Logger(Protocol):
    """Somewhere else that a run's numbers go. What a logger of the user's own raises ends the run, which is saved."""

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
    """Writes event files into the run's folder, a series for each agent.

    They are written at once: tensorboardX's own writer has a thread, and when a full disk ends that, ``add_scalar``
    waits for ever. What cannot be written ends the logging, never the training.
    """

    def start(self, path: Path, config: Mapping[str, Any], step: int) -> None:
        """Open a new event file; TensorBoard forgets what earlier ones hold after this step."""
        self._folder = path / "tensorboard"
        self._file: IO[bytes] | None = None
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{step}"
        with self._failing_quietly():
            self._folder.mkdir(exist_ok=True)
            self._file = (self._folder / name).open("ab")
            self._write(file_version="brain.Event:2")
            if step:
                self._write(step=step + 1, session_log={"status": 1})  # START: what is logged from here on replaces.

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """See ``Logger``."""
        from tensorboardX.summary import scalar

        with self._failing_quietly():
            for name, value in values.items():
                self._write(step=step, summary=scalar(f"{label}/{name}", value))
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """See ``Logger``."""
        with self._failing_quietly():
            if self._file is not None:
                self._file.close()

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        if self._file is not None:
            event = Event(wall_time=time.time(), **fields).SerializeToString()
            size = struct.pack("<Q", len(event))
            for part in (size, event):
                self._file.write(part + struct.pack("<I", masked_crc32c(part)))

    @contextmanager
    def _failing_quietly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            file, self._file = self._file, None
            with suppress(OSError):
                if file is not None:
                    file.close()
            logger.warning("%s: cannot be written (%s); this run logs no more to it", self._folder, error.strerror)


class WeightsAndBiases:
    """Sends the numbers to Weights & Biases, or with mode ``offline`` into the run's folder for later.

    As with TensorBoard, what fails once the training runs, or for a full disk, ends the logging, never the training.

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

        self._run: Any = None
        with self._failing_quietly(OSError):
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
        import wandb

        with self._failing_quietly(OSError, wandb.Error):
            if self._run is not None:
                self._run.log({f"{label}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """See ``Logger``."""
        import wandb

        with self._failing_quietly(OSError, wandb.Error):
            if self._run is not None:
                self._run.finish()

    @contextmanager
    def _failing_quietly(self, *kinds: type[Exception]) -> Iterator[None]:
        try:
            yield
        except kinds as error:
            self._run = None
            words = " ".join(str(error).split())
            logger.warning("Weights & Biases: cannot be written (%s); this run logs no more to it", words)


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

"""The run's folder: what was asked for, what was measured, and the adapters that show it elsewhere."""

import contextlib
import csv
import fcntl
import importlib.metadata
import importlib.util
import json
import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from guidedflow.errors import UserError
from guidedflow.files import as_json, read_json, read_text, write_text

EVALUATION_FIELDS = (
    "step",
    "variant",
    "seed",
    "policy",
    "episodes",
    "success",
    "success_low",
    "success_high",
    "mean_return",
    "return_half_width",
    "mean_length",
    "length_half_width",
    "score",
)
VERSIONED = (
    "guidedflow",
    "jax",
    "equinox",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "mujoco",
    "gymnasium",
    "ogbench",
)


class Tracker(Protocol):
    """Somewhere else that a run's numbers go."""

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """Show these values of one member (``seed0`` for instance) at a step."""

    def close(self) -> None:
        """Write what is pending."""


class RunFolder:
    """A run as one folder: config.json, metrics.jsonl, evaluations.csv, checkpoints/, summary.json, curves.png."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """Make the folder and write its config.json.

        Raises:
            UserError: it exists already, or cannot be written.
        """
        folder = cls(path)
        if (folder.path / "config.json").exists():
            again = f"guidedflow train --resume {shlex.quote(str(path))}"
            raise UserError(f"{path}: the run's folder exists already; continue it with `{again}`, or choose another")
        if folder.path.exists():
            raise UserError(f"{path}: expected a new folder for the run, found something else there; choose another")
        try:
            folder.path.mkdir(parents=True)
            write_json(folder.path / "config.json", config)
        except OSError as error:
            raise UserError(f"{path}: expected a folder that can be written, found: {error.strerror}") from error
        return folder

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    def config(self) -> dict[str, Any]:
        """What ``create`` wrote.

        Raises:
            UserError: this is no run's folder, or its config.json is damaged.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise UserError(f"{self.path}: expected the folder of a run, found no config.json in it")
        return read_json(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in this folder at the same time.

        Raises:
            UserError: another one does.
            OSError: the folder cannot be written.
        """
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.path}: expected a run that rests, found another process training it") from error
            yield

    def log_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def log_evaluations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows of ``EVALUATION_FIELDS`` to evaluations.csv, all or none."""
        path = self.path / "evaluations.csv"
        write_text(path, _csv([*self.evaluations(), *rows]))

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line that a kill cut short is left out.

        Raises:
            UserError: any other line is damaged.
        """
        path = self.path / "metrics.jsonl"
        # What follows the last line break is a line that a kill cut short, or nothing.
        *lines, _ = read_text(path).split("\n") if path.exists() else [""]
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                rows.append(row | {"step": int(row["step"]), "seed": int(row["seed"])})
            except (ValueError, TypeError, KeyError) as error:
                wanted = "expected a JSON object with step and seed"
                raise UserError(f"{path}: line {number}: {wanted}, found {line[:60]!r}") from error
        return rows

    def evaluations(self) -> list[dict[str, Any]]:
        """The rows of evaluations.csv with their numbers as numbers.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / "evaluations.csv"
        if not path.exists():
            return []
        kinds = {"step": int, "variant": str, "seed": int, "episodes": int, "policy": str}
        rows = []
        for number, row in enumerate(csv.DictReader(read_text(path).splitlines()), 2):
            try:
                rows.append({name: kinds.get(name, float)(row[name]) for name in EVALUATION_FIELDS})
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}: line {number}: expected {','.join(EVALUATION_FIELDS)}, found another"
                ) from error
        return rows

    def rewind(self, step: int) -> None:
        """Forget everything recorded after a step: a resumed run records it again."""
        metrics = [row for row in self.metrics() if row["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
        if (self.path / "evaluations.csv").exists():
            write_text(self.path / "evaluations.csv", _csv([r for r in self.evaluations() if r["step"] <= step]))

    def is_finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").is_file()

    def summary(self) -> dict[str, Any]:
        """What a finished run found.

        Raises:
            UserError: the run has none, because it has not finished.
        """
        path = self.path / "summary.json"
        if not self.is_finished():
            raise UserError(f"{path}: expected the summary of a finished run; continue it with --resume {self.path}")
        return read_json(path)

    def draw_curves(self) -> Path:
        """Draw curves.png: success (or return) of each policy, and the losses, over the steps."""
        from guidedflow.runs.curves import draw_curves

        path = self.path / "curves.png"
        draw_curves(path, self.metrics(), self.evaluations())
        return path


class TensorBoard:
    """Writes event files into the run's folder, one series a member."""

    def __init__(self, path: Path):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"))

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """Show these values of one member at a step."""
        for name, value in values.items():
            self._writer.add_scalar(f"{label}/{name}", value, step)

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


class WeightsAndBiases:
    """Sends the same numbers to Weights & Biases, or with mode ``offline`` into the run's folder for later."""

    def __init__(self, path: Path, config: Mapping[str, Any], mode: Literal["online", "offline"]):
        import wandb

        self._run = wandb.init(
            project="guidedflow",
            name=path.name,
            dir=str(path),
            config=dict(config),
            mode=mode,
            id=path.name,
            resume="allow",
        )

    @staticmethod
    def check(mode: str) -> None:
        """Raise UserError unless ``mode`` is one, and the wandb package is there."""
        if mode not in ("online", "offline"):
            raise UserError(f"wandb: expected online or offline, found {mode!r}")
        if importlib.util.find_spec("wandb") is None:
            raise UserError("wandb: expected the wandb package, found none; pip install 'guidedflow[wandb]'")

    def log(self, step: int, label: str, values: Mapping[str, float]) -> None:
        """Show these values of one member at a step."""
        self._run.log({f"{label}/{name}": value for name, value in values.items()} | {"step": step})

    def close(self) -> None:
        """Write what is pending."""
        self._run.finish()


def versions() -> dict[str, str]:
    """Versions of everything that decides what a run computes."""
    found = {name: importlib.metadata.version(name) for name in VERSIONED}
    return {"python": platform.python_version(), **found}


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is there whole or as it was before."""
    write_text(path, as_json(value) + "\n")


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [",".join(EVALUATION_FIELDS)]
    lines += [",".join(str(row[name]) for name in EVALUATION_FIELDS) for row in rows]
    return "\n".join(lines) + "\n"

"""The run's folder and its records: metrics.jsonl, evaluations.csv, summary.json and the lock."""

import contextlib
import csv
import io
import json
import math
import os
import re
import shlex
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from guidedflow.errors import RunError
from guidedflow.files import as_json, read_text, whole_file, write_text
from guidedflow.locks import held
from guidedflow.runs.config import FILE, RunConfig
from guidedflow.types import Variant, parse_variant, variant_text

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
    "source",
    "env_seed",
)
ASSESSMENT_FIELDS = (
    "step",
    "variant",
    "seed",
    "policy",
    "value",
    "value_low",
    "value_high",
    "starts",
    "action_error",
    "least_action_error",
    "at_limits",
    "fqe_steps",
    "data",
)
# What rows of older versions do not have: they were all made by the training.
_ADDED = {"source": "training", "env_seed": ""}
PATTERNS = "[*?\\"
STALE_SECONDS = 3600
"""A film that nobody has added to for so long is no longer being made."""

Row = dict[str, Any]


class RunFolder:
    """A run as one folder: config.json, metrics.jsonl, evaluations.csv, checkpoints/, summary.json, curves.png.

    ``assessment.csv`` is there once the run's policies were assessed.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunFolder":
        """Make the folder and write its config.json.

        Raises:
            RunError: it exists already, or cannot be written.
        """
        folder = cls(path)
        folder.check_new()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with folder.lock():
                folder.check_new()  # Another process may have made one here meanwhile.
                config.write(path)
        except OSError as error:
            raise RunError(f"{path}: expected a folder that can be written, found: {error.strerror}") from error
        return folder

    def check_path(self) -> None:
        """Raise RunError where checkpoints would be lost: Orbax takes some characters of a path for patterns."""
        found = [character for character in PATTERNS if character in str(self.path.absolute())]
        if found:
            raise RunError(
                f"{self.path.absolute()}: expected a path without any of {' '.join(PATTERNS)}, with which checkpoints "
                f"cannot be found again, found {' '.join(found)}; choose another folder, or rename it"
            )

    def check_new(self) -> None:
        """Raise RunError unless a run can be made here: nothing is there, or what a start that was killed left."""
        self.check_path()
        if (self.path / FILE).exists():
            again = f"guidedflow train --resume {shlex.quote(str(self.path))}"
            raise RunError(
                f"{self.path}: the run's folder exists already; continue it with `{again}`, or choose another"
            )
        left = re.compile(rf"lock|{re.escape(FILE)}\.\d+\.tmp")
        is_free = not self.path.exists() or (
            self.path.is_dir() and all(left.fullmatch(path.name) for path in self.path.iterdir())
        )
        if not is_free:
            raise RunError(f"{self.path}: expected a new folder for the run, found something there; choose another")

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    def config(self) -> RunConfig:
        """What the run was asked for.

        Raises:
            RunError: this is no run's folder, or its config.json is damaged.
        """
        return RunConfig.read(self.path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Open the folder for writing: keep other processes from it, and remove what killed ones had begun to write.

        Raises:
            RunError: another one writes in it, or it is not as ``check_own`` wants it.
            OSError: the folder cannot be written.
        """
        self.check_own()
        with contextlib.ExitStack() as stack:
            try:
                is_alone = stack.enter_context(held(self.path / "lock"))
            except filelock.Timeout as error:
                raise RunError(
                    f"{self.path}: expected a run that nobody trains now, found another process in it"
                ) from error
            if is_alone:
                self._remove_stale()
            yield

    def check_own(self) -> None:
        """Raise RunError unless the folder holds plain files and folders alone.

        A folder may come from a stranger: a link in it would make a continued run write or delete at another place.
        """
        ours = self.path.resolve() / "wandb"  # Weights & Biases has links to its newest run.
        for parent, folders, files in os.walk(self.path):
            for path in (Path(parent, name) for name in (*folders, *files)):
                mode = path.lstat().st_mode
                is_link = stat.S_ISLNK(mode)
                if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (is_link and path.resolve().is_relative_to(ours)):
                    continue
                found = "a symbolic link" if is_link else "something else"
                raise RunError(
                    f"{path}: expected plain files and folders alone in a run that is written to, found {found}; "
                    "replace it by what it stands for, or remove it"
                )

    def _remove_stale(self) -> None:
        # Nobody else writes here while the lock is held, but `evaluate --videos` films without it.
        stale = [*self.path.glob("*.tmp"), *self.path.glob("checkpoints/*/checksums.json.*.tmp")]
        stale += [path for path in self.path.glob("videos/*.tmp") if time.time() - path.stat().st_mtime > STALE_SECONDS]
        for path in stale:
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------- metrics

    def log_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows with ``step``, ``variant``, ``seed`` and numbers to metrics.jsonl."""
        lines = []
        for row in rows:
            variant = {"variant": variant_text(row["variant"])} if row["variant"] else {}
            rest = {name: value for name, value in row.items() if name not in ("step", "variant")}
            lines.append(json.dumps({"step": row["step"], **variant, **rest}) + "\n")
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:  # A failed write does not say where.
            raise OSError(error.errno, error.strerror, str(path)) from error

    def metrics(self) -> list[Row]:
        """The rows of metrics.jsonl; a last line that a kill cut short is left out.

        Raises:
            RunError: any other line is damaged.
        """
        path = self.path / "metrics.jsonl"
        # What follows the last line break is a line that a kill cut short, or nothing.
        *lines, _ = read_text(path).split("\n") if path.exists() else [""]
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                known = {"step": _count(row.pop("step")), "seed": _count(row.pop("seed"))}
                variant = parse_variant(row.pop("variant", ""))
                rows.append({**known, "variant": variant, **{name: float(value) for name, value in row.items()}})
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                expected = "expected a JSON object of numbers with step and seed"
                raise RunError(f"{path}: line {number}: {expected}, found {line[:60]!r}") from error
        return rows

    def save_unlogged(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Keep the metrics of steps since the last row, for the row that a continued run will write.

        Args:
            step: where the run stops.
            metrics: arrays of (members, steps since the last row).
        """
        with whole_file(self._unlogged) as file:
            np.savez(file, **metrics, step=np.int64(step))  # type: ignore[arg-type]

    def take_unlogged(self, step: int) -> dict[str, np.ndarray]:
        """What ``save_unlogged`` kept at this step, once; {} if there is nothing."""
        found: dict[str, np.ndarray] = {}
        if self._unlogged.is_file():
            with contextlib.suppress(ValueError, OSError, KeyError), np.load(self._unlogged) as saved:
                if int(saved["step"]) == step:
                    found = {name: saved[name] for name in saved.files if name != "step"}
            self._unlogged.unlink()
        return found

    @property
    def _unlogged(self) -> Path:
        return self.path / "unlogged.npz"

    # --------------------------------------------------------------------------------------------- evaluations

    def log_evaluations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows of ``EVALUATION_FIELDS`` to evaluations.csv, all or none."""
        self._write_evaluations([*self.evaluations(), *rows])

    def evaluations(self) -> list[Row]:
        """The rows of evaluations.csv: numbers as numbers, ``variant`` as a ``Variant``, ``env_seed`` None where the
        episodes were those of the training's own evaluations.

        Raises:
            RunError: the file is damaged.
        """
        kinds = {"episodes": int, "source": str, "env_seed": lambda text: int(text) if text else None}
        rows = _read_table(self.path / "evaluations.csv", EVALUATION_FIELDS, kinds, _ADDED)
        for row in rows:
            if math.isnan(row["success"]):  # Older versions wrote an interval even where there was no success.
                row["success_low"] = row["success_high"] = math.nan
        return rows

    def _write_evaluations(self, rows: Iterable[Mapping[str, Any]]) -> None:
        _write_table(self.path / "evaluations.csv", EVALUATION_FIELDS, rows)

    def write_assessment(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write assessment.csv, rows of ``ASSESSMENT_FIELDS``, in place of one that was there."""
        _write_table(self.path / "assessment.csv", ASSESSMENT_FIELDS, rows)

    def assessment(self) -> list[Row]:
        """The rows of assessment.csv, the best policy first, ``variant`` as a ``Variant``; none before the first.

        Raises:
            RunError: the file is damaged.
        """
        kinds = {"starts": int, "fqe_steps": int, "data": str}
        return _read_table(self.path / "assessment.csv", ASSESSMENT_FIELDS, kinds)

    # ------------------------------------------------------------------------------------------------ the whole

    def rewind(self, step: int) -> None:
        """Remove everything recorded after a step: a continued run records it again."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = read_text(path).split("\n")
            kept = [f"{line}\n" for line, row in zip(lines, self.metrics(), strict=False) if row["step"] <= step]
            write_text(path, "".join(kept))
        if (self.path / "evaluations.csv").exists():
            self._write_evaluations([row for row in self.evaluations() if row["step"] <= step])

    def is_finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").is_file()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which says that the run has finished."""
        write_text(self.path / "summary.json", as_json(summary) + "\n")

    def reopen(self) -> None:
        """Make a finished run one that goes on."""
        (self.path / "summary.json").unlink(missing_ok=True)

    def videos(self) -> list[Path]:
        """The filmed episodes, links left out: what they lead to is not the run's to show."""
        folder = self.path / "videos"
        found = [] if folder.is_symlink() else folder.glob("*.gif")
        return sorted(path for path in found if path.is_file() and not path.is_symlink())

    def draw_curves(self) -> Path:
        """Draw curves.png: success (or return) of each policy, and the losses, over the steps."""
        from guidedflow.runs.curves import draw_curves

        path = self.path / "curves.png"
        draw_curves(path, self.metrics(), self.evaluations(), title=self.config().title)
        return path


def _read_table(
    path: Path, fields: Sequence[str], kinds: Mapping[str, Any], added: Mapping[str, str] | None = None
) -> list[Row]:
    """The rows of a CSV file with a policy a row; none if there is no file.

    Args:
        path: the file.
        fields: its columns.
        kinds: what makes a value of a column's text, where it is no plain number.
        added: what stands in columns that older versions did not write.

    Raises:
        RunError: the file is damaged.
    """
    if not path.exists():
        return []
    added = added or {}
    kinds = {"step": _count, "seed": _count, "policy": str, "variant": parse_variant, **kinds}
    rows: list[Row] = []
    number = 1
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    while True:
        try:
            if not set(fields) - set(added) <= set(reader.fieldnames or ()):
                raise KeyError
            number += 1
            row = next(reader, None)
            if row is None:
                return rows
            values = {**added, **{name: value for name, value in row.items() if value is not None}}
            rows.append({name: kinds.get(name, float)(values[name]) for name in fields})
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise RunError(f"{path}: line {number}: expected {','.join(fields)}, found another") from error


def _write_table(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "variant": variant_text(row["variant"])})
    write_text(path, text.getvalue())


def _count(value: Any) -> int:
    found = int(value)
    if not 0 <= found < 2**63:
        raise ValueError("expected a count")
    return found


def plain_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of evaluations for JSON: a variant as text."""
    return [{**row, "variant": variant_text(row["variant"])} for row in rows]


def member_label(variant: Variant, seed: int) -> str:
    """The name of one agent's curves: ``seed0``, or ``alpha-0.3/seed0`` in a sweep."""
    return "/".join([*variant_text(variant).replace("=", "-").split(), f"seed{seed}"])

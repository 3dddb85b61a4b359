"""Checkpoints with Orbax: each is there whole or not at all; the last two and the best are kept.

A checkpoint holds checksums of its files, for Orbax has none of its own for the values.
"""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from guidedflow.errors import RunError
from guidedflow.files import make_sure_of_room, write_text

KEPT_LAST = 2
OVERHEAD = 2**18
"""Bytes that are left free for what a checkpoint holds beside its arrays: shapes, places, indices, checksums."""
CHECKSUMS = "checksums.json"
"""SHA-256 of a checkpoint's other files, by their paths in it. Those of older versions have none."""
# What Orbax and TensorStore raise where a file is missing, damaged or cannot be written.
FAILURES = (OSError, ValueError, KeyError, RuntimeError, TypeError)
_T = TypeVar("_T")

logging.getLogger("absl").setLevel(logging.CRITICAL)  # What fails is raised, too.


class Checkpoints:
    """The checkpoints of one run, one folder a step.

    Args:
        directory: where they lie.
        scores: gives the scores that evaluations found, by step; the checkpoint with the highest is kept.
        needed: says of a step that its checkpoint is still needed, whatever its score.
        read_only: nothing is written or removed.

    Raises:
        RunError: one of them is damaged so that none can be told, or is no folder of files.
    """

    def __init__(
        self,
        directory: Path,
        *,
        scores: Callable[[], Mapping[int, float]] = dict,
        needed: Callable[[int], bool] = lambda step: False,
        read_only: bool = False,
    ):
        self.directory = directory
        self._scores = scores
        self._writing: Future[None] | None = None
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="guidedflow-checkpoints")
        self._verified: set[int] = set()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(self._best_of, needed),
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,  # What a killed process had begun to write.
        )
        _check_files(directory)
        try:
            # Orbax wants an absolute path; what is stored in it does not depend on where the run's folder lies.
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        except FAILURES as error:
            raise self._not_opened(error) from error

    def save(self, step: int, items: Mapping[str, Any]) -> None:
        """Write a checkpoint of named pytrees in the background, unless the step has one.

        Raises:
            RunError: this or the checkpoint before it could not be written, a full disk for instance.
        """
        if step in self._manager.all_steps():
            return
        size = OVERHEAD + sum(leaf.nbytes for leaf in jax.tree.leaves(dict(items)))
        saved = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        try:
            make_sure_of_room(self.directory, size)  # Halfway through, Orbax leaves pages of tracebacks.
            self._finish()
            self._manager.save(step, args=ocp.args.Composite(**saved))
            self._writing = self._finisher.submit(self._add_checksums, step)
        except FAILURES as error:
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Return when everything is on the disk.

        Raises:
            RunError: as ``save``.
        """
        try:
            self._finish()
        except FAILURES as error:
            raise self._not_saved(error) from error

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step of the checkpoint with the highest score; the newest if none was scored."""
        found = self._best_of(self.steps())
        return self.latest() if found is None else found

    def find(self, checkpoint: str | int) -> int:
        """The step that ``latest``, ``best`` or a number means.

        Raises:
            RunError: there is no such checkpoint; the message lists those there are.
        """
        there = self.steps()
        named = {"latest": self.latest(), "best": self.best()}
        step = named.get(str(checkpoint), next((step for step in there if str(step) == str(checkpoint)), None))
        if step is None:
            listed = ", ".join(map(str, there)) or "none yet"
            where = self.directory.parent
            raise RunError(f"checkpoint: expected latest, best or a step of {where} ({listed}), found {checkpoint!r}")
        return step

    def restore(self, step: int, name: str, like: _T) -> _T:
        """One pytree saved at a step, in the shapes and types of ``like`` and on its devices, wherever it was saved.

        Shapes without a device are restored to the first; leaves that are ``ocp.PLACEHOLDER`` are not read.

        Raises:
            RunError: the checkpoint is missing, damaged, or of another shape.
        """
        is_placeholder = any(leaf is ocp.PLACEHOLDER for leaf in jax.tree.leaves(like))
        placed = jax.tree.map(lambda leaf: leaf if leaf is ocp.PLACEHOLDER else _placed(leaf), like)
        try:
            self._verify(step)
            if is_placeholder:
                arguments = jax.tree.map(_restore_argument, placed)
                wanted: Any = ocp.args.PyTreeRestore(item=placed, restore_args=arguments)
                path = self.directory.absolute() / str(step) / name
                with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                    return reader.restore(path, args=wanted)
            wanted = ocp.args.StandardRestore(placed)
            return self._manager.restore(step, args=ocp.args.Composite(**{name: wanted}))[name]
        except FAILURES as error:
            others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
            raise RunError(
                f"{self.directory / str(step)}: expected a whole checkpoint of this run, found: {_reason(error)}; "
                f"move it away to go on from another one (there is: {others})"
            ) from error

    def close(self) -> None:
        """Finish what is being written and let go of the folder; what failed is told by ``wait`` alone."""
        self._finisher.shutdown()
        with suppress(*FAILURES):  # It would hide the error for which the training ends.
            self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_checksums(self, step: int) -> None:
        self._manager.wait_until_finished()
        folder = self.directory / str(step)
        write_text(folder / CHECKSUMS, json.dumps(_checksums(folder)))

    def _finish(self) -> None:
        """Wait for what is being written; what went wrong there is raised once."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _verify(self, step: int) -> None:
        """Raise ValueError where a file of a checkpoint is not as it was written."""
        folder = self.directory / str(step)
        if step in self._verified or not (folder / CHECKSUMS).exists():
            return
        written, found = json.loads((folder / CHECKSUMS).read_bytes()), _checksums(folder)
        if not isinstance(written, dict):
            raise ValueError(f"{CHECKSUMS} is damaged")
        damaged = [name for name, checksum in written.items() if found.get(name) != checksum]
        if damaged:
            raise ValueError(f"{damaged[0]} is damaged or missing")
        self._verified.add(step)

    def _not_opened(self, error: Exception) -> RunError:
        """What to say where Orbax cannot read what describes the checkpoints."""
        for folder in _steps(self.directory):
            try:
                self._verify(int(folder.name))
            except FAILURES as damage:
                what = f"expected a whole checkpoint of this run, found: {_reason(damage)}"
                return RunError(f"{folder}: {what}; move it away to go on from another one")
        return RunError(f"{self.directory}: expected checkpoints of a run, found: {_reason(error)}")

    def _best_of(self, steps: Sequence[int]) -> int | None:
        scored = [(score, step) for step, score in self._scores().items() if step in steps]
        return max(scored)[1] if scored else None

    def _not_saved(self, error: Exception) -> RunError:
        last = self.latest()
        kept = f"the last whole checkpoint is at step {last}" if last is not None else "there is no earlier one"
        return RunError(f"{self.directory}: the checkpoint could not be written ({_reason(error)}); {kept}")


class _LatestAndBest:
    """Which checkpoints Orbax preserves."""

    def __init__(self, best: Callable[[Sequence[int]], int | None], needed: Callable[[int], bool]):
        self._best = best
        self._needed = needed

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """As Orbax's ``PreservationPolicy`` wants it."""
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        kept = {*steps[-KEPT_LAST:], self._best(steps)}
        return [checkpoint.step in kept or self._needed(checkpoint.step) for checkpoint in checkpoints]


def _placed(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _restore_argument(leaf: Any) -> Any:
    if leaf is ocp.PLACEHOLDER:
        return ocp.RestoreArgs(restore_type=None)
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype, global_shape=leaf.shape)


def _steps(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.isdecimal()] if directory.is_dir() else []


def _check_files(directory: Path) -> None:
    """Raise RunError where a pipe would be waited for, or a device read without an end."""
    for step in _steps(directory):
        for parent, folders, files in os.walk(step):
            for path in (Path(parent, name) for name in (*folders, *files)):
                with suppress(FileNotFoundError):  # Another process removes old checkpoints.
                    mode = path.stat().st_mode
                    if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not path.is_symlink()):
                        continue
                    raise RunError(
                        f"{path}: expected files and folders in a checkpoint, found something else; move {step} away "
                        "to go on from another one"
                    )


def _checksums(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:300]

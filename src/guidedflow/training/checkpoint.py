"""Checkpoints with Orbax: each is there whole or not at all; the last two and the best are kept."""

import logging
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers as policies

from guidedflow.errors import UserError

KEPT_LAST = 2
_T = TypeVar("_T")

logging.getLogger("absl").setLevel(logging.CRITICAL)  # What fails is raised, too.


class Checkpoints:
    """The checkpoints of one run, one folder a step."""

    def __init__(self, directory: Path, *, read_only: bool = False):
        self.directory = directory
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(KEPT_LAST),
                policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            best_fn=_score,
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,  # What a killed process had begun to write.
        )
        # Orbax wants an absolute path; what is stored in it does not depend on where the run's folder lies.
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, items: Mapping[str, Any], score: float | None) -> None:
        """Write a checkpoint of named pytrees in the background; the one with the highest ``score`` is the best.

        Raises:
            UserError: this or the checkpoint before it could not be written, a full disk for instance.
        """
        metrics = {"score": score} if score is not None and math.isfinite(score) else None
        try:
            _make_sure_of_room(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(dict(items))))
            saved = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            self._manager.save(step, args=ocp.args.Composite(**saved), metrics=metrics)
        except Exception as error:
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Return when everything is on the disk.

        Raises:
            UserError: as ``save``.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step of the checkpoint with the highest score; the newest if none was scored."""
        return self._manager.best_step() or self.latest()

    def restore(self, step: int, name: str, like: _T) -> _T:
        """One pytree saved at a step, in the shapes and types of ``like`` and on its devices, wherever it was saved.

        Shapes without a device are restored to the first.

        Raises:
            UserError: the checkpoint is missing, damaged, or of another shape.
        """
        try:
            wanted = {name: ocp.args.StandardRestore(jax.tree.map(_placed, like))}
            return self._manager.restore(step, args=ocp.args.Composite(**wanted))[name]
        except Exception as error:
            others = ", ".join(str(other) for other in self.steps() if other != step) or "none"
            raise UserError(
                f"{self.directory / str(step)}: expected a whole checkpoint of this run, found: {_reason(error)}; "
                f"move it away to go on from another one (there is: {others})"
            ) from error

    def close(self) -> None:
        """Finish what is being written and let go of the folder."""
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _not_saved(self, error: Exception) -> UserError:
        last = self.latest()
        kept = f"the last whole checkpoint is at step {last}" if last is not None else "there is no earlier one"
        return UserError(f"{self.directory}: the checkpoint could not be written ({_reason(error)}); {kept}")


def _placed(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _make_sure_of_room(directory: Path, size: int) -> None:
    """Raise the OSError that writing ``size`` bytes would end in: halfway through, Orbax leaves pages of tracebacks."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, size)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:300]


def _score(metrics: Any) -> float:
    return metrics["score"]

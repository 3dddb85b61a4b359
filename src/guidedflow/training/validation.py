"""Held-out data: which episodes nothing is learned from, and the losses on them."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from guidedflow.agents import Agent
from guidedflow.agents.agent import Metrics
from guidedflow.data import formats
from guidedflow.data.dataset import Dataset, Window
from guidedflow.errors import DataError, SettingsError
from guidedflow.runs.config import IN_MEMORY, DataRecord, HeldOut
from guidedflow.seeding import derived_seed
from guidedflow.suites.suite import Task
from guidedflow.training.members import over_members
from guidedflow.training.restore import SavedRun
from guidedflow.training.settings import TrainSettings
from guidedflow.training.sources import step_keys
from guidedflow.training.stream import read_batches
from guidedflow.types import Normalization

PARTS = ("valid", "validation", "val")
"""What the makers of data call the part that is held out, the first that there is."""


def hold_out(
    data: Dataset,
    record: DataRecord,
    task: Task | None,
    settings: TrainSettings,
    normalization: Normalization | None = None,
) -> tuple[Dataset, Dataset | None, DataRecord]:
    """Divide data into what is learned from and what the settings hold out, and have both normalised if they say so.

    Args:
        data: all of it.
        record: of it.
        task: whose own data it is, unless the record says that it is the user's.
        settings: of the run.
        normalization: as the run has it; None: it is new, and takes that of the data to learn from.

    Returns:
        The data to learn from, the held-out data or None, and the record of both.

    Raises:
        SettingsError: the data's makers held nothing out.
        DataError: there are too few episodes, the validation file is missing or does not fit, or there are no vectors
            to normalise.
    """
    rest, held_out, record = _divided(data, record, task, settings)
    if settings.normalize_observations or (held_out is not None and rest.normalization is not None):
        normalization = normalization or rest.normalized().normalization
        rest = dataclasses.replace(rest, normalization=normalization)
        if held_out is not None:
            held_out = dataclasses.replace(held_out, normalization=normalization)
    return rest, held_out, record


def _divided(
    data: Dataset, record: DataRecord, task: Task | None, settings: TrainSettings
) -> tuple[Dataset, Dataset | None, DataRecord]:
    if not settings.validation:
        return data, None, record
    seed, source = None, record.source
    if settings.validation != "own":
        seed = derived_seed(settings.seeds[0], "held-out episodes")
        rest, held_out = _drawn(data, settings.validation, seed)
    else:
        path = None if task is None or record.is_own else task.suite.validation_file(task, Path(record.source))
        if task is not None and path is not None:
            rest, held_out, source = data, _of_file(task, path, data), str(path)
        else:
            rest, held_out = _named(data, record)
    held = HeldOut(source, held_out.fingerprint(), held_out.size, held_out.episodes, seed)
    trained = dataclasses.replace(
        record, fingerprint=rest.fingerprint(), transitions=rest.size, episodes=rest.episodes, held_out=held
    )
    return rest, held_out, trained


def check_same(saved: SavedRun, data: Dataset, record: DataRecord) -> None:
    """Raise DataError unless a run's data, and what it held out, are what it was trained with."""
    before = saved.config.data
    if data.spec != saved.spec or not data.matches(before.fingerprint):
        raise DataError(
            f"{record.source}: expected the data of the run ({before.fingerprint}), found other data "
            f"({record.fingerprint})"
        )
    held, found = before.held_out, record.held_out
    if held is not None and found is not None and held.fingerprint != found.fingerprint:
        raise DataError(
            f"{found.source}: expected the data that the run held out ({held.fingerprint}), found other data "
            f"({found.fingerprint})"
        )


def _drawn(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    ends = np.asarray(data.episode_ends)
    there = np.flatnonzero(np.isin(np.unique(ends), ends[np.asarray(data.transitions)]))
    total = len(there)
    if total < 2:
        raise DataError(f"{data.source}: expected at least 2 episodes, one of them to be held out, found {total}")
    count = min(max(1, round(share * total)), total - 1)
    drawn = there[np.random.default_rng(seed).permutation(total)]
    return data.of_episodes(drawn[count:]), data.of_episodes(drawn[:count])


def _named(data: Dataset, record: DataRecord) -> tuple[Dataset, Dataset]:
    parts = {} if record.source == IN_MEMORY else formats.splits(record.source, **record.reading)
    name = next((name for name in PARTS if name in parts), None)
    if name is None:
        raise SettingsError(
            "validation: expected a share of the episodes, such as 0.1, found own; "
            f"{record.source} names none to be held out"
        )
    trained = parts.get("train", np.arange(len(np.unique(data.episode_ends))))
    return data.of_episodes(np.setdiff1d(trained, parts[name])), data.of_episodes(parts[name])


def _of_file(task: Task, path: Path, data: Dataset) -> Dataset:
    if not path.exists():
        ways = " or ".join(f"`{command}`" for command in task.suite.commands(task))
        raise DataError(f"{path}: expected the validation data of {task.id}, found nothing; get both with {ways}")
    held_out = task.suite.load(task, path)
    if held_out.spec != data.spec:
        raise DataError(f"{path}: expected data as in {data.source}, {data.spec}, found {held_out.spec}")
    return held_out


BATCHES = 8
"""Of each measurement: one alone says little beside the mean of ``log_every`` of the training's."""


class Validation:
    """The losses on held-out data: means over a few batches, drawn and with noise as the seed and the step say.

    Args:
        dataset: the held-out data, on the host.
        keys: one a member.
        batch_size: B.
    """

    def __init__(self, dataset: Dataset, keys: Key[Array, " members"], batch_size: int):
        self._dataset = dataset
        self._keys = keys
        self._batch_size = batch_size

    def __call__(self, agents: Agent, step: int) -> dict[str, Float[np.ndarray, " members"]]:
        """Each metric of each member, as ``validation/NAME``; pictures are not cropped.

        Raises:
            OSError: the data cannot be read any more.
        """
        windows = read_batches(self._dataset, self._keys, step, self._batch_size, BATCHES)
        found = _validate(agents, windows, self._keys, jnp.int32(step))
        return {f"validation/{name}": np.asarray(values) for name, values in found.items()}


@jax.jit
def _validate(agents: Agent, windows: Window, keys: Key[Array, " members"], step: Int[Array, ""]) -> Metrics:
    def one(agent: Agent, windows: Window, key: Key[Array, ""], step: Int[Array, ""]) -> Metrics:
        def batch_metrics(numbered: tuple[Window, Int[Array, ""]]) -> Metrics:
            window, i = numbered
            return agent.validate(window.batch(), step_keys(key, step + i)[1])

        return jax.tree.map(jnp.mean, jax.lax.map(batch_metrics, (windows, jnp.arange(BATCHES))))

    return over_members(one, agents, windows, keys, shared=(step,))

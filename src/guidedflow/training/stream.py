"""Training on data that stays on the disk: a thread reads batches ahead while the device computes."""

import functools
import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from guidedflow.agents import Agent
from guidedflow.data.augment import random_crops
from guidedflow.data.dataset import Dataset, Window, sample_indices
from guidedflow.training.members import on_own_devices, over_members
from guidedflow.training.settings import TrainSettings
from guidedflow.training.sources import Decay, counted_scan, step_keys

PIECE_BYTES = 2**27
"""How much is read and learned from at once; three pieces are in memory at a time."""
PIECE_STEPS = 128
READ_AHEAD = 2


def stays_on_disk(dataset: Dataset) -> bool:
    """Whether a mapped data set is read batch by batch: always on CPU, elsewhere if it would fill half the memory."""
    if not dataset.is_on_disk or jax.default_backend() == "cpu":
        return dataset.is_on_disk
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return dataset.bytes_on_disk > limit / 2


class DiskSource:
    """Makes the updates that ``DeviceSource`` would, from a data set that is not in memory. See ``Source``.

    Args:
        dataset: on the host.
        keys: one a member.
        settings: the run's.
        stop: the step before which nothing more is read.
    """

    def __init__(self, dataset: Dataset, keys: Key[Array, " members"], settings: TrainSettings, stop: int):
        self._dataset = dataset
        self._keys = keys
        self._settings = settings
        self._stop = stop
        rows = dataset.window(dataset.transitions[:1])
        step_bytes = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(rows)) * settings.batch_size
        self.piece = max(1, min(PIECE_STEPS, PIECE_BYTES // (step_bytes * len(keys))))
        """Steps whose batches are read at once."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="guidedflow-reader")
        self._ahead: deque[tuple[int, Future[Window]]] = deque()
        self.wait_share = math.nan
        """Share of the last call's time for which the device waited for data."""

    def updates(
        self, agents: Agent, step: int, count: int
    ) -> tuple[Agent, dict[str, Float[np.ndarray, "members count"]]]:
        """See ``Source``.

        Raises:
            OSError: the data cannot be read any more.
        """
        collected = []
        began, waited, end = time.perf_counter(), 0.0, step + count
        while step < end:
            self._read_from(step)
            jax.block_until_ready(agents)  # Only once the device has nothing to do does it wait.
            idle = time.perf_counter()
            first, windows = self._ahead[0][0], self._ahead[0][1].result()
            waited += time.perf_counter() - idle
            used = min(end, first + self.piece) - step
            agents, metrics = run_piece(
                agents,
                windows,
                self._keys,
                jnp.int32(step),
                jnp.int32(step - first),
                jnp.int32(used),
                Decay.of(self._settings),
                crop_probability=self._settings.crop_probability,
            )
            collected.append({name: np.asarray(values)[:, :used] for name, values in metrics.items()})
            step += used
        found = {name: np.concatenate([m[name] for m in collected], axis=1) for name in collected[0]}
        self.wait_share = waited / (time.perf_counter() - began)
        return agents, found

    def close(self) -> None:
        """End the reader."""
        self._reader.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_from(self, step: int) -> None:
        """Have the piece that holds a step, and those after it, read; forget those before it."""
        while self._ahead and not self._ahead[0][0] <= step < self._ahead[0][0] + self.piece:
            self._ahead.popleft()[1].cancel()
        first = self._ahead[0][0] if self._ahead else step
        for place in range(first, min(first + READ_AHEAD * self.piece, self._stop), self.piece):
            if place not in (known for known, _ in self._ahead):
                self._ahead.append((place, self._reader.submit(self.read, place)))

    def read(self, step: int) -> Window:
        """The batches of a piece: arrays of (members, steps, B, ...), each member's on its device."""
        return read_batches(self._dataset, self._keys, step, self._settings.batch_size, self.piece)


def read_batches(dataset: Dataset, keys: Key[Array, " members"], step: int, batch_size: int, length: int) -> Window:
    """The batches of ``length`` steps, gathered on the host.

    Returns:
        Arrays of (members, steps, B, ...), each member's on its device.
    """
    indices = _indices(keys, jnp.int32(step), dataset.size, batch_size, length)
    rows = np.asarray(dataset.transitions)[np.asarray(indices)]
    window = dataset.window(rows.ravel())
    return on_own_devices(jax.tree.map(lambda leaf: np.asarray(leaf).reshape(*rows.shape, *leaf.shape[1:]), window))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _indices(
    keys: Key[Array, " members"], start: Int[Array, ""], size: int, batch_size: int, length: int
) -> Int[Array, "members length B"]:
    def one(key: Array, start: Array) -> Array:
        def batch(step: Array) -> Array:
            return sample_indices(step_keys(key, step)[0], size, batch_size)

        return jax.vmap(batch)(start + jnp.arange(length))

    return over_members(one, keys, shared=(start,))


@functools.partial(jax.jit, static_argnames="crop_probability", donate_argnames="agents")
def run_piece(
    agents: Agent,
    windows: Window,
    keys: Key[Array, " members"],
    start: Int[Array, ""],
    offset: Int[Array, ""],
    count: Int[Array, ""],
    decay: Decay,
    *,
    crop_probability: float,
) -> tuple[Agent, dict[str, Float[Array, "members steps"]]]:
    """``count`` updates of every agent from step ``start`` on, with the batches from number ``offset`` of a piece."""

    def train_one(
        agent: Agent,
        windows: Window,
        key: Key[Array, ""],
        start: Int[Array, ""],
        offset: Int[Array, ""],
        count: Int[Array, ""],
        decay: Decay,
    ) -> tuple[Agent, dict[str, Array]]:
        def one_step(agent: Agent, i: Int[Array, ""]) -> tuple[Agent, dict[str, Array]]:
            window = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, offset + i, keepdims=False), windows)
            _, update_key, crop_key = step_keys(key, start + i)
            batch = random_crops(window.batch(), crop_key, crop_probability)
            return decay.update(agent, batch, update_key, start + i)

        return counted_scan(one_step, agent, count)

    return over_members(train_one, agents, windows, keys, shared=(start, offset, count, decay))

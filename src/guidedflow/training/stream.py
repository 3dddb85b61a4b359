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

PIECE_BYTES = 2**27
"""How much is read and learned from at once; three pieces are in memory at a time."""
READ_AHEAD = 2


def step_keys(key: Key[Array, ""], step: Int[Array, ""]) -> Key[Array, "3"]:
    """Of a step's batch, its update and its crops: functions of its seed's key and its number alone."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


def stays_on_disk(dataset: Dataset) -> bool:
    """Whether a mapped data set is read batch by batch: always on CPU, elsewhere if it would fill half the memory."""
    if not dataset.is_on_disk or jax.default_backend() == "cpu":
        return dataset.is_on_disk
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return dataset.observations.nbytes > limit / 2


class Stream:
    """Updates with the batches that ``loop.run_chunk`` would draw, of a data set that is not in memory.

    Args:
        dataset: on the host.
        keys: one a member.
        batch_size: B.
        crop_probability: see ``random_crops``.
        length: steps a chunk.
        stop: the step before which nothing more is read.
    """

    def __init__(
        self,
        dataset: Dataset,
        keys: Key[Array, " members"],
        *,
        batch_size: int,
        crop_probability: float,
        length: int,
        stop: int,
    ):
        self._dataset = dataset
        self._keys = keys
        self._batch_size = batch_size
        self._crop_probability = crop_probability
        self._length = length
        self._stop = stop
        step_bytes = sum(np.asarray(leaf).nbytes for leaf in dataset.window(dataset.transitions[:1])) * batch_size
        at_most = max(1, PIECE_BYTES // (step_bytes * len(keys)))
        self.piece = max(n for n in range(1, min(at_most, length) + 1) if length % n == 0)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="guidedflow-reader")
        self._ahead: deque[tuple[int, Future[Window]]] = deque()
        self.wait_share = math.nan
        """Share of the last chunk's time for which the device waited for data."""

    def run_chunk(self, agents: Agent, start: int) -> tuple[Agent, dict[str, Float[np.ndarray, "members length"]]]:
        """The updates of one chunk, from step ``start`` on.

        Raises:
            OSError: the data cannot be read any more.
        """
        collected = []
        began, waited = time.perf_counter(), 0.0
        for step in range(start, start + self._length, self.piece):
            self._read_from(step)
            jax.block_until_ready(agents)  # Only once the device has nothing to do does it wait.
            idle = time.perf_counter()
            windows = self._ahead.popleft()[1].result()
            waited += time.perf_counter() - idle
            agents, metrics = run_piece(
                agents, windows, self._keys, jnp.int32(step), crop_probability=self._crop_probability
            )
            self._read_from(step + self.piece)
            collected.append(metrics)
        found = {name: np.concatenate([np.asarray(m[name]) for m in collected], axis=1) for name in collected[0]}
        self.wait_share = waited / (time.perf_counter() - began)
        return agents, found

    def close(self) -> None:
        """End the reader."""
        self._reader.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_from(self, first: int) -> None:
        while self._ahead and self._ahead[0][0] != first:  # A chunk that is not the next one.
            self._ahead.popleft()[1].cancel()
        for step in range(first, min(first + READ_AHEAD * self.piece, self._stop), self.piece):
            if step not in (known for known, _ in self._ahead):
                self._ahead.append((step, self._reader.submit(self.read, step)))

    def read(self, step: int) -> Window:
        """The batches of a piece: arrays of (members, steps, B, ...), each member's on its device."""
        indices = _indices(self._keys, jnp.int32(step), self._dataset.size, self._batch_size, self.piece)
        rows = np.asarray(self._dataset.transitions)[np.asarray(indices)]
        window = self._dataset.window(rows.ravel())
        shaped = (np.asarray(leaf).reshape(*rows.shape, *leaf.shape[1:]) for leaf in window)
        return Window(*on_own_devices(tuple(shaped)))


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
    *,
    crop_probability: float,
) -> tuple[Agent, dict[str, Float[Array, "members length"]]]:
    """One update of every agent with each of its batches."""

    def train_one(
        agent: Agent, windows: Window, key: Key[Array, ""], start: Int[Array, ""]
    ) -> tuple[Agent, dict[str, Array]]:
        def one_step(agent: Agent, item: tuple[Window, Array]) -> tuple[Agent, dict[str, Array]]:
            window, step = item
            _, update_key, crop_key = step_keys(key, step)
            return agent.update(random_crops(window.batch(), crop_key, crop_probability), update_key)

        steps = start + jnp.arange(windows.rewards.shape[0])
        return jax.lax.scan(one_step, agent, (windows, steps))

    return over_members(train_one, agents, windows, keys, shared=(start,))

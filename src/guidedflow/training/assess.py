"""Assesses the policies of a run on recorded data, without an environment: their values, and how they act there."""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from guidedflow.agents import Agent
from guidedflow.agents.fqe import FQE, FQEConfig
from guidedflow.data.dataset import ACTION_BOUND, Dataset
from guidedflow.errors import DataError, RunError, SettingsError
from guidedflow.nn.encoder import Observations, normalized
from guidedflow.nn.products import acting_precision, computed_in
from guidedflow.notices import show_notices
from guidedflow.runs.config import IN_MEMORY
from guidedflow.runs.folder import Row
from guidedflow.seeding import derived_seed
from guidedflow.suites import find_task
from guidedflow.training.display import ProgressBar
from guidedflow.training.members import on_own_devices, over_members, select
from guidedflow.training.prepare import load_data, load_data_again
from guidedflow.training.progress import Callbacks, Progress
from guidedflow.training.restore import SavedRun
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.training.sources import DeviceSource, Source
from guidedflow.training.stream import DiskSource, stays_on_disk
from guidedflow.training.validation import check_same, hold_out
from guidedflow.types import ActionRange, Spec, Variant

MOST_STEPS = 20_000
"""Updates of a critic that nobody asked more or less of; and no more than the run's own."""
CALL_STEPS = 500
HIDDEN = (256, 256)
"""Whatever the run's own networks are: assessing a large one takes no longer."""
LEARNING_RATE, DECAY, TAU = 1e-3, 0.5, 0.05
"""For few steps."""
MOST_ROWS = 2048
"""Of the data that policies act on; more are thinned out evenly."""
ROWS_AT_ONCE = 64
ACTIONS = 8
"""Drawn for each observation."""
LIMIT = 0.999
"""From what absolute value on an action's entry is at a limit of [-1, 1]."""
REPETITIONS = 2000
"""Of the bootstrap."""

logger = logging.getLogger("guidedflow")


class Setup(NamedTuple):
    """How policies are assessed."""

    steps: int
    """Updates of each critic."""
    discount: float
    batch_size: int = 256
    hidden: tuple[int, ...] = HIDDEN


def assess(
    run: Path | str,
    *,
    dataset: Dataset | Path | str | None = None,
    data_dir: Path | str | None = None,
    agent: str | type[Agent] | None = None,
    checkpoint: str | int = "all",
    policy: str | None = None,
    variant: Variant | Mapping[str, float] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    discount: float | None = None,
    progress: bool = True,
) -> list[Row]:
    """Rank the policies of a run without an environment, and write the ranking into the run's assessment.csv.

    The value of each policy comes from fitted Q evaluation (Le et al., 2019): a fresh critic learns its Q from recorded
    data, and is asked at the starts of the data's episodes. ``load_policy(run, checkpoint="assessed")`` then loads the
    best. Where the data has no rewards, the one whose actions are nearest to the data's comes first.

    Args:
        run: the run's folder.
        dataset: a file to assess on, of the kind that the run learned from. None: what the run held out, or, if that is
            nothing, what it learned from. Of a run on arrays in memory: these again.
        data_dir: where a task's data lies now, if it was moved.
        agent: the class of an algorithm of your own, if the run's is not registered.
        checkpoint: ``all``, ``latest``, ``best`` or a step.
        policy: only this one.
        variant: only this one of a sweep, ``{"alpha": 0.3}``.
        seed: only the agent of this training seed.
        steps: updates of each critic; None: as many as the run had, at most 20,000.
        discount: of the values; None: the run's, or 0.99 where its algorithm has none.
        progress: whether a bar is shown.

    Returns:
        One row a policy and agent, the best first: ``value`` (the mean of Q(s, a) over the starts, with ``value_low``
        and ``value_high``, its 95% bootstrap interval over ``starts`` episodes), ``action_error`` (the mean squared
        distance of its actions to the data's, in [-1, 1], summed over dimensions), ``least_action_error`` (of the
        nearest of 8 actions) and ``at_limits`` (the share of its actions' entries at -1 or 1). A critic that diverged,
        beyond what any policy could gain by the data's rewards, gives NaN.

    Raises:
        RunError: no such run or checkpoint, or another process trains in it.
        SettingsError: no such policy, seed or variant, or a number out of its range.
        DataError: the data is missing, damaged, or of other shapes.
    """
    show_notices()
    _check_numbers(steps, discount)
    saved = SavedRun(Path(run).absolute(), agent)
    only = saved.filter(policy, variant, seed)
    data = _data(saved, dataset, data_dir)
    setup = _setup(saved, steps, discount)
    with saved.folder.lock():  # All the while: a training would remove checkpoints, and the ranking be of no use.
        rows = assess_run(saved, data, setup, checkpoint=checkpoint, only=only, progress=progress)
        saved.folder.write_assessment(rows)
    return rows


def assess_trained(saved: SavedRun, data: Dataset, *, progress: bool) -> list[Row]:
    """As ``assess``, of a run whose folder this process has locked, on data that is at hand."""
    rows = assess_run(saved, data, _setup(saved, None, None), progress=progress)
    saved.folder.write_assessment(rows)
    return rows


def assess_run(
    saved: SavedRun,
    data: Dataset,
    setup: Setup,
    *,
    checkpoint: str | int = "all",
    only: Callable[[Member, str], bool] = lambda member, policy: True,
    progress: bool = True,
) -> list[Row]:
    """The rows of ``assess``, which are written nowhere."""
    if not data.has_rewards:
        logger.warning("%s: without rewards there are no values; the smallest action error comes first", data.source)
    with saved.checkpoints() as checkpoints:
        there = checkpoints.steps() if checkpoint == "all" else [checkpoints.find(checkpoint)]
        if not there:
            raise RunError(f"{saved.folder.path}: expected a checkpoint, found none yet")
        stacks = {step: checkpoints.restore(step, "agents", saved.like()) for step in there}
    names = [name for name in saved.agent.policy_names if any(only(member, name) for member in saved.members)]
    rows = []
    with computed_in(acting_precision(saved.settings.precision)), _Bar(setup.steps * len(names), progress) as bar:
        for name in names:
            wanted = [(step, i) for step in there for i, member in enumerate(saved.members) if only(member, name)]
            agents = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(select(stacks[step], i) for step, i in wanted))
            found = assess_policy(agents, name, len(wanted), data, setup, bar.add)
            for (step, i), measured in zip(wanted, found, strict=True):
                member = saved.members[i]
                who = {"step": step, "variant": member.variant, "seed": member.seed, "policy": name}
                rows.append({**who, **measured, "data": str(data.source)})
    return ranked(rows)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Rows of an assessment, the highest value first; without values, the smallest action error first."""

    def place(row: Row) -> tuple[bool, float, float]:
        is_unknown = math.isnan(row["value"])
        return is_unknown, 0.0 if is_unknown else -row["value"], row["action_error"]

    return sorted(rows, key=place)


def _check_numbers(steps: int | None, discount: float | None) -> None:
    if steps is not None and (not isinstance(steps, int) or not 1 <= steps < 2**31):
        raise SettingsError(f"steps: expected at least 1, found {steps!r}")
    if discount is not None and not (isinstance(discount, int | float) and 0.0 < discount < 1.0):
        raise SettingsError(f"discount: expected a value in (0, 1), found {discount!r}")


def _setup(saved: SavedRun, steps: int | None, discount: float | None) -> Setup:
    if discount is None:
        discount = getattr(saved.algorithm, "discount", 0.99)
    return Setup(steps or min(MOST_STEPS, saved.config.steps), discount, saved.settings.batch_size)


def _data(saved: SavedRun, dataset: Dataset | Path | str | None, data_dir: Path | str | None) -> Dataset:
    """What to assess on."""
    task = None if saved.config.task is None else find_task(saved.config.task)
    if dataset is not None and saved.config.data.source != IN_MEMORY:
        # A run on a task's own data is assessed on files such as that: a benchmark's rewards are not always in them.
        if isinstance(dataset, str | Path) and not saved.config.data.is_own:
            data, _ = load_data(task, None, None, Path(dataset))
        else:
            reading = saved.config.data.reading if isinstance(dataset, str | Path) else {}
            data, _ = load_data(task, dataset, None, reading=reading)
        data = dataclasses.replace(_in_range(data, saved.spec.action_range), normalization=saved.spec.normalization)
        if data.spec != saved.spec:
            raise DataError(f"{data.source}: expected data as the run was trained on, {saved.spec}, found {data.spec}")
        return data
    data, record = load_data_again(saved, task, dataset, data_dir)
    data, held_out, record = hold_out(data, record, task, saved.settings, saved.spec.normalization)
    check_same(saved, data, record)
    if held_out is None:
        logger.warning("the run held nothing out: its policies are assessed on the data that they learned from")
        return data
    logger.info("the policies are assessed on %d held-out episodes", held_out.episodes)
    return held_out


def _in_range(data: Dataset, wanted: ActionRange | None) -> Dataset:
    """The same data with [-1, 1] for another range of actions: of a robot's recordings each has its own."""
    if wanted is None or data.action_range is None or wanted == data.action_range:
        return data
    physical = data.action_range.from_unit(np.asarray(data.actions))
    actions = np.clip(wanted.to_unit(physical), -ACTION_BOUND, ACTION_BOUND).astype(np.float32)
    return dataclasses.replace(data, actions=actions, action_range=wanted)


def assess_policy(
    agents: Agent,
    policy: str,
    count: int,
    data: Dataset,
    setup: Setup,
    on_steps: Callable[[int, float], None] = lambda count, loss: None,
) -> list[dict[str, Any]]:
    """What is found of one policy of each of ``count`` stacked agents: the numbers of ``assess``.

    ``on_steps`` is called with the number of every few updates, and their mean loss.
    """

    def each(value: float) -> Float[Array, " members"]:
        return jnp.full(count, value, jnp.float32)

    config = FQEConfig(agents, policy, each(setup.discount), each(TAU), each(LEARNING_RATE), setup.hidden)
    fitted = on_own_devices(_build(on_own_devices(config), _keys(count, "init"), data.spec))
    if data.has_rewards:
        fitted = _fitted(fitted, data, _keys(count, "train"), setup, on_steps)
    starts = _thinned(np.unique(np.asarray(data.episode_starts)[np.asarray(data.transitions)]))
    values = _measured(fitted, data, starts)[0]
    _, errors, least, limits = _measured(fitted, data, _thinned(np.asarray(data.transitions)))
    rows = []
    for i in range(count):
        known = data.has_rewards and _is_possible(values[i], data, setup.discount)
        value, low, high = _with_interval(values[i]) if known else (math.nan,) * 3
        rows.append(
            {
                "value": value,
                "value_low": low,
                "value_high": high,
                "starts": len(starts),
                "action_error": float(errors[i].mean()),
                "least_action_error": float(least[i].mean()),
                "at_limits": float(limits[i].mean()),
                "fqe_steps": setup.steps if data.has_rewards else 0,
            }
        )
    return rows


def _is_possible(values: Float[np.ndarray, " n"], data: Dataset, discount: float) -> bool:
    """Whether any policy could have such values, but for a tenth; a critic that says more has diverged."""
    rewards = np.asarray(data.rewards)[np.asarray(data.transitions)]
    least, most = min(rewards.min(), 0.0) / (1 - discount), max(rewards.max(), 0.0) / (1 - discount)
    slack = 0.1 * (most - least)
    return bool(least - slack <= values.mean() <= most + slack)


def _keys(count: int, purpose: str) -> Key[Array, " members"]:
    """The same key for all: every critic starts alike and sees the same batches, so that what differs is the policy."""
    return on_own_devices(jnp.stack([jax.random.key(derived_seed(0, "assess", purpose))] * count))


@functools.partial(jax.jit, static_argnames="spec")
def _build(config: FQEConfig, keys: Key[Array, " members"], spec: Spec) -> FQE:
    def build(one: FQEConfig, key: Key[Array, ""]) -> FQE:
        built = FQE.build(one, spec, key)
        return built if spec.normalization is None else normalized(built, spec.normalization)

    fitted = jax.vmap(build)(config, keys)
    return jax.tree.map(jnp.copy, fitted)  # The updates take over the memory of each array.


def _fitted(
    fitted: FQE, data: Dataset, keys: Key[Array, " members"], setup: Setup, on_steps: Callable[[int, float], None]
) -> FQE:
    steps, batch_size = setup.steps, setup.batch_size
    settings = TrainSettings(batch_size=batch_size, steps=steps, learning_rate_decay=DECAY, crop_probability=0.0)
    if not stays_on_disk(data):
        return _updated(fitted, DeviceSource(data, keys, settings), steps, on_steps)
    with DiskSource(data, keys, settings, stop=steps) as source:
        return _updated(fitted, source, steps, on_steps)


def _updated(fitted: Any, source: Source, steps: int, on_steps: Callable[[int, float], None]) -> FQE:
    for step in range(0, steps, CALL_STEPS):
        count = min(CALL_STEPS, steps - step)
        fitted, series = source.updates(fitted, step, count)
        on_steps(count, float(series["critic_loss"].mean()))
    return fitted


def _thinned(rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)]


def _measured(fitted: FQE, data: Dataset, rows: Int[np.ndarray, " n"]) -> list[Float[np.ndarray, "members n"]]:
    """What ``_measure`` finds at each of some rows of the data."""
    found = []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        here = rows[first : first + ROWS_AT_ONCE]
        batch = data.rows(np.resize(here, ROWS_AT_ONCE))  # Of one size: a smaller rest would be compiled anew.
        key = jax.random.key(derived_seed(0, "assess", "act", first))
        observations = jax.tree.map(jnp.asarray, batch.observations)
        measured = _measure(fitted, observations, jnp.asarray(batch.actions), key)
        found.append([np.asarray(values)[:, : len(here)] for values in measured])
    return [np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)]


@jax.jit
def _measure(
    fitted: FQE, observations: Observations, actions: Float[Array, "B act"], key: Key[Array, ""]
) -> tuple[Float[Array, "members B"], ...]:
    """Of each row: the value of the policy's actions, their squared distance to the data's and the least of these, and
    the share of their entries at the limits."""

    def one(fitted: FQE, observations: Any, actions: Array, key: Key[Array, ""]) -> tuple[Float[Array, " B"], ...]:
        act = fitted.policies()[fitted.config.policy]
        drawn = jax.vmap(lambda key: act(observations, key))(jax.random.split(key, ACTIONS))
        errors = jnp.square(drawn - actions).sum(-1)
        limits = (jnp.abs(drawn) >= LIMIT).mean((0, 2))
        return fitted.critic(observations, drawn).mean((0, 1)), errors.mean(0), errors.min(0), limits

    return over_members(one, fitted, shared=(observations, actions, key))


def _with_interval(values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """The mean and its 95% percentile bootstrap interval; all NaN where the critic is not finite."""
    if not np.isfinite(values).all():
        return (math.nan,) * 3
    drawn = np.random.default_rng(0).integers(len(values), size=(REPETITIONS, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975]) if len(values) > 1 else (math.nan,) * 2
    return float(values.mean()), float(low), float(high)


class _Bar:
    """How far the critics are."""

    def __init__(self, total: int, show: bool):
        self._callbacks = Callbacks([ProgressBar()] if show else [])
        self._total = total
        self._done = 0
        self._began = time.monotonic()

    def add(self, steps: int, loss: float) -> None:
        """So many updates more."""
        self._done += steps
        elapsed = time.monotonic() - self._began
        left = elapsed / self._done * (self._total - self._done)
        rate, metrics = self._done / elapsed, {"critic_loss": loss}
        self._callbacks("on_progress", Progress(self._done, self._total, "training", elapsed, left, rate, metrics))

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        elapsed = time.monotonic() - self._began
        self._callbacks("on_end", Progress(self._done, self._total, "finished", elapsed))

"""Agents in memory: made, and trained on a data set without a run's folder."""

from dataclasses import replace
from typing import Any

import numpy as np
import optax

from guidedflow.agents import Agent, find_agent
from guidedflow.data.dataset import Dataset, check_needs
from guidedflow.nn.products import Precision, computed_in
from guidedflow.settings import build
from guidedflow.training.members import init_agents, member_keys, select, stack_of_one
from guidedflow.training.metrics import check_finite
from guidedflow.training.settings import Member, TrainSettings, check_decay
from guidedflow.training.sources import MOST_STEPS, DeviceSource
from guidedflow.training.stream import DiskSource, stays_on_disk
from guidedflow.types import Spec


def make_agent(agent: str | type[Agent], spec: Spec, *, seed: int = 0, **settings: Any) -> Agent:
    """A fresh agent.

    Args:
        agent: the algorithm, by name or as a class.
        spec: a data set's ``spec``.
        seed: of the networks' initialisation.
        settings: fields of the algorithm's settings that differ from their defaults.

    Raises:
        SettingsError: unknown agent or setting, or a value outside its range.
    """
    algorithm = find_agent(agent)
    config: Any = build(algorithm.config_class, settings)
    build(TrainSettings, {"seeds": (seed,)})
    return select(init_agents(algorithm, [Member((), seed, config)], spec), 0)


def fit(
    agent: Agent,
    dataset: Dataset,
    *,
    steps: int,
    batch_size: int = 256,
    seed: int = 0,
    first_step: int | None = None,
    precision: Precision = "default",
    learning_rate_decay: float = 0.0,
) -> tuple[Agent, dict[str, np.ndarray]]:
    """Train one agent in memory: no folder, no evaluation.

    Args:
        agent: from ``make_agent``, or from an earlier call.
        dataset: what to learn from.
        steps: updates to make.
        batch_size: B.
        seed: of batches and noise, which are functions of it and of each step's number alone.
        first_step: the first update's number; None: as many as the agent's optimiser has counted, so that another
            call goes on where the last one ended instead of repeating its batches.
        precision: of the updates' products, ``mixed`` for bfloat16 operands; as in ``TrainSettings``.
        learning_rate_decay: share of the steps, the last ones, over which the learning rate falls linearly to 0.

    Returns:
        The trained agent, and each metric's value at every step, shape (steps,).

    Raises:
        Diverged: a loss turned non-finite.
        SettingsError: a number is out of its range.
        DataError: the algorithm needs rewards, and the data has none.
        Exception: what the agent's ``update`` raised; a note says for which data, in case the agent was made for other.
    """
    wanted = {"steps": steps, "batch_size": batch_size, "seeds": (seed,), "precision": precision}
    settings = build(TrainSettings, {**wanted, "learning_rate_decay": learning_rate_decay})
    check_decay(type(agent), learning_rate_decay)
    check_needs(type(agent), dataset)
    first = _updates_of(agent) if first_step is None else first_step
    # The schedule counts from step 0.
    settings = replace(settings, steps=first + steps, learning_rate_decay=learning_rate_decay * steps / (first + steps))
    member = Member((), seed, agent.config)
    agents = stack_of_one(agent)
    keys = member_keys([member], "train")
    pieces: list[dict[str, np.ndarray]] = []
    try:
        if stays_on_disk(dataset):
            with DiskSource(dataset, keys, settings, stop=first + steps) as source:
                agents, pieces = _run(source, agents, first, steps, precision)
        else:
            agents, pieces = _run(DeviceSource(dataset, keys, settings), agents, first, steps, precision)
    except (TypeError, ValueError) as error:
        error.add_note(f"guidedflow: the data is {dataset.spec}; was the agent made for other data?")
        raise
    series = {name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}
    check_finite(series, first, [member], "none was written")
    return select(agents, 0), {name: values[0] for name, values in series.items()}


def _run(
    source: Any, agents: Agent, first: int, steps: int, precision: Precision
) -> tuple[Agent, list[dict[str, np.ndarray]]]:
    pieces = []
    for step in range(first, first + steps, MOST_STEPS):
        with computed_in(precision):
            agents, series = source.updates(agents, step, min(MOST_STEPS, first + steps - step))
        pieces.append(series)
    return agents, pieces


def _updates_of(agent: Agent) -> int:
    """How many updates an agent has had, as its optimiser counts them; 0 if it has none that counts."""
    counts = [int(count) for _, count in optax.tree_utils.tree_get_all_with_path(agent, "count")]
    return max(counts, default=0)

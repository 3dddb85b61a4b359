"""Simulates the published table's 864 jobs on GPUs whose nodes are lost now and then.

    python -m benchmarks.campaign
    python -m benchmarks.campaign --losses-per-node-day 24 --nodes 4

Two ways of the same work: a study's (a job trains all seeds of a task and agent at once, and goes on from its last
checkpoint after its node was lost), and one process a seed that begins again. The rates are GFP's on one NVIDIA H200
(docs/benchmarks.md, "On a GPU"), taken for every agent: the others were not measured. Evaluations are not counted.

| column | |
|---|---|
| processes | how many are to be carried out |
| makespan hours | until the last has ended; median and extremes over the simulations |
| lost percent | GPU time spent on what had to be done again, starts included, of what all the work takes |
| losses | of nodes, while it lasted |
"""

import dataclasses
import heapq
import itertools
import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.common import parse, report, run, spread
from guidedflow.settings import Count, NonNegative, Positive
from guidedflow.suites import tasks


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Simulate the published table on a cluster."""

    nodes: Count = 2
    gpus_per_node: Count = 8
    losses_per_node_day: NonNegative = 4.0
    """How often a node is lost, at random; cloud machines at spot prices are taken away so."""
    away_minutes: NonNegative = 30.0
    """Until a lost node, or one in its place, is there."""
    agents: Count = 6
    together_rate: Positive = 416.0
    """Steps a second of a process that trains eight seeds at once."""
    alone_rate: Positive = 712.0
    """Steps a second of a process that trains one."""
    start_seconds: NonNegative = 60.0
    """From a process's start to its first step: imports, data, compilation."""
    save_every: Count = 50_000
    """Steps between checkpoints."""
    simulations: Count = 5
    json: bool = False
    """Print JSON instead of a table."""


class Process(NamedTuple):
    """Something to be carried out on one GPU."""

    seconds: float
    """Of training, without its start."""
    saved_every: float
    """Seconds of training between checkpoints; infinity: it begins again."""


class Outcome(NamedTuple):
    """What a simulation came to."""

    makespan: float
    lost: float
    losses: int


@dataclasses.dataclass
class Running:
    """A process on a node."""

    process: Process
    done: float
    """Seconds of its training that were saved before it began here."""
    began: float


def simulate(processes: Sequence[Process], arguments: Arguments, seed: int) -> Outcome:
    """Carry processes out in their order, each as soon as a GPU is free; what a loss interrupts comes next."""
    rng = random.Random(seed)
    rate = arguments.losses_per_node_day / 86_400
    waiting = deque((process, 0.0) for process in processes)
    running: list[dict[int, Running]] = [{} for _ in range(arguments.nodes)]
    is_there = [True] * arguments.nodes
    events: list[tuple[float, int, str, int, int]] = []
    order, numbers, losses = itertools.count(), itertools.count(), 0
    lost = now = 0.0

    def add(at: float, kind: str, node: int, which: int = 0) -> None:
        heapq.heappush(events, (at, next(order), kind, node, which))

    def fill(node: int) -> None:
        while is_there[node] and waiting and len(running[node]) < arguments.gpus_per_node:
            process, done = waiting.popleft()
            number = next(numbers)
            running[node][number] = Running(process, done, now)
            add(now + arguments.start_seconds + process.seconds - done, "end", node, number)

    for node in range(arguments.nodes):
        fill(node)
        if rate:
            add(rng.expovariate(rate), "loss", node)
    while waiting or any(running):
        now, _, kind, node, which = heapq.heappop(events)
        if kind == "end":
            running[node].pop(which, None)  # It is there no more if the node was lost meanwhile.
        elif kind == "back":
            is_there[node] = True
            add(now + rng.expovariate(rate), "loss", node)
        else:
            losses, is_there[node] = losses + 1, False
            for one in running[node].values():
                trained = one.done + max(0.0, now - one.began - arguments.start_seconds)
                saved = max(one.done, trained // one.process.saved_every * one.process.saved_every)
                lost += now - one.began - (saved - one.done)
                waiting.appendleft((one.process, saved))
            running[node].clear()
            add(now + arguments.away_minutes * 60, "back", node)
        for each in range(arguments.nodes):
            fill(each)
    return Outcome(now, lost, losses)


def work(arguments: Arguments, *, together: bool) -> list[Process]:
    """What the published table asks for: a process a job, or one a seed."""
    found = []
    for task in tasks():
        protocol = task.suite.protocol(task)
        if protocol is None:
            continue
        rate = arguments.together_rate if together else arguments.alone_rate
        saved = arguments.save_every / rate if together else float("inf")
        found += [Process(protocol.steps / rate, saved)] * (arguments.agents * (1 if together else protocol.seeds))
    return found


def main() -> None:
    arguments = parse(Arguments)
    rows = []
    for name, together in (("a study", True), ("one process a seed", False)):
        processes = work(arguments, together=together)
        outcomes = [simulate(processes, arguments, seed) for seed in range(arguments.simulations)]
        needed = sum(arguments.start_seconds + process.seconds for process in processes)
        row = {
            "way": name,
            "processes": len(processes),
            "gpu_hours": needed / 3600,
            "makespan_hours": spread(outcome.makespan / 3600 for outcome in outcomes),
            "lost_percent": spread(100 * outcome.lost / needed for outcome in outcomes),
            "losses": spread(float(outcome.losses) for outcome in outcomes),
        }
        rows.append(row)
    report(dataclasses.asdict(arguments), rows)


if __name__ == "__main__":
    run(main)

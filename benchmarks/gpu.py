"""How fast agents train on an accelerator: 1, 8 and 32 seeds at once, in each precision, alone and beside evaluation.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --count --agents gfp

Prints the table of docs/benchmarks.md, "On a GPU", in Markdown. Run it from the repository's root, with
``PYTHONPATH=src`` where guidedflow is not installed: it needs no more than JAX, NumPy, Optax, Equinox, jaxtyping and
filelock, and Tyro for the options. Without Tyro: ``python -c "from benchmarks import gpu; gpu.show(gpu.Arguments())"``.

An agent's programs in one precision are compiled by a process of their own, many processes at once (``--jobs``), since
compiling takes most of the time; only then is anything measured, a program at a time and nothing beside it. The first
agent comes first, in each precision; then the others, a precision at a time. What is not compiled after two thirds of
``--minutes`` is left out, and so is what is not measured when they are over. What fails or is left out has the reason
in its row. Only the first agent is measured beside acting.

The memory is what a program's arguments, results and intermediate values take, as XLA plans it; the data (20,000 steps)
is among them.

Evaluation needs MuJoCo, so what stands for it beside training is a thread that asks a policy for the actions of four
environments and asks again at once: more than an evaluation does, which steps its environments in between.

With ``--count``: how many operations of the compiled program one update runs, and the bytes that they read and write as
XLA estimates them. On a GPU nearly each operation is a kernel. On a CPU it is the count of XLA's CPU backend, of the
program with members side by side, as an accelerator runs them: a stand-in, since the backends fuse differently.
"""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import OUT_OF_MEMORY, elapsed, parse, report, run, say, spread
from benchmarks.update import Setup, fresh_agents, random_data
from guidedflow.agents import AGENTS, find_agent
from guidedflow.agents.agent import Agent, acting
from guidedflow.nn.products import Precision, acting_precision, computed_in
from guidedflow.processes import available_cores
from guidedflow.settings import Count, Positive, Sizes
from guidedflow.training.members import select
from guidedflow.training.settings import TrainSettings
from guidedflow.training.sources import Decay, run_steps

RATES = (
    "updates_per_second",
    "seed_updates_per_second",
    "seed_updates_per_second_beside_acting",
    "acting_calls_per_second",
    "memory_bytes",
    "compile_seconds",
)
COUNTS = ("operations_per_update", "accessed_bytes")
ENVIRONMENTS = 4
COMPILING = 2 / 3
"""Of the time that is left, what compiling may take."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure training on an accelerator."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents; only the first is measured beside acting."""
    seeds: tuple[Count, ...] = (1, 8, 32)
    """Numbers of seeds that train at once."""
    precisions: tuple[Precision, ...] = ("float32", "tensorfloat32", "mixed")
    """In what the products are computed."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes."""
    batch_size: Count = 256
    """Transitions an update."""
    chunk: Count = 50
    """Updates a call."""
    repeats: Count = 5
    """Calls measured."""
    jobs: Count | None = None
    """Processes that compile at once; None: one a core."""
    minutes: Positive = 8.0
    """What is not measured by then is left out."""
    count: bool = False
    """Count the operations of one update's compiled program instead."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The rows of one agent in one precision, which share a process."""

    agent: str
    precision: Precision
    setups: tuple[Setup, ...]
    """One a row: they differ in the number of seeds."""
    count: bool
    """Whether operations are counted instead of rates measured."""
    beside: bool
    """Whether the rate beside acting is measured too."""

    def row(self, setup: Setup, found: dict[str, Any], note: str = "") -> dict[str, Any]:
        """What was found, or a note why nothing was."""
        fields = {name: found.get(name) for name in (COUNTS if self.count else RATES)}
        return {"agent": self.agent, "precision": self.precision, "seeds": setup.seeds, **fields, "note": note}


def main() -> None:
    show(parse(Arguments))


def show(arguments: Arguments) -> None:
    """Measure, and print."""
    for agent in arguments.agents:
        find_agent(agent)
    found, devices, ends = [], set[str](), time.monotonic() + 60 * arguments.minutes
    wanted, jobs = groups(arguments), arguments.jobs or available_cores()
    for first in range(0, len(wanted), jobs):
        for device, rows in measured(wanted[first : first + jobs], ends):
            found += rows
            devices |= {device} - {""}
    settings = {name: getattr(arguments, name) for name in ("hidden", "batch_size", "chunk", "repeats", "json")}
    report({"device": " ".join(devices), **settings}, found, markdown=True)


def groups(arguments: Arguments) -> list[Group]:
    common = {name: getattr(arguments, name) for name in ("hidden", "batch_size", "chunk", "repeats")}
    setups = tuple(Setup(**common, seeds=seeds) for seeds in sorted(arguments.seeds))
    first, *others = arguments.agents
    in_order = [(first, precision) for precision in arguments.precisions]
    in_order += [(agent, precision) for precision in arguments.precisions for agent in others]
    return [
        Group(agent, precision, setups, arguments.count, beside=agent == first and not arguments.count)
        for agent, precision in in_order
    ]


def measured(groups: Sequence[Group], ends: float) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The device's name, empty if none was reached, and the rows of each group: compiled together, measured in turn.

    Args:
        groups: a process each.
        ends: when the time is over, on the monotonic clock.
    """
    context = multiprocessing.get_context("spawn")
    compiling_ends = time.monotonic() + COMPILING * (ends - time.monotonic())
    started = []
    for group in groups:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(group, there), daemon=True)
        process.start()
        there.close()
        started.append((group, process, here))
    is_ready = [answer(here, compiling_ends) is not None for _, _, here in started]
    for (group, process, here), ready in zip(started, is_ready, strict=True):
        say(f"{group.agent} {group.precision}")
        result = None
        if ready and time.monotonic() < ends:
            here.send("measure")
            result = answer(here, ends)
        if result is None:
            note = ended(process) or f"left out: not {'measured' if ready else 'compiled'} in time"
            result = "", [group.row(setup, {}, note) for setup in group.setups]
        process.join()
        yield result


def answer(process: Connection, ends: float) -> Any:
    """What a process says next; None if it ends first, or the time is over."""
    try:
        return process.recv() if process.poll(max(0.0, ends - time.monotonic())) else None
    except EOFError:
        return None


def ended(process: BaseProcess) -> str:
    """How a process ended that said nothing; empty if it did not end, and it is ended then."""
    process.join(1.0)
    if process.exitcode is None:
        process.kill()
        return ""
    killed = process.exitcode == -signal.SIGKILL  # As the system does when memory runs out.
    return "out of memory" if killed else f"its process ended with exit code {process.exitcode}"


class Compiled(NamedTuple):
    """A program, and what it took."""

    program: Any
    seconds: float


def work(group: Group, parent: Connection) -> None:
    """Compile a group's programs, and measure them when told to."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # Others need memory on the device, too.
    programs = {setup: attempt(compiled, group, setup) for setup in group.setups}
    parent.send("compiled")
    parent.recv()
    rows = []
    for setup, (program, note) in programs.items():
        found, problem = (None, note) if note else attempt(counts if group.count else rates, group, setup, program)
        rows.append(group.row(setup, found or {}, problem))
    parent.send((jax.devices()[0].device_kind, rows))


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """A function's result, or None and what its device cannot do."""
    try:
        return function(*arguments), ""
    except (jax.errors.JaxRuntimeError, MemoryError, NotImplementedError, ValueError) as problem:
        return None, reason(problem)


def reason(problem: BaseException) -> str:
    """The first line of an error's message."""
    words = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    no_memory = isinstance(problem, MemoryError) or any(word in words for word in OUT_OF_MEMORY)
    return f"out of memory: {words}" if no_memory else words


def compiled(group: Group, setup: Setup) -> Compiled:
    """A chunk of updates, or the one update whose operations are counted."""
    with computed_in(group.precision):
        began = time.perf_counter()
        if group.count:
            return Compiled(update_of_seeds(group.agent, setup).compile(), time.perf_counter() - began)
        dataset = random_data(setup)
        agents, keys = fresh_agents(group.agent, setup, dataset)
        steps = jnp.int32(0), jnp.int32(setup.chunk), Decay.of(TrainSettings())
        began = time.perf_counter()
        program = run_steps.lower(agents, dataset, keys, *steps, batch_size=setup.batch_size).compile()
        return Compiled(program, time.perf_counter() - began)


def rates(group: Group, setup: Setup, compiled: Compiled) -> dict[str, Any]:
    """Rates of one number of seeds, the device's memory, and the seconds of tracing and compiling."""
    dataset = random_data(setup)
    agents, keys = fresh_agents(group.agent, setup, dataset)
    policy = select(agents, 0)  # Before training takes over the memory of the others.
    chunk, decay, starts = jnp.int32(setup.chunk), Decay.of(TrainSettings()), itertools.count(0, setup.chunk)

    def train() -> None:
        nonlocal agents
        done = compiled.program(agents, dataset, keys, jnp.int32(next(starts)), chunk, decay)
        agents, _ = jax.block_until_ready(done)

    def chunks() -> list[float]:
        return [elapsed(train) for _ in range(setup.repeats)]

    train()
    alone = chunks()
    beside, calls = measured_beside(policy, group.precision, setup, chunks) if group.beside else ([], None)
    work = setup.seeds * setup.chunk
    return {
        "updates_per_second": spread(setup.chunk / seconds for seconds in alone),
        "seed_updates_per_second": spread(work / seconds for seconds in alone),
        "seed_updates_per_second_beside_acting": spread(work / seconds for seconds in beside) if beside else None,
        "acting_calls_per_second": calls,
        "memory_bytes": planned_bytes(compiled.program),
        "compile_seconds": compiled.seconds,
    }


def planned_bytes(program: Any) -> int | None:
    """What XLA plans for a program's run, if it says so; a result in the memory of an argument counts once."""
    plan = program.memory_analysis()
    if plan is None:
        return None
    own_results = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return plan.argument_size_in_bytes + own_results + plan.temp_size_in_bytes


def measured_beside(
    agent: Agent, precision: Precision, setup: Setup, measure: Callable[[], list[float]]
) -> tuple[list[float], float]:
    """What ``measure`` returns while another thread acts at full speed, and the calls that this makes a second."""
    observations = np.zeros((ENVIRONMENTS, setup.observation_size), np.float32)
    act, key, is_over = acting(agent, agent.policy_names[0]), jax.random.key(0), threading.Event()

    def until_over() -> float:
        with computed_in(acting_precision(precision)):  # Each thread has its own.
            act(observations, key, 0)
            began = time.perf_counter()
            is_ready.set()
            for call in itertools.count(1):
                act(observations, key, call)
                if is_over.is_set():
                    return call / (time.perf_counter() - began)
        raise AssertionError

    is_ready = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        rate = threads.submit(until_over)
        rate.add_done_callback(lambda _: is_ready.set())  # Where acting itself fails.
        is_ready.wait()
        try:
            found = measure()
        finally:
            is_over.set()
        return found, rate.result()


def counts(group: Group, setup: Setup, compiled: Compiled) -> dict[str, Any]:
    """Of one update of all seeds, side by side: operations, and bytes that they read and write."""
    return {
        "operations_per_update": operations(compiled.program.as_text()),
        "accessed_bytes": (compiled.program.cost_analysis() or {}).get("bytes accessed"),
    }


def update_of_seeds(agent: str, setup: Setup) -> jax.stages.Lowered:
    """One update of all seeds, side by side as an accelerator makes them, whatever this device is; traced."""
    dataset = random_data(setup)
    agents, keys = fresh_agents(agent, setup, dataset)

    def update(agent: Any, key: Any, dataset: Any) -> Any:
        return agent.update(dataset.sample(key, setup.batch_size), key)

    together = jax.jit(jax.vmap(update, in_axes=(0, 0, None)), donate_argnums=0)
    return together.lower(agents, keys, dataset)


IS_NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^ +(?:ROOT )?\S+ = (?:\((?:[^()]|\([^()]*\))*\)|\S+) ([a-z][\w-]*)\(")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def operations(program: str) -> int:
    """How many operations a run of a compiled program makes; a fusion, or a call of a library, is one.

    A loop's body counts as often as it runs, once where the compiler does not know; of a condition, the longest branch.

    Args:
        program: the text of an optimised HLO module.
    """
    bodies: dict[str, list[tuple[str, str]]] = {}
    entry = name = ""
    for line in program.splitlines():
        if begins := COMPUTATION.match(line):
            name = begins[2]
            bodies[name] = []
            entry = name if begins[1] else entry
        elif instruction := INSTRUCTION.match(line):
            bodies[name].append((instruction[1], line))

    def inside(line: str, *roles: str) -> list[int]:
        found = re.findall(rf"(?:{'|'.join(roles)})=(?:\{{([^}}]*)\}}|([^,\s]+))", line)
        names = [name.strip("% ") for several, one in found for name in (several or one).split(",")]
        return [run_of(name) for name in names]

    def of(kind: str, line: str) -> int:
        if kind in IS_NO_WORK or kind.endswith("-done"):  # The latter's other half was counted as it started.
            return 0
        if kind == "while":
            trips = TRIPS.search(line)
            return (int(trips[1]) if trips else 1) * sum(inside(line, "body"))
        if kind == "call":
            return sum(inside(line, "to_apply"))
        if kind == "conditional":
            return max(inside(line, "branch_computations", "true_computation", "false_computation"))
        return 1

    @functools.cache
    def run_of(name: str) -> int:
        return sum(of(kind, line) for kind, line in bodies[name])

    return run_of(entry)


if __name__ == "__main__":
    run(main)

"""How fast agents train on an accelerator: 1, 8 and 32 seeds at once, in each precision, alone and beside evaluation.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --count --agents gfp

Prints the table of docs/benchmarks.md, "On a GPU", in Markdown. Run it from the repository's root, with
``PYTHONPATH=src`` where guidedflow is not installed: it needs no more than JAX, NumPy, Optax, Equinox, jaxtyping and
filelock, and Tyro for the options. Without Tyro: ``python -c "from benchmarks import gpu; gpu.show(gpu.Arguments())"``.

The first agent comes first, in each precision; then the others, a precision at a time. What would probably end after
``--minutes`` is not begun, and its row says so. An agent's seeds in one precision share a process of their own, fewest
seeds first: so ``device_peak_bytes``, the most that JAX has held on the device since that process began, is each row's
own. It is known on accelerators only. What fails has the reason in its row.

Evaluation needs MuJoCo, so what stands for it beside training is a thread that asks a policy for the actions of four
environments and asks again at once: more than an evaluation does, which steps its environments in between.

With ``--count``: how many operations of the compiled program one update runs, and the bytes that they read and write as
XLA estimates them. On a GPU nearly each operation is a kernel. On a CPU it is the count of XLA's CPU backend, of the
program with members side by side, as an accelerator runs them: a stand-in, since the backends fuse differently.
"""

import dataclasses
import functools
import itertools
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import OUT_OF_MEMORY, OutOfMemory, apart, elapsed, parse, report, run, say, spread
from benchmarks.update import Setup, fresh_agents, random_data
from guidedflow.agents import AGENTS, find_agent
from guidedflow.agents.agent import Agent, acting
from guidedflow.errors import GuidedflowError
from guidedflow.nn.products import Precision, acting_precision, computed_in
from guidedflow.settings import Count, Positive, Sizes
from guidedflow.training.members import select
from guidedflow.training.settings import TrainSettings
from guidedflow.training.sources import Decay, run_steps

RATES = (
    "updates_per_second",
    "seed_updates_per_second",
    "seed_updates_per_second_beside_acting",
    "acting_calls_per_second",
    "device_peak_bytes",
    "compile_seconds",
)
COUNTS = ("operations_per_update", "accessed_bytes")
ENVIRONMENTS = 4


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure training on an accelerator."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents; the most important first, which alone is measured beside acting."""
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
    minutes: Positive = 8.0
    """What would probably end later than this is left out."""
    count: bool = False
    """Count the operations of one update's compiled program instead."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The rows of one agent in one precision."""

    agent: str
    precision: Precision
    seeds: tuple[int, ...]
    """Numbers of them, ascending: a row each."""
    setup: dict[str, Any]
    """The other fields of ``Setup``."""
    count: bool
    """Whether operations are counted instead of rates measured."""
    beside: bool
    """Whether the rate beside acting is measured too."""
    left: float
    """Seconds in which rows may be begun."""
    longest: float
    """Seconds that the slowest row before took."""

    def row(self, seeds: int, found: dict[str, Any], note: str = "") -> dict[str, Any]:
        """What was found, or a note why nothing was."""
        fields = {name: found.get(name) for name in (COUNTS if self.count else RATES)}
        return {"agent": self.agent, "precision": self.precision, "seeds": seeds, **fields, "note": note}

    def rows(self, note: str) -> list[dict[str, Any]]:
        """Of none of which anything was found."""
        return [self.row(seeds, {}, note) for seeds in self.seeds]


def main() -> None:
    show(parse(Arguments))


def show(arguments: Arguments) -> None:
    """Measure, and print."""
    for agent in arguments.agents:
        find_agent(agent)
    began, longest = time.monotonic(), 0.0
    rows, devices = [], set[str]()
    for agent, precision in in_order(arguments):
        say(f"{agent} {precision}")
        left = began + 60 * arguments.minutes - time.monotonic()
        found = measure_apart(group(arguments, agent, precision, left, longest))
        rows += found["rows"]
        devices |= {found["device"]} - {None}
        longest = max(longest, found["longest"])
    settings = {name: getattr(arguments, name) for name in ("hidden", "batch_size", "chunk", "repeats", "json")}
    report({"device": " ".join(devices), **settings}, rows, markdown=True)


def in_order(arguments: Arguments) -> list[tuple[str, Precision]]:
    """The agents and precisions, the most important first."""
    first, *others = arguments.agents
    return [
        *((first, precision) for precision in arguments.precisions),
        *((agent, precision) for precision in arguments.precisions for agent in others),
    ]


def group(arguments: Arguments, agent: str, precision: Precision, left: float, longest: float) -> Group:
    setup = {name: getattr(arguments, name) for name in ("hidden", "batch_size", "chunk", "repeats")}
    is_first = agent == arguments.agents[0]
    seeds = tuple(sorted(arguments.seeds))
    return Group(agent, precision, seeds, setup, arguments.count, is_first and not arguments.count, left, longest)


def measure_apart(group: Group) -> dict[str, Any]:
    """What ``measure_group`` returns in a process of its own, or the rows with the reason why it did not."""
    if group.left <= group.longest:  # Not worth the start of a process.
        note = late(group.left, group.longest)
    else:
        try:
            return apart(measure_group, dataclasses.asdict(group))
        except (OutOfMemory, RuntimeError) as problem:
            note = reason(problem)
    return {"rows": group.rows(note), "device": None, "longest": group.longest}


def measure_group(fields: dict[str, Any]) -> dict[str, Any]:
    """A group's rows, this process's device, and the seconds that the slowest of these rows took.

    Args:
        fields: of ``Group``, as JSON has them.
    """
    group = Group(**fields)
    ends, longest, rows = time.monotonic() + group.left, group.longest, []
    for seeds in group.seeds:
        began = time.monotonic()
        if ends - began < longest:
            rows.append(group.row(seeds, {}, late(ends - began, longest)))
            continue
        setup = Setup(**{**group.setup, "hidden": tuple(group.setup["hidden"]), "seeds": seeds})
        try:
            rows.append(group.row(seeds, counts(group, setup) if group.count else rates(group, setup)))
        except GuidedflowError:  # The user's mistake, not the device's.
            raise
        except (jax.errors.JaxRuntimeError, MemoryError, NotImplementedError, ValueError) as problem:
            rows.append(group.row(seeds, {}, reason(problem)))
        longest = max(longest, time.monotonic() - began)
    return {"rows": rows, "device": jax.devices()[0].device_kind, "longest": longest}


def late(left: float, longest: float) -> str:
    return f"left out: {max(left, 0):.0f} s left, and the slowest row before took {longest:.0f}"


def reason(problem: BaseException) -> str:
    """The first line of an error's message."""
    words = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    no_memory = isinstance(problem, OutOfMemory | MemoryError) or any(word in words for word in OUT_OF_MEMORY)
    return f"out of memory: {words}" if no_memory else words


def rates(group: Group, setup: Setup) -> dict[str, Any]:
    """Rates of one number of seeds, the device's memory, and the seconds of tracing and compiling."""
    dataset = random_data(setup)
    agents, keys = fresh_agents(group.agent, setup, dataset)
    policy = select(agents, 0)  # Before training takes over the memory of the others.
    first, chunk = jnp.int32(0), jnp.int32(setup.chunk)
    with computed_in(group.precision):
        decay = Decay.of(TrainSettings())
        began = time.perf_counter()
        program = run_steps.lower(agents, dataset, keys, first, chunk, decay, batch_size=setup.batch_size).compile()
        compile_seconds = time.perf_counter() - began
    starts = itertools.count(0, setup.chunk)

    def train() -> None:
        nonlocal agents
        agents, _ = jax.block_until_ready(program(agents, dataset, keys, jnp.int32(next(starts)), chunk, decay))

    def chunks() -> list[float]:
        return [elapsed(train) for _ in range(setup.repeats)]

    train()
    alone = chunks()
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    beside, calls = measured_beside(policy, group.precision, setup, chunks) if group.beside else ([], None)
    work = setup.seeds * setup.chunk
    return {
        "updates_per_second": spread(setup.chunk / seconds for seconds in alone),
        "seed_updates_per_second": spread(work / seconds for seconds in alone),
        "seed_updates_per_second_beside_acting": spread(work / seconds for seconds in beside) if beside else None,
        "acting_calls_per_second": calls,
        "device_peak_bytes": memory,
        "compile_seconds": compile_seconds,
    }


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


def counts(group: Group, setup: Setup) -> dict[str, Any]:
    """Of one update of all seeds, side by side: operations, and bytes that they read and write."""
    with computed_in(group.precision):
        program = update_of_seeds(group.agent, setup).compile()
    return {
        "operations_per_update": operations(program.as_text()),
        "accessed_bytes": (program.cost_analysis() or {}).get("bytes accessed"),
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

"""How fast agents train, against what the machine's matrix products alone would take.

    python -m benchmarks.update --agents gfp --hidden 512 512 512 512

The floor is the sum, over every matrix product of one update, of the time that this product takes alone on this
machine, measured in the same run. Rates are medians of repeated chunks, compilation apart; rates on a shared machine
wander, so quote the fraction of the floor.
"""

import collections
import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from guidedflow.agents import AGENTS
from guidedflow.data.dataset import Dataset
from guidedflow.training.loop import run_chunk
from guidedflow.training.settings import Member
from guidedflow.training.stack import init_agents, member_keys

Shape = tuple[int, int, int, int]
"""A product's batch, rows, columns and inner size."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure update rates."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents."""
    hidden: tuple[int, ...] = (512, 512, 512, 512)
    """Hidden layer sizes."""
    batch_size: int = 256
    """Transitions an update."""
    observation_size: int = 28
    """n."""
    action_size: int = 5
    """d."""
    seeds: int = 1
    """Seeds that train at once."""
    target_agg: str | None = None
    """GFP's target; None: its default."""
    chunk: int = 40
    """Updates a call."""
    repeats: int = 7
    """Calls measured."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = tyro.cli(Arguments)
    results = [measure(name, arguments) for name in arguments.agents]
    if arguments.json:
        print(json.dumps({"device": str(jax.devices()[0].device_kind), "results": results}, indent=2))
        return
    print(f"device {jax.devices()[0].device_kind}, hidden {arguments.hidden}, batch {arguments.batch_size}")
    for row in results:
        print(
            f"{row['agent']:8} {row['seed_updates_per_second']:8.1f} seed-updates/s "
            f"[{row['slowest']:.1f}, {row['fastest']:.1f}]  {row['gflop_per_update']:6.2f} GFLOP/update  "
            f"{row['gflops']:7.1f} of {row['floor_gflops']:7.1f} GFLOP/s: {row['fraction_of_floor']:.2f} of the floor  "
            f"compiled in {row['compile_seconds']:.1f} s"
        )


def measure(name: str, arguments: Arguments) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n = 20_000
    dataset = Dataset.from_arrays(
        rng.normal(size=(n, arguments.observation_size)),
        rng.uniform(-1, 1, (n, arguments.action_size)),
        -np.ones(n),
        np.zeros(n, bool),
        np.arange(1, n + 1) % 1000 == 0,
    ).to_device()
    changes = {"hidden": arguments.hidden, "target_agg": arguments.target_agg}
    fields = {field.name for field in dataclasses.fields(AGENTS[name].config_class)}
    known = {k: v for k, v in changes.items() if k in fields and v is not None}
    config = AGENTS[name].config_class(**known)
    members = [Member("", seed, config) for seed in range(arguments.seeds)]
    agents = init_agents(name, members, dataset.spec)
    keys = member_keys(members, "train")
    sizes = {"batch_size": arguments.batch_size, "length": arguments.chunk}

    one = jax.tree.map(lambda leaf: leaf[0], agents)
    jaxpr = jax.make_jaxpr(lambda agent, key: agent.update(dataset.sample(key, arguments.batch_size), key))(
        one, keys[0]
    )
    products = matrix_products(jaxpr.jaxpr)

    began = time.perf_counter()
    agents, _ = jax.block_until_ready(run_chunk(agents, dataset, keys, jnp.int32(0), **sizes))
    first_call = time.perf_counter() - began
    seconds = []
    floors = []
    for repeat in range(arguments.repeats):
        began = time.perf_counter()
        agents, _ = jax.block_until_ready(run_chunk(agents, dataset, keys, jnp.int32(repeat), **sizes))
        seconds.append((time.perf_counter() - began) / arguments.chunk / arguments.seeds)
        floors.append(sum(count * time_product(shape) for shape, count in products.items()))
    gflop = sum(2e-9 * count * np.prod(shape) for shape, count in products.items())
    second, floor = statistics.median(seconds), statistics.median(floors)
    return {
        "agent": name,
        "hidden": list(arguments.hidden),
        "seeds": arguments.seeds,
        "seed_updates_per_second": 1 / second,
        "slowest": 1 / max(seconds),
        "fastest": 1 / min(seconds),
        "gflop_per_update": float(gflop),
        "gflops": float(gflop / second),
        "floor_gflops": float(gflop / floor),
        "fraction_of_floor": floor / second,
        "compile_seconds": first_call - second * arguments.chunk * arguments.seeds,
    }


def matrix_products(jaxpr: Any, times: int = 1) -> collections.Counter[Shape]:
    """How often each shape of matrix product is computed, loops of known length included."""
    found: collections.Counter[Shape] = collections.Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contract, _), (batch, _) = equation.params["dimension_numbers"]
            left, right = (variable.aval.shape for variable in equation.invars)
            inner = int(np.prod([left[i] for i in contract]))
            together = int(np.prod([left[i] for i in batch]))
            rows = int(np.prod(left)) // inner // together
            found[together, rows, int(np.prod(right)) // inner // together, inner] += times
        inner_times = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        for value in equation.params.values():
            inner_jaxpr = getattr(value, "jaxpr", value)
            if hasattr(inner_jaxpr, "eqns"):
                found += matrix_products(inner_jaxpr, inner_times)
    return found


_TIMERS: dict[Shape, Any] = {}
PRODUCTS_A_CALL = 8


def time_product(shape: Shape) -> float:
    """Seconds that one product of this shape takes, as one of several in a call; the best of five calls."""
    together, rows, columns, inner = shape
    if shape not in _TIMERS:
        left = jnp.ones((together, rows, inner))
        rights = [jnp.full((together, inner, columns), float(i)) for i in range(PRODUCTS_A_CALL)]
        compiled = jax.jit(lambda left, rights: [left @ right for right in rights]).lower(left, rights).compile()
        _TIMERS[shape] = lambda: jax.block_until_ready(compiled(left, rights))
        _TIMERS[shape]()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        _TIMERS[shape]()
        best = min(best, time.perf_counter() - began)
    return best / PRODUCTS_A_CALL


if __name__ == "__main__":
    main()

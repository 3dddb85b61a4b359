"""How fast agents train, against what the machine's matrix products alone would take.

    python -m benchmarks.update --agents gfp --hidden 512 512 512 512
    python -m benchmarks.update --agents gfp --precisions float32 mixed
    python -m benchmarks.update --profile

The floor is the sum, over every matrix product of one update, of the time that this product takes alone on this
machine, measured in the same run. Rates are medians of repeated chunks with their extremes, compilation apart; rates
on a shared machine wander, so quote the fraction of the floor.

With ``--profile``: where the time of one update of GFP goes. Each part is compiled alone, so the parts do not add up to
the whole: what XLA fuses or shares across parts is counted in each of them, and a part whose weights stand still spares
what follows from a change of them.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from benchmarks.common import elapsed, parse, report, run, spread
from benchmarks.floor import floor_seconds, gflop, matrix_products
from guidedflow.agents import AGENTS, find_agent, gfp
from guidedflow.agents.agent import adam_step
from guidedflow.data.dataset import Dataset
from guidedflow.nn.actor import NoiseActor
from guidedflow.nn.critic import aggregate, critic_loss
from guidedflow.nn.flow import Noise, integrate
from guidedflow.nn.products import Precision, computed_in
from guidedflow.settings import Count, CountOrZero, Range, Sizes, build
from guidedflow.training.members import init_agents, member_keys, over_members, select
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.training.sources import MOST_STEPS, Decay, run_steps
from guidedflow.types import Batch


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is trained, and for how long."""

    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes."""
    batch_size: Count = 256
    """Transitions an update."""
    rows: Count = 20_000
    """Steps in the data, which are random numbers."""
    observation_size: Count = 28
    """n."""
    picture_size: CountOrZero = 0
    """Height and width of pictures with nine channels, a stack of three, to learn from instead; 0: of vectors."""
    action_size: Count = 5
    """d."""
    seeds: Count = 1
    """Seeds that train at once."""
    target_agg: str | None = None
    """GFP's target; None: its default."""
    chunk: Annotated[int, Range(1, MOST_STEPS)] = 40
    """Updates a call."""
    repeats: Count = 7
    """Calls measured."""


@dataclasses.dataclass(frozen=True)
class Arguments(Setup):
    """Measure update rates."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents."""
    precisions: tuple[Precision, ...] = ("default",)
    """In what products are computed; several are measured by turns, and compared with the first."""
    profile: bool = False
    """Show the parts of one update of GFP, one seed, instead."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    if arguments.profile:
        rows = profile(arguments)
    else:
        rows = [row for name in arguments.agents for row in measure(name, arguments, arguments.precisions)]
    settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Setup)}
    report({"device": jax.devices()[0].device_kind, **settings, "json": arguments.json}, rows)


def measure(name: str, setup: Setup, precisions: Sequence[Precision]) -> list[dict[str, Any]]:
    """Rates of one agent in each precision, by turns.

    All seeds' updates are ``updates``; each seed's counts in ``seed_updates``. The floor is that of float32, without
    convolutions.
    """
    dataset = random_data(setup)
    agents, keys = fresh_agents(name, setup, dataset)

    def update(agent: Any, key: Any) -> Any:
        return agent.update(dataset.sample(key, setup.batch_size), key)

    products = matrix_products(jax.make_jaxpr(lambda *stacked: over_members(update, *stacked))(agents, keys).jaxpr)
    trained = {precision: jax.tree.map(jnp.copy, agents) for precision in precisions}

    def train(precision: Precision, start: int) -> None:
        steps = jnp.int32(start), jnp.int32(setup.chunk), Decay.of(TrainSettings())
        with computed_in(precision):
            done = run_steps(trained[precision], dataset, keys, *steps, batch_size=setup.batch_size)
        trained[precision], _ = jax.block_until_ready(done)

    first_call = {precision: elapsed(functools.partial(train, precision, 0)) for precision in precisions}
    seconds: dict[Precision, list[float]] = {precision: [] for precision in precisions}
    floors = []
    for repeat in range(setup.repeats):  # Side by side, since a shared machine is not equally fast all the time.
        start = (repeat + 1) * setup.chunk
        for precision in precisions:
            seconds[precision].append(elapsed(functools.partial(train, precision, start)) / setup.chunk)
        floors.append(floor_seconds(products))
    work = gflop(products)
    return [
        {
            "agent": name,
            "precision": precision,
            "updates_per_second": spread(1 / second for second in taken),
            "seed_updates_per_second": spread(setup.seeds / second for second in taken),
            f"times_{precisions[0]}": spread(a / b for a, b in zip(seconds[precisions[0]], taken, strict=True)),
            "gflop_per_update": work / setup.seeds,
            "gflops": spread(work / second for second in taken),
            "gemm_gflops": spread(work / floor for floor in floors),
            "fraction_of_floor": spread(floor / second for floor, second in zip(floors, taken, strict=True)),
            "compile_seconds": first_call[precision] - statistics.median(taken) * setup.chunk,
        }
        for precision, taken in seconds.items()
    ]


def random_data(setup: Setup) -> Dataset:
    """Episodes of a thousand steps, on the device."""
    rng, n = np.random.default_rng(0), setup.rows
    if setup.picture_size:
        observations = rng.integers(0, 256, (n, setup.picture_size, setup.picture_size, 9), np.uint8)
    else:
        observations = rng.standard_normal((n, setup.observation_size), np.float32)
    return Dataset.from_arrays(
        observations,
        2 * rng.random((n, setup.action_size), np.float32) - 1,
        -np.ones(n, np.float32),
        np.zeros(n, bool),
        np.arange(1, n + 1) % 1000 == 0,
    ).to_device()


def fresh_agents(name: str, setup: Setup, dataset: Dataset) -> tuple[Any, Any]:
    """As many as there are seeds, stacked, and their keys."""
    agent = find_agent(name)
    config_class: Any = agent.config_class
    wanted = {"hidden": setup.hidden, "target_agg": setup.target_agg}
    fields = {field.name for field in dataclasses.fields(config_class)}
    config = build(config_class, {k: v for k, v in wanted.items() if k in fields and v is not None})
    members = [Member((), seed, config) for seed in range(setup.seeds)]
    return init_agents(agent, members, dataset.spec), member_keys(members, "train")


def profile(setup: Setup) -> list[dict[str, Any]]:
    """The parts of one update of GFP, the whole update, and the sum of the parts."""
    setup = dataclasses.replace(setup, seeds=1)
    dataset = random_data(setup)
    agent = select(fresh_agents("gfp", setup, dataset)[0], 0)
    keys = jax.random.split(jax.random.key(0), setup.chunk)
    batches = jax.jit(jax.vmap(lambda key: dataset.sample(key, setup.batch_size)))(keys)
    steps = batches, jax.jit(jax.vmap(Noise.draw))(keys, batches.actions), keys
    first_step = select(steps, 0)
    parts = gfp_parts(agent, dataset, *first_step[:2])
    names = [*parts]
    parts["whole update"] = Part(
        lambda agent, _, __, key: agent.update(dataset.sample(key, setup.batch_size), key)[0], agent
    )

    products = {
        name: matrix_products(jax.make_jaxpr(part.step)(part.carry, *first_step).jaxpr) for name, part in parts.items()
    }
    calls = {name: part.compiled(steps) for name, part in parts.items()}
    rounds = [
        {name: (1e3 * elapsed(call) / setup.chunk, 1e3 * floor_seconds(products[name])) for name, call in calls.items()}
        for _ in range(setup.repeats)
    ]
    times, floors = ({name: np.array([one[name][i] for one in rounds]) for name in parts} for i in (0, 1))
    work = {name: gflop(products[name]) for name in parts}
    measured: tuple[dict[str, Any], ...] = (times, floors, work)
    for found in measured:
        found["sum of the parts"] = sum(found[name] for name in names)
    return [
        {
            "part": name,
            "milliseconds": spread(times[name]),
            "share_of_update": float(np.median(times[name] / times["whole update"])),
            "gflop": work[name],
            "floor_milliseconds": spread(floors[name]),
            "fraction_of_floor": spread(floors[name] / times[name]),
        }
        for name in times
    ]


class Part(NamedTuple):
    """A piece of an update."""

    step: Callable[..., Any]
    """``step(carry, batch, noise, key) -> carry``."""
    carry: Any
    """The first carry; only what goes from one update into the next is read."""

    def compiled(self, steps: Any) -> Callable[[], Any]:
        """A call of all steps, each with a batch of its own, so that the compiler moves nothing out of the loop."""

        def loop(carry: Any, steps: Any) -> Any:
            return jax.lax.scan(lambda carry, step: (self.step(carry, *step), None), carry, steps)[0]

        program = jax.jit(loop).lower(self.carry, steps).compile()
        jax.block_until_ready(program(self.carry, steps))
        return lambda: jax.block_until_ready(program(self.carry, steps))


def gfp_parts(agent: gfp.GFP, dataset: Dataset, batch: Batch, noise: Noise) -> dict[str, Part]:
    """What ``CriticAgent.update`` and ``gfp.total_loss`` do, with GFP's default guidance.

    Where a part needs another's result, noise stands in for actions and rewards for values.

    Args:
        agent: one seed's.
        dataset: on the device.
        batch: of the size that is measured; only its shapes matter, as ``noise``'s do.
        noise: for it.
    """
    config, (critic, actor, flow), target_critic = agent.config, agent.networks, agent.target_critic

    def sample(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        drawn = dataset.sample(key, len(batch.rewards))
        return drawn, Noise.draw(key, drawn.actions)

    def critic_target(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        return gfp.critic_target(agent.networks, target_critic, batch, noise.z_next, config)

    def critic_gradient(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        return jax.grad(lambda critic: critic_loss(critic, batch, batch.rewards)[0])(critic)

    def flow_action(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        return integrate(flow.at(batch.observations), noise.z, config.flow_steps)

    def actor_gradient(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        def loss(actor: NoiseActor) -> Array:
            return gfp.actor_loss(actor(batch.observations, noise.z), noise.z_next, critic, batch, config)[0]

        return jax.grad(loss)(actor)

    def guidance(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        q = aggregate(target_critic(batch.observations, jnp.stack([batch.actions, noise.z_next])), config.q_agg)
        return gfp.guidance(q[0], q[1], jnp.ones(()), config)

    def flow_gradient(_: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        return jax.grad(lambda flow: gfp.vabc_loss(flow, batch, batch.rewards, noise)[0])(flow)

    def adam(carry: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        networks, state = carry
        return adam_step(networks, agent.networks, state, config.learning_rate)

    def target(moving: Any, batch: Batch, noise: Noise, key: Array) -> Any:
        return optax.incremental_update(critic, moving, config.tau)

    return {
        "batch and noise": Part(sample, (batch, noise)),
        "critic target": Part(critic_target, batch.rewards),
        "critic loss": Part(critic_gradient, critic),
        "flow's action": Part(flow_action, batch.actions),
        "actor loss": Part(actor_gradient, actor),
        "guidance": Part(guidance, batch.rewards),
        "flow loss": Part(flow_gradient, flow),
        "Adam": Part(adam, (agent.networks, agent.optimizer)),
        "target": Part(target, target_critic),
    }


if __name__ == "__main__":
    run(main)

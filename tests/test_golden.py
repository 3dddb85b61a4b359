"""Five updates of every agent against those that the authors' own code made (shared/reference/golden_updates.md).

The recording holds start parameters, batches and noise, and what came out: each loss at each update, and the parameters
after the fifth, targets included. Here the same numbers go through ``step``, which is what ``update`` calls.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bridge import fresh
from conftest import SHARED

from guidedflow.agents import AGENTS
from guidedflow.nn import mlp
from guidedflow.nn.flow import Noise
from guidedflow.types import Batch, Spec

RECORDING = SHARED / "reference" / "golden_updates.npz" if SHARED else None
pytestmark = pytest.mark.skipif(RECORDING is None or not RECORDING.exists(), reason="the recording is not here")

CASES = [f"gfp{i}" for i in range(1, 7)] + ["fql1", "fql2", "ifql", "iql1", "iql2", "rebrac1", "rebrac2"]
WORDS = {
    **dict.fromkeys(("target_agg", "guidance_agg"), ("actor", "vabc", "mean", "min", "max")),
    "guidance": ("softmax", "advantage"),
    "q_agg": ("mean", "min"),
    "normalize_q": (False, True),
    "vabc_target_at_next": ("current", "next"),
    "actor_objective": ("awr", "ddpgbc"),
}
"""What the recording's codes stand for."""
METRICS = {
    "critic": "critic_loss",
    "value": "value_loss",
    "actor": "actor_loss",
    "distill": "distill",
    "guidance": "guidance",
    "q_data": "q_data",
    "cloning": "cloning",
}
"""What we call what was recorded."""


@pytest.fixture(scope="module")
def recording() -> dict[str, np.ndarray]:
    with np.load(RECORDING) as file:
        return {name: file[name] for name in file.files}


def entries(recording, prefix):
    return {name.removeprefix(prefix): value for name, value in recording.items() if name.startswith(prefix)}


def read_settings(recording, case):
    settings = {}
    for name, value in entries(recording, f"{case}/setting/").items():
        word = WORDS[name][int(value)] if name in WORDS else value.item()
        settings[name.removesuffix("_next")] = int(word) if name in ("flow_steps", "actor_period") else word
    return settings


def read_noise(recording, case):
    noise = entries(recording, f"{case}/noise/")
    if case.startswith(("gfp", "fql")):
        return Noise(**noise)
    return (noise["eps"], noise["t"]) if case == "ifql" else noise.get("smoothing")


def network(agent, name):
    return getattr(agent, name) if hasattr(agent, name) else getattr(agent.networks, name)


def network_names(recording, case):
    return sorted({name.split("/")[0] for name in entries(recording, f"{case}/start/")})


def leaf_names(net: mlp.MLP) -> list[str]:
    """The recording's names of a network's leaves, in the order in which JAX flattens them."""
    names = [f"layer{i}/{part}" for part in ("kernel", "bias") for i in range(len(net.weights))]
    return names + [f"norm{i}/{part}" for i in range(len(net.norms or ())) for part in ("scale", "offset")]


def read_network(recording, prefix, like):
    """The recorded parameters in the structure of a network of ours."""
    if hasattr(like, "members"):
        leaves = [
            recording[f"{prefix}/{name}"][i] for i, member in enumerate(like.members) for name in leaf_names(member)
        ]
    else:
        leaves = [recording[f"{prefix}/{name}"] for name in leaf_names(like.net)]
    assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in jax.tree.leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, leaves))


def start(recording, case, **changes):
    agent_class = AGENTS[case.rstrip("123456")]
    settings = {**agent_class.config_class.tuned_with, **read_settings(recording, case), **changes}
    spec = Spec((5,), np.dtype("float32"), 2)
    agent = fresh(agent_class, agent_class.config_class(hidden=(16, 16), **settings), spec)
    for name in network_names(recording, case):
        net = read_network(recording, f"{case}/start/{name}", network(agent, name))
        agent = eqx.tree_at(lambda agent, name=name: network(agent, name), agent, net)
    return agent


def five_updates(recording, agent, case, amend=lambda before, after: after):
    """The agent after the recorded updates, and its metrics at each; ``amend`` may change what a step did."""
    fields = entries(recording, "batch/")
    batch = Batch(**fields, next_action_valid=np.ones(fields["rewards"].shape, bool))

    def one_update(agent, inputs):
        following, metrics = agent.step(*inputs)
        return amend(agent, following), metrics

    inputs = batch, read_noise(recording, case)
    return jax.jit(lambda agent, inputs: jax.lax.scan(one_update, agent, inputs))(agent, inputs)


def recorded_and_ours(recording, case, agent, metrics):
    """Every loss at the five updates and every network's parameters after them: name, theirs, ours."""
    for name, theirs in entries(recording, f"{case}/loss/").items():
        if name == "q":
            ours = metrics["actor_loss"] - agent.config.alpha * metrics["distill"]
        elif name == "flow":
            ours = metrics["vabc_loss" if case.startswith("gfp") else "flow_loss"]
        else:
            ours = metrics[METRICS[name]]
        updates = np.isfinite(theirs)  # An actor that is not updated has no loss there.
        yield f"{name} loss", theirs[updates], np.asarray(ours)[updates]
    for name in network_names(recording, case):
        ours = network(agent, name)
        theirs = read_network(recording, f"{case}/end/{name}", ours)
        yield name, *(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(net)]) for net in (theirs, ours))


def disagreements(*arguments) -> list[str]:
    """The losses and networks that differ from the recorded ones by more than rounding."""
    return [
        name
        for name, theirs, ours in recorded_and_ours(*arguments)
        if not np.allclose(ours, theirs, rtol=1e-5 if name.endswith("loss") else 0.0, atol=1e-6)
    ]


def test_the_cases_are_all_that_were_recorded(recording):
    assert {name.split("/")[0] for name in recording} == {"batch", *CASES}


@pytest.mark.parametrize("case", CASES)
def test_five_updates_are_the_authors(recording, case):
    assert disagreements(recording, case, *five_updates(recording, start(recording, case), case)) == []


# What follows shows that the comparison above is close enough to notice a wrong convention.


def follow_too_late(before, after):
    """The targets, where they moved, towards the parameters from after the step."""
    for name in ("target_critic", "target_actor"):
        if hasattr(after, name):
            old, new = getattr(before, name), getattr(after, name)
            late = optax.incremental_update(network(after, name.removeprefix("target_")), old, after.config.tau)
            moved = (jax.tree.leaves(old)[0] != jax.tree.leaves(new)[0]).any()
            late = jax.tree.map(lambda x, y, moved=moved: jnp.where(moved, x, y), late, new)
            after = eqx.tree_at(lambda agent, name=name: getattr(agent, name), after, late)
    return after


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gfp2", "iql1", "rebrac1"])
def test_a_target_that_follows_the_new_parameters_is_noticed(recording, case):
    found = disagreements(recording, case, *five_updates(recording, start(recording, case), case, follow_too_late))
    assert "target_critic" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "wrong", "noticed"),
    [
        (mlp, "gelu_tanh", lambda x: jax.scipy.stats.norm.cdf(x) * x, "critic loss"),
        (mlp, "LAYER_NORM_EPSILON", 1e-5, "critic loss"),
        (optax, "scale_by_adam", functools.partial(optax.scale_by_adam, eps=1e-7), "critic"),
    ],
    ids=["exact GELU", "LayerNorm's epsilon 1e-5", "Adam's epsilon 1e-7"],
)
def test_another_convention_is_noticed(recording, monkeypatch, module, name, wrong, noticed):
    agent = start(recording, "gfp2")
    monkeypatch.setattr(module, name, wrong)
    assert noticed in disagreements(recording, "gfp2", *five_updates(recording, agent, "gfp2"))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"actor_momentum": False}, {"actor_moves_first": True}], ids=str)
def test_another_schedule_of_rebracs_actor_is_noticed(recording, settings):
    agent = start(recording, "rebrac1", **settings)
    found = disagreements(recording, "rebrac1", *five_updates(recording, agent, "rebrac1"))
    assert "actor" in found

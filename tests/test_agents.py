"""What every algorithm promises, whatever it is. Nothing here knows an algorithm by name."""

import ast
import dataclasses
import inspect
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bridge import SPEC, random_batch

import guidedflow as gf
from guidedflow.agents import AGENTS
from guidedflow.errors import GuidedflowError
from guidedflow.settings import Range
from guidedflow.training.members import init_agents, select
from guidedflow.training.settings import Member

SMALL = {"hidden": (12,), "flow_steps": 2}


def small_config(name, **changes):
    known = {field.name for field in dataclasses.fields(AGENTS[name].config_class)}
    return AGENTS[name].config_class(**{k: v for k, v in {**SMALL, **changes}.items() if k in known})


@pytest.fixture(params=list(AGENTS), scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def agent(name):
    return select(init_agents(AGENTS[name], [Member((), 0, small_config(name))], SPEC), 0)


@pytest.fixture
def batch():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(0))


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.mark.slow
def test_updates_are_pure_and_return_scalar_metrics(agent, batch):
    before = jax.tree.map(jnp.copy, agent)
    updated, metrics = jax.jit(type(agent).update)(agent, batch, jax.random.key(1))
    assert same(agent, before)
    assert not same(agent, updated)
    assert jax.tree.structure(agent) == jax.tree.structure(updated)
    assert metrics
    assert all(np.shape(value) == () and np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
def test_validating_gives_updates_metrics_of_the_batch_that_is_given(agent, batch):
    """Also where some network rests: an update that repeats what it said of an earlier batch would be no validation."""
    update, validate = jax.jit(type(agent).update), jax.jit(type(agent).validate)
    other = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(1))
    for _ in range(2):
        agent, metrics = update(agent, batch, jax.random.key(1))
        before = jax.tree.map(jnp.copy, agent)
        first, second = (validate(agent, one, jax.random.key(2)) for one in (batch, other))
        assert same(agent, before)
        assert first.keys() == second.keys() == metrics.keys()
        assert not [name for name in first if first[name] == second[name]]


@pytest.mark.slow
def test_policies_act_batched_and_single_within_the_box(agent):
    policies = agent.policies()
    assert tuple(policies) == agent.policy_names
    s = np.random.default_rng(0).normal(size=(7, *SPEC.observation_shape)).astype(np.float32)
    for act in map(jax.jit, policies.values()):
        actions = np.asarray(act(s, jax.random.key(0)))
        assert actions.shape == (7, SPEC.action_size)
        assert np.abs(actions).max() <= 1.0
        assert act(s[:1], jax.random.key(0)).shape == (1, SPEC.action_size)


def test_exploring_stays_within_the_box_and_differs_from_draw_to_draw(agent):
    if not agent.goes_online:
        pytest.skip("it learns offline only")
    act = jax.jit(lambda s, key: agent.for_online().exploration()(s, key))
    s = np.ones((3, *SPEC.observation_shape), np.float32)
    first, second = (np.asarray(act(s, jax.random.key(i))) for i in (0, 1))
    assert first.shape == (3, SPEC.action_size)
    assert np.abs(first).max() <= 1.0
    assert (first != second).any(axis=1).all()


def test_no_ten_lines_are_repeated_between_two_algorithms():
    runs = {}
    for agent in AGENTS.values():
        module = inspect.getmodule(agent)
        source = inspect.getsource(module)
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
        lines = source.splitlines()[imports[-1].end_lineno :]  # What two files import alike is no repetition.
        lines = [line for line in map(str.strip, lines) if line]
        for i in range(len(lines) - 9):
            other = runs.setdefault(tuple(lines[i : i + 10]), module)
            assert other is module, f"{module.__name__} and {other.__name__}: {lines[i]}"


@pytest.mark.slow
def test_seeds_and_float_settings_vmap(name, batch):
    agents = init_agents(AGENTS[name], [Member((), seed, small_config(name)) for seed in (0, 1)], SPEC)
    config = jax.tree.map(lambda leaf: leaf * jnp.array([1.0, 0.5]), agents.config)  # Two settings at once, too.
    agents = eqx.tree_at(lambda agents: agents.config, agents, config)
    keys = jnp.stack([jax.random.key(5), jax.random.key(6)])

    def update(agent, key):
        return agent.update(batch, key)[0]

    together = jax.jit(jax.vmap(update))(agents, keys)
    for i in range(2):
        alone = jax.jit(update)(select(agents, i), keys[i])
        for x, y in zip(jax.tree.leaves(select(together, i)), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def numeric_settings():
    for agent_name, agent in AGENTS.items():
        for field, hint in typing.get_type_hints(agent.config_class, include_extras=True).items():
            for note in getattr(hint, "__metadata__", ()):
                if isinstance(note, Range):
                    yield agent_name, field, note


@pytest.mark.parametrize(("agent_name", "field", "allowed"), list(numeric_settings()), ids=str)
def test_numbers_outside_their_range_are_refused_by_name(agent_name, field, allowed):
    whole = isinstance(getattr(AGENTS[agent_name].config_class(), field), int)
    beyond = [allowed.low - 1, *([allowed.low] if allowed.open_low else [])]
    beyond += [] if np.isinf(allowed.high) else [allowed.high + 1, *([allowed.high] if allowed.open_high else [])]
    beyond += [] if whole else [float("nan")]
    for value in beyond:
        config = small_config(agent_name, **{field: int(value) if whole else value})
        with pytest.raises(GuidedflowError, match=f"^{field}: expected a value {_escaped(allowed)}, found") as error:
            gf.make_agent(agent_name, SPEC, **vars(config))
        assert "\n" not in str(error.value)


def _escaped(allowed) -> str:
    import re

    return re.escape(str(allowed))


def test_wrong_types_and_choices_are_refused_by_name(name):
    for field, value in {"hidden": (16, 0), "learning_rate": "fast"}.items():
        with pytest.raises(GuidedflowError, match=f"^{field}: expected"):
            gf.make_agent(name, SPEC, **vars(small_config(name, **{field: value})))
    hints = typing.get_type_hints(AGENTS[name].config_class)
    choices = [field for field, hint in hints.items() if typing.get_origin(hint) is typing.Literal]
    for field in choices:
        with pytest.raises(GuidedflowError, match=f"^{field}: expected one of .*, found 'nonsense'"):
            gf.make_agent(name, SPEC, **vars(small_config(name, **{field: "nonsense"})))


def test_every_setting_is_read(name):
    """A field that nothing reads would be a lie to the user: code of the algorithm's classes or file reads each."""
    modules = {inspect.getmodule(cls) for cls in AGENTS[name].__mro__ if cls.__module__.startswith("guidedflow")}
    nodes = [node for module in modules for node in ast.walk(ast.parse(inspect.getsource(module)))]
    read = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "config"
    }
    assert {field.name for field in dataclasses.fields(AGENTS[name].config_class)} <= read


def test_files_are_short_with_the_losses_first(name):
    lines = inspect.getsource(inspect.getmodule(AGENTS[name])).splitlines()
    assert len(lines) <= 250
    last_loss = max(i for i, line in enumerate(lines) if line.startswith("def ") and "loss" in line)
    assert last_loss < next(i for i, line in enumerate(lines) if line.startswith(f"class {AGENTS[name].__name__}("))

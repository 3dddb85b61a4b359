"""Agents that train at once: one pytree with a leading axis of members, each a variant of the settings with a seed.

Where the process sees several devices, the members are spread over them, and what all of them read is copied to each.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from guidedflow.agents import Agent
from guidedflow.nn.encoder import normalized
from guidedflow.seeding import derived_seed
from guidedflow.settings import check
from guidedflow.training.compilation import keep_compiled_programs
from guidedflow.training.settings import Member
from guidedflow.types import Spec

AXIS = "members"
_T = TypeVar("_T")


def devices_of(count: int) -> list[jax.Device]:
    """The devices that ``count`` members are spread over: as many as there are that divide them evenly."""
    devices = jax.local_devices()
    used = max(n for n in range(1, min(count, len(devices)) + 1) if count % n == 0)
    return devices[:used]


def device_names(count: int) -> str:
    """What ``count`` members train on, for the run's records: the device, or how many and which."""
    names = [str(device) for device in devices_of(count)]
    return names[0] if len(names) == 1 else f"{len(names)} devices: {', '.join(names)}"


def on_own_devices(stacked: _T) -> _T:
    """Arrays with a leading axis of members, each member's on its device."""
    return _put(stacked, _count(stacked), PartitionSpec(AXIS))


def on_all_devices(shared: _T, members: int) -> _T:
    """What every member reads, copied to each device that any of them is on."""
    return _put(shared, members, PartitionSpec())


def init_agents(agent: type[Agent], members: Sequence[Member], spec: Spec) -> Agent:
    """One agent a member, stacked along a leading axis of every array, each on its device.

    Raises:
        SettingsError, DataError: a setting is outside its range, or observations of these shapes cannot be learned
            from.
    """
    keep_compiled_programs()
    agent.check_spec(spec)
    for member in members:
        check(member.config)
    configs = jax.tree.map(lambda *values: jnp.array(values, jnp.float32), *(member.config for member in members))
    keys = _keys(members, "init")
    # A target may start as the very array that it follows; the loop donates each array, so each must be its own.
    return on_own_devices(_copied(_build(configs, keys, agent, spec)))


@functools.partial(jax.jit, static_argnames=("agent", "spec"))
def _build(configs: Any, keys: Key[Array, " members"], agent: type[Agent], spec: Spec) -> Agent:
    def build(config: Any, key: Key[Array, ""]) -> Agent:
        built = agent.build(config, spec, key)
        return built if spec.normalization is None else normalized(built, spec.normalization)

    return jax.vmap(build)(configs, keys)


@jax.jit
def _copied(tree: _T) -> _T:
    return jax.tree.map(jnp.copy, tree)


def member_keys(members: Sequence[Member], purpose: str) -> Key[Array, " members"]:
    """One key a member, a function of its seed: variants with the same seed see the same batches and noise."""
    return on_own_devices(_keys(members, purpose))


def select(stacked: _T, index: int) -> _T:
    """One member out of the stack, on one device."""
    devices = devices_of(_count(stacked))
    one = _taken(stacked, index)
    return one if len(devices) == 1 else jax.device_put(one, devices[0])


# Compiled as a whole: applied leaf by leaf, JAX would compile a program for each shape.
@jax.jit
def _taken(stacked: _T, index: int) -> _T:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stacked)


@jax.jit
def stack_of_one(agent: _T) -> _T:
    """A stack of one member, in memory of its own."""
    return jax.tree.map(lambda leaf: jnp.array(leaf)[None], agent)


def over_members(function: Callable[..., _T], *stacked: Any, shared: tuple[Any, ...] = ()) -> _T:
    """``function`` of each member's arguments, and of what all share, in a compiled program.

    On CPU one after the other: a core has nothing to gain from wider products, and conditions stay conditions.
    On an accelerator side by side. Each of several devices runs the program of its own members.

    Args:
        function: of one member's part of each of ``stacked``, and then of ``shared``. With several devices it cannot
            close over arrays.
        stacked: pytrees with a leading axis of members.
        shared: pytrees that every member reads whole.
    """

    def here(stacked: tuple[Any, ...], shared: tuple[Any, ...]) -> _T:
        if jax.default_backend() == "cpu":
            return jax.lax.map(lambda one: function(*one, *shared), stacked)
        return jax.vmap(lambda *one: function(*one, *shared))(*stacked)

    devices = devices_of(_count(stacked))
    if len(devices) == 1:
        return here(stacked, shared)
    # Members never exchange anything, so there is nothing for JAX to check in how values vary between devices.
    mapped = jax.shard_map(
        here,
        mesh=_mesh(devices),
        in_specs=(PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    return mapped(stacked, shared)


def _keys(members: Sequence[Member], purpose: str) -> Key[Array, " members"]:
    return jnp.stack([jax.random.key(derived_seed(member.seed, purpose)) for member in members])


def _count(stacked: Any) -> int:
    return jax.tree.leaves(stacked)[0].shape[0]


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))


def _put(tree: _T, members: int, spec: PartitionSpec) -> _T:
    devices = devices_of(members)
    # One device is named too: programs of arrays that only happen to be there would be compiled again after a resume.
    return jax.device_put(tree, NamedSharding(_mesh(devices), spec) if len(devices) > 1 else devices[0])

"""The compiled update: it is as many operations for many seeds as for one."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.gpu import operations, update_of_seeds
from benchmarks.update import Setup
from guidedflow.agents import AGENTS

PROGRAM = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %exponential.1 = f32[4]{0} exponential(%p)
  ROOT %add.1 = f32[4]{0} add(%exponential.1, %p)
}

%body.1 (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %state = (s32[], /*index=1*/f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%state), index=1
  %fusion.1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  %dot.1 = f32[4]{0} dot(%fusion.1, %x), lhs_contracting_dims={}, rhs_contracting_dims={}
  ROOT %tuple.1 = (s32[], /*index=1*/f32[4]{0}) tuple(%i, %dot.1)
}

%condition.1 (state: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%called (p: f32[4]) -> f32[4] {
  ROOT %copy.1 = f32[4]{0} copy(%p)
}

%two (p: f32[4]) -> f32[4] {
  %copy.2 = f32[4]{0} copy(%p)
  ROOT %copy.3 = f32[4]{0} copy(%copy.2)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %t = (s32[], /*index=1*/f32[4]{0}) tuple(%zero, %x)
  %while.1 = (s32[], /*index=1*/f32[4]{0}) while(%t), condition=%condition.1, body=%body.1, backend_config={%s}
  %y = f32[4]{0} get-tuple-element(%while.1), index=1
  %call.1 = f32[4]{0} call(%y), to_apply=%called, metadata={op_name="call"}
  %conditional.1 = f32[4]{0} conditional(%which, %y, %y), branch_computations={%called, %two}
  %start = (f32[4]{0}, f32[4]{0}, u32[]) copy-start(%conditional.1)
  %done = f32[4]{0} copy-done(%start)
  ROOT %custom-call.1 = f32[4]{0} custom-call(%done), custom_call_target="gemm"
}
"""


@pytest.mark.parametrize(("trips", "rounds"), [('"known_trip_count":{"n":"10"}', 10), ("", 1)])
def test_operations_are_counted_as_often_as_they_run(trips, rounds):
    call, longest_branch, copy, gemm = 1, 2, 1, 1
    assert operations(PROGRAM.replace("%s", trips)) == 2 * rounds + call + longest_branch + copy + gemm


def test_the_count_reads_what_this_compiler_writes():
    def program(x, rounds):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, None, length=rounds)[0]

    def count(rounds):
        return operations(jax.jit(program, static_argnums=1).lower(jnp.ones((8, 8)), rounds).compile().as_text())

    each = (count(40) - count(20)) / 20
    assert each >= 1
    assert count(60) == count(20) + 40 * each


def setup(seeds):
    return Setup(hidden=(32, 32), batch_size=32, rows=2000, seeds=seeds)


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_what_the_compiler_gets_is_as_long_for_two_seeds_as_for_eight(agent):
    """For one seed it lacks a dozen broadcasts."""
    two, eight = (len(update_of_seeds(agent, setup(seeds)).as_text().splitlines()) for seeds in (2, 8))
    assert two == eight


@pytest.mark.slow
def test_the_compiled_update_of_gfp_does_not_grow_with_the_seeds():
    """The compiler may fuse a little otherwise: its CPU backend, one seed's products with their activations."""
    one, eight, many = (operations(update_of_seeds("gfp", setup(n)).compile().as_text()) for n in (1, 8, 32))
    assert one > 100
    assert eight <= 1.05 * one
    assert many <= 1.05 * one


@pytest.mark.slow
def test_a_loop_over_the_seeds_would_be_noticed(monkeypatch):
    def one_after_the_other(function, in_axes):
        def of_all(agents, keys, dataset):
            each = [
                function(jax.tree.map(lambda leaf, i=i: leaf[i], agents), key, dataset) for i, key in enumerate(keys)
            ]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

        return of_all

    one = operations(update_of_seeds("bc", setup(1)).compile().as_text())
    update_of_seeds("bc", setup(8))  # Its agents are made by a vmap of their own, once.
    monkeypatch.setattr("benchmarks.gpu.jax.vmap", one_after_the_other)
    looped = update_of_seeds("bc", setup(8))
    assert operations(looped.compile().as_text()) > 2 * one

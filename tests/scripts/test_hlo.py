"""What a program tells: the collectives of its loops, wherever they hide, and what a step costs."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from lstm_jax.training import parallel
from scripts import _hlo as hlo

EVERYWHERE = parallel.everywhere()


def compiled(f) -> str:
    """The optimised program of f(x [4], n) with x in shards over two devices."""
    shards, whole = PartitionSpec("trials"), PartitionSpec()
    sharded = jax.shard_map(
        f, mesh=EVERYWHERE, in_specs=(shards, whole), out_specs=shards, check_vma=False
    )
    lowered = jax.jit(sharded).lower(jnp.ones(2 * EVERYWHERE.size), jnp.int32(3))
    return lowered.compile().as_text() or ""


total = functools.partial(lax.psum, axis_name="trials")


def turned(x):
    return lax.ppermute(x, "trials", [(0, 1), (1, 0)])


def in_body(x, n):
    return lax.fori_loop(0, n, lambda i, x: x + total(x), x)


def in_condition(x, n):
    return lax.while_loop(lambda x: jnp.max(total(x)) < n * 10.0, lambda x: x + 1, x)


def in_an_inner_loop(x, n):
    def outer(i, x):
        return lax.scan(lambda x, _: (jnp.sin(turned(x)), None), x, length=5)[0]

    return lax.fori_loop(0, n, outer, x)


def in_a_branch(x, n):
    def body(i, x):
        return lax.cond(i > 1, lambda: jnp.sin(turned(x)), lambda: x)

    return lax.fori_loop(0, n, body, x)


def after_the_loop(x, n):
    return total(lax.fori_loop(0, n, lambda i, x: jnp.sin(x), x))


@pytest.mark.parametrize(
    ("f", "found"),
    [
        (in_body, {"all-reduce": 1}),
        (in_condition, {"all-reduce": 1}),
        (in_an_inner_loop, {"collective-permute": 1}),
        (in_a_branch, {"collective-permute": 1}),
        (after_the_loop, {}),
    ],
)
def test_collectives_of_a_loop_are_found_wherever_they_are(f, found, standard_promotion):
    text = compiled(f)
    assert " while(" in text
    assert ("all-reduce" in text) or ("collective-permute" in text)
    assert hlo.loop_collectives(text) == found


# As a TPU's compiler writes it: an outer loop of n turns, in it 100 cycles, and 4 turns of 30.
PROGRAM = """HloModule jit_f, is_scheduled=true

%few (p: (s32[])) -> pred[] {
  %p = (s32[]{:T(128)}) parameter(0)
  %c = s32[]{:T(128)} constant(4), metadata={op_name="while"}
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %c), direction=LT, metadata={op_name="cond/lt"}
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %g = (s32[], /*index=1*/f32[8]{0:T(8,128)S(1)}) fusion(%p), calls=%inside, backend_config={"a":{"estimated_cycles":"30"}}
}

%inside (p: f32[8]) -> f32[8] {
  ROOT %h = f32[8]{0:T(8,128)} add(%p, %p), backend_config={"estimated_cycles":"999"}
}

%any (p: (s32[])) -> pred[] {
  ROOT %and = pred[] fusion(%p), kind=kLoop, calls=%inside, backend_config={"estimated_cycles":"7"}
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w = (s32[], f32[8]{0:T(8,128)S(1)}) while(%p), condition=%few, body=%inner
  ROOT %x = f32[8]{0:T(8,128)} copy(%w), backend_config={"estimated_cycles":"100"}
}

ENTRY %main (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  %q = (s32[], f32[8]) copy(%p), backend_config={"estimated_cycles":"5000"}
  ROOT %v = (s32[], f32[8]{0:T(8,128)}) while(%q), condition=%any, body=%outer
}
"""  # noqa: E501


def test_a_step_costs_its_loops_as_often_as_they_turn():
    assert hlo.step_cycles(PROGRAM) == 100 + 4 * 30 + 7


def test_without_one_open_ended_loop_there_is_no_step():
    assert hlo.step_cycles(PROGRAM.replace("condition=%any", "condition=%few")) is None
    assert hlo.step_cycles(PROGRAM.replace("condition=%few", "condition=%any")) is None


def test_without_estimates_there_is_no_cost():
    assert hlo.step_cycles(PROGRAM.replace("estimated_cycles", "cycles")) is None


def test_kernels_are_counted():
    call = '  %lstm.1 = f32[8,128] custom-call(%a), custom_call_target="tpu_custom_call", x={}'
    assert hlo.kernels(f"{call}\n  %b = f32[8] add(%a, %a)\n{call}") == 2
    assert hlo.kernels(call.replace("tpu_custom_call", "Sharding")) == 0

"""The associative engine: all time steps of a linear cell in about 2 log2(T) passes.

The gates read the input only, and h_t = a_t * h_{t-1} + b_t. A time step is thus a pair (a_t, b_t).
The composition of two segments is a pair again:

    (a_1, b_1) then (a_2, b_2)  =  (a_2 * a_1, a_2 * b_1 + b_2)

A segment with a reset does not depend on earlier time steps: it is selected, not multiplied. The
gradient g_t of the state after time step t follows a recurrence of the same form, backwards:

    g_t = d_t + a_{t+1} * g_{t+1},    d_a_t = g_t * h_{t-1},    d_b_t = g_t
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, LinearCell
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import partition, reached, restart, where_row, zero_unless
from lstm_jax.engines.products import add_bias, assemble, dot, split
from lstm_jax.types import Array, CellParams, Noise, Row


@dataclasses.dataclass(frozen=True)
class Associative:
    """`lax.associative_scan` over time with a custom VJP, for a `LinearCell` only.

    It sums in another order than a loop, so results are equal up to rounding, also held states.
    """

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state, and `emit` of every state [T, B, ...].

        Raises:
          ValueError: T is symbolic, as in an export for any length.
        """
        if not isinstance(T := inputs.x.shape[0], int):
            raise ValueError(
                f"engine='associative' needs T as a number, got {T}: use engine='scan' for any T"
            )
        return _loop(cell, emit, inputs)

    def refuses(self, cell: Cell, dtype: Any = None) -> str | None:
        """Returns why it cannot run `cell`, or None if it can; any dtype is supported."""
        if not isinstance(cell, LinearCell):
            return "it is no LinearCell, with a `linear`"
        return "it draws noise" if cell.noisy else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loop(cell: Cell, emit: Callable, inputs: Inputs):
    return _loop_fwd(cell, emit, inputs)[0]


def _loop_fwd(cell, emit, inputs):
    before = inputs.state[0]
    a, b = _steps(cell, inputs.mask, inputs.params, inputs.x)
    if inputs.reset is None:
        a, b = jax.lax.associative_scan(_then, (a, b))
        states = a * before[None] + b
    else:
        steps = (a, restart(inputs.reset, a * inputs.initial[0][None] + b, b), inputs.reset)
        a, b, fresh = jax.lax.associative_scan(_then_with_resets, steps)
        states = where_row(fresh, b, a * before[None] + b)
    final = cell.State(jnp.concatenate([before[None], states])[-1])
    return (final, jax.vmap(emit)(cell.State(states))), (inputs, states)


def _loop_bwd(cell, emit, residuals, cotangents):
    inputs, states = residuals
    d_final, d_emitted = cotangents
    x, reset = inputs.x, inputs.reset
    if reset is not None:
        read = reached(reset, d_final, d_emitted)
        x, states, reset = zero_unless(read, x), zero_unless(read, states), reset | ~read
    (a, _), steps_back = jax.vjp(
        lambda params, x: _steps(cell, inputs.mask, params, x), inputs.params, x
    )
    emit_back = jax.vmap(lambda s, d: jax.vjp(emit, cell.State(s))[1](d)[0])
    (d_states,) = emit_back(states, d_emitted)
    # The state before the first time step is one more entry: it has a gradient, too.
    passed = a if reset is None else zero_unless(~reset, a)
    d_states = jnp.concatenate([jnp.zeros_like(d_final[0])[None], d_states])
    d_states = d_states.at[-1].add(d_final[0])
    passed = jnp.concatenate([passed, jnp.ones_like(d_final[0])[None]])
    _, g = jax.lax.associative_scan(_then, (passed, d_states), reverse=True)
    d_before, g = g[0], g[1:]
    previous = jnp.concatenate([inputs.state[0][None], states])[: len(states)]
    previous = restart(reset, inputs.initial[0], previous)
    d_params, d_x = steps_back((g * previous, g))
    d_initial = jnp.zeros_like(d_before)
    if reset is not None:
        d_initial = jnp.sum(partition(reset, a * g)[0], axis=0)
    d_states = cell.State(d_before), cell.State(d_initial)
    return (Inputs(d_params, d_x, *d_states, None, None, Noise()),)


_loop.defvjp(_loop_fwd, _loop_bwd)


def _steps(cell: Cell, mask: Array | None, params: CellParams, x: Array) -> tuple[Array, Array]:
    """Returns a and b [T, B, H], which are 1 and 0 where masked."""
    assert isinstance(cell, LinearCell)
    from_x = dot(zero_unless(mask, x), params.w_x, x.dtype)
    packed = add_bias(assemble(cell, from_x, from_x[..., :0]), params.b)
    gates = cell.Gates(**split(cell, tuple(cell.gates), packed))
    linear = jax.vmap(jax.vmap(cell.linear, in_axes=(0, None)), in_axes=(0, None))
    a, b, _ = linear(gates, params.theta)
    return where_row(mask, (a, b), (jnp.ones_like(a), jnp.zeros_like(b)))


def _then(first, second):
    return second[0] * first[0], second[0] * first[1] + second[1]


def _then_with_resets(first, second):
    """Returns `_then`, or the second segment alone if it has a reset."""
    fresh = second[2]
    a, b = where_row(fresh, second[:2], _then(first, second))
    return a, b, first[2] | fresh

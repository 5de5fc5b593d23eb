"""Masks and resets: selection by row, and gradients that ignore hidden values.

Masks and resets select; they never multiply. A NaN that they hide therefore cannot reach an output.
It could reach a gradient: the chain rule multiplies a cotangent of zero by a derivative of NaN.
Backward passes therefore replace values without a cotangent before they differentiate.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.types import Array, Row


def where_row(condition: Array | None, new: Row, old: Row) -> Row:
    """Returns `new` where `condition` [B] holds, else `old` [B, ...]; `new` if it is None."""
    if condition is None:
        return new

    def chosen(n, o):
        return jnp.where(jnp.expand_dims(condition, range(condition.ndim, o.ndim)), n, o)

    return jax.tree.map(chosen, new, old)


def zero_unless(mask: Array | None, values: Row) -> Row:
    """Returns `values` where `mask` holds and zeros elsewhere."""
    return where_row(mask, values, jax.tree.map(jnp.zeros_like, values))


def restart(reset: Array | None, initial: Row, state: Row) -> Row:
    """Returns the state before a time step: `initial` where a sequence starts."""
    return state if reset is None else where_row(reset, initial, state)


def partition(condition: Array, row: Row) -> tuple[Row, Row]:
    """Returns `row` where `condition` holds, and `row` where it does not, zeros elsewhere."""
    zeros = jax.tree.map(jnp.zeros_like, row)
    return where_row(condition, row, zeros), where_row(condition, zeros, row)


def has_cotangent(d_values: Any) -> Array:
    """Returns [..., B]: True where a cotangent [..., B, width] is not zero."""
    nonzero = [jnp.any(leaf != 0, axis=-1) for leaf in jax.tree.leaves(d_values)]
    return functools.reduce(jnp.logical_or, nonzero)


def reached(reset: Array, d_final: Row, d_emitted: Any) -> Array:
    """Returns [T, B]: True where a cotangent follows before the next reset.

    reached_t = has_cotangent_t or (reached_{t+1} and not reset_{t+1})
    """

    def back(later, step):
        own, reset_t = step
        now = own | later
        return now & ~reset_t, now

    steps = (has_cotangent(d_emitted), reset)
    return jax.lax.scan(back, has_cotangent(d_final), steps, reverse=True)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def map_rows(f: Callable, rows: Any, shared: Any) -> Any:
    """Returns f(rows, shared), where rows without a cotangent have no gradient.

    Rows are the entries of the axes [T, B]. They have no gradient even where they are NaN. `f`
    closes over no traced value.
    """
    return f(rows, shared)


def _map_rows_fwd(f, rows, shared):
    return f(rows, shared), (rows, shared)


def _map_rows_bwd(f, operands, d_values):
    rows, shared = operands
    return jax.vjp(f, zero_unless(has_cotangent(d_values), rows), shared)[1](d_values)


map_rows.defvjp(_map_rows_fwd, _map_rows_bwd)


def emitted(emit: Callable[[Row], Any], states: Row, reset: Array | None) -> Any:
    """Returns `emit` of states [T, B, width]; with resets, by `map_rows`."""
    if reset is None:
        return jax.vmap(emit)(states)
    return map_rows(functools.partial(_emit_all, emit), states, ())


def _emit_all(emit: Callable, states: Row, shared: tuple[()]) -> Any:
    del shared
    return jax.vmap(emit)(states)

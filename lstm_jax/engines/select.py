"""Masks and resets at one instant."""

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


def begin(reset: Array | None, initial: Row, state: Row) -> Row:
    """Returns the state an instant starts from: `initial` where a sequence begins."""
    return state if reset is None else where_row(reset, initial, state)


def parted(condition: Array, row: Row) -> tuple[Row, Row]:
    """Returns `row` where `condition` holds, and `row` where it does not, zeros elsewhere."""
    zeros = jax.tree.map(jnp.zeros_like, row)
    return where_row(condition, row, zeros), where_row(condition, zeros, row)

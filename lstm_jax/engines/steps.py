"""One time step of a fused kernel, forward and backward, on a tile of rows.

The bodies of all kernels share these equations. Every gate, state and vector of theta is a matrix
[rows, units]. A kernel brings the recurrent product, since where the weights lie, and how rows are
multiplied with them, depends on the chip.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_parts
from lstm_jax.types import Array, Row

Parts = tuple[Array, ...]  # one array for each vector of the feedback, or for each block
Product = Callable[[Parts], Parts]


class Fixed(NamedTuple):
    """The values of a tile that all time steps share.

    Attributes:
      theta: the cell's small vectors.
      initial: the state at sequence starts; None without resets.
      keep: factors of the vectors of the feedback; None for no factors.
    """

    theta: Row
    initial: Row | None
    keep: Parts | None


class Given(NamedTuple):
    """The inputs of a time step.

    Attributes:
      packed: pre-activations, by gate; backward with the recurrent product, forward without it.
      draws: random vectors; None without noise.
      mask: [rows, 1] or [rows, units], 0 where the state is held; None without a mask.
      reset: the same, not 0 where a sequence starts; None without resets.
    """

    packed: Parts
    draws: Row | None
    mask: Array | None
    reset: Array | None


def unchanged(function: Callable) -> Callable:
    """Returns `function`."""
    return function


def step(
    cell: Cell,
    fixed: Fixed,
    product: Product,
    given: Given,
    state: Row,
    adapt: Callable[[Callable], Callable] = unchanged,
) -> Row:
    """Returns the state after a time step.

    `product` maps the vectors of the feedback to the terms of the blocks that read the state, and
    `adapt` functions of arrays to equal ones that the chip's compiler has.
    """
    start = state if given.reset is None else _where(given.reset, fixed.initial, state)
    gates = dict(zip(cell.gates, _widen(given.packed, start[0].dtype), strict=True))
    terms = product(adapt(_fed_back(cell, fixed.keep))(start)) if cell.h_blocks else ()
    for name, term in zip(cell.h_blocks, terms, strict=True):
        gates[name] += term
    new = adapt(_updated(cell, given.draws))(cell.Gates(**gates), start, fixed.theta)
    return new if given.mask is None else _where(given.mask, new, start)


def step_back(
    cell: Cell,
    fixed: Fixed,
    product: Product,
    given: Given,
    start: Row,
    carry: tuple[Row, Row, Row | None],
    write: Callable[[Row], None],
    adapt: Callable[[Callable], Callable] = unchanged,
) -> tuple[Row, Row, Row | None]:
    """Returns the carry before a time step: gradients of state, theta and the initial state.

    `product` maps the gradients of the blocks that read the state to those of the feedback, `start`
    is the state before the time step, after resets, and `write` stores the gradients of the gates,
    before the product.
    """
    d_state, d_theta, d_initial = carry
    mask, reset = given.mask, given.reset
    d_new = d_state if mask is None else _where(mask, d_state, zeros(d_state))
    gates = cell.Gates(*_widen(given.packed, d_state[0].dtype))
    update_back = adapt(_pullback(_updated(cell, given.draws)))
    d_gates, d_start, d_theta_t = update_back(d_new, gates, start, fixed.theta)
    write(d_gates)
    if cell.h_blocks:
        d_feedback = product(tuple(getattr(d_gates, name) for name in cell.h_blocks))
        feedback_back = adapt(_pullback(_fed_back(cell, fixed.keep)))
        d_start = add(d_start, feedback_back(d_feedback, start)[0])
    if mask is not None:
        d_start = add(d_start, _where(mask, zeros(d_state), d_state))
    if reset is not None:
        d_initial = add(d_initial, _where(reset, d_start, zeros(d_start)))
        d_start = _where(reset, zeros(d_start), d_start)
    return d_start, add(d_theta, d_theta_t), d_initial


def add(total: Any, part: Any) -> Any:
    """Returns the sums of two trees of arrays."""
    return jax.tree.map(jnp.add, total, part)


def zeros(row: Row) -> Row:
    """Returns zeros like `row`."""
    return jax.tree.map(jnp.zeros_like, row)


def _pullback(function: Callable) -> Callable:
    """Returns the function of a cotangent and arguments to the gradients of the arguments."""
    return lambda cotangent, *arguments: jax.vjp(function, *arguments)[1](cotangent)


def _updated(cell: Cell, draws: Row | None) -> Callable[[Row, Row, Row], Row]:
    """Returns the cell's `update` over the rows of a tile, without the activated gates."""
    optional = () if draws is None else (draws,)
    return lambda *arguments: jax.vmap(cell.update)(*arguments, *optional)[0]


def _fed_back(cell: Cell, keep: Parts | None) -> Callable[[Row], Parts]:
    def feedback(state):
        parts = jax.vmap(lambda row: feedback_parts(cell, row))(state)
        return parts if keep is None else tuple(map(jnp.multiply, parts, keep))

    return feedback


def _where(flags: Array, new: Any, old: Any) -> Any:
    """Returns `new` where the flag of a row is not 0, else `old`."""

    def select(n, o):
        return jnp.where(jnp.broadcast_to(flags, n.shape) != 0, n, o)

    return jax.tree.map(select, new, old)


def _widen(packed: Parts, dtype: Any) -> Parts:
    return tuple(block.astype(dtype) for block in packed)

"""The associative engine: all instants of a linear cell together, in about 2 log2(T) passes.

With gates that read the input only and h_t = a_t * h_{t-1} + b_t, an instant is a pair (a_t, b_t),
and so is one stretch of time after another:

    (a_1, b_1) then (a_2, b_2)  =  (a_2 * a_1, a_2 * b_1 + b_2)
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, LinearCell
from lstm_jax.engines.products import add_bias, assemble, dot, split
from lstm_jax.engines.select import begin, where_row
from lstm_jax.types import Array, CellParams, Noise, Row

Stretch = tuple[Array, Array]  # a and b: what becomes of the state over a stretch of time


@dataclasses.dataclass(frozen=True)
class Associative:
    """`lax.associative_scan` over time, differentiated by JAX, for a `LinearCell` only.

    Sums are made in another order than in a loop: equal to it up to rounding, held states too.
    """

    def loop(
        self,
        cell: Cell,
        emit: Callable[[Row], Row],
        params: CellParams,
        x: Array,
        state: Row,
        initial: Row,
        mask: Array | None,
        reset: Array | None,
        noise: Noise,
    ) -> tuple[Row, Row]:
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""
        del noise  # a linear cell draws none, and what it feeds back is not read
        instants = where_row(mask, _instants(cell, params, x), _still(x, state[0]))
        instants = begin(reset, _from(initial[0], instants), instants)
        a, b = jax.lax.associative_scan(_then, instants)
        states = a * state[0][None] + b
        final = jnp.concatenate([state[0][None], states])[-1]
        return cell.State(final), jax.vmap(emit)(cell.State(states))

    def refuses(self, cell: Cell, dtype: Any = None) -> str | None:
        """Returns why it cannot run `cell`, whatever the dtype of x, or None where it can."""
        if not isinstance(cell, LinearCell):
            return "it is no LinearCell, with a `linear`"
        return "it draws noise" if cell.noisy else None


def _instants(cell: Cell, params: CellParams, x: Array) -> Stretch:
    """Returns a and b [T, B, H] of every instant."""
    assert isinstance(cell, LinearCell)
    from_x = dot(x, params.w_x, x.dtype)
    packed = add_bias(assemble(cell, from_x, from_x[..., :0]), params.b)
    gates = cell.Gates(**split(cell, tuple(cell.gates), packed))
    linear = jax.vmap(jax.vmap(cell.linear, in_axes=(0, None)), in_axes=(0, None))
    a, b, _ = linear(gates, params.theta)
    return a, b


def _still(x: Array, state: Array) -> Stretch:
    """Returns instants that leave every state as it is."""
    shape = (len(x), *state.shape)
    return jnp.ones(shape, state.dtype), jnp.zeros(shape, state.dtype)


def _from(start: Array, instants: Stretch) -> Stretch:
    """Returns `instants`, each of them from `start` [B, H], whatever went before."""
    a, b = instants
    return jnp.zeros_like(a), a * start[None] + b


def _then(first: Stretch, second: Stretch) -> Stretch:
    return second[0] * first[0], second[0] * first[1] + second[1]

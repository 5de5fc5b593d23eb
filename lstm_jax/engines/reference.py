"""The reference engine: `lax.scan` over time steps, differentiated by JAX.

All other engines are tested against it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import reached, restart, where_row, zero_unless
from lstm_jax.engines.products import advance, fed_back, preactivations
from lstm_jax.types import Row


@dataclasses.dataclass(frozen=True)
class Reference:
    """The reference engine: simple, slow, and the only one with forward-mode derivatives.

    With resets it has a reverse-mode rule: a segment without a cotangent has no gradient, even
    where its values are NaN. Forward mode then needs `Reference(forward=True)`, without that rule.

    Attributes:
      forward: whether loops with resets support forward mode instead of the reverse-mode rule.
    """

    forward: bool = False

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state, and `emit` of every state [T, B, ...]."""
        if self.forward:
            return _scan(cell, emit, inputs, None)
        return run_loop(cell, emit, inputs)

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: this engine runs every cell."""


def run_loop(
    cell: Cell, emit: Callable[[Row], Any], inputs: Inputs, added: Row | None = None
) -> tuple[Row, Any]:
    """Runs `one_step` over time; returns the final state, and `emit` of every state.

    `added`, each [T, B, width], is added to the states. With resets, time steps without a
    cotangent have no gradient.
    """
    run = _scan if inputs.reset is None else _scan_with_resets
    return run(cell, emit, inputs, added)


def _scan(cell: Cell, emit: Callable, inputs: Inputs, added: Row | None) -> tuple[Row, Any]:
    def body(state, step):
        x_t, mask_t, reset_t, key, added_t = step
        now = inputs._replace(
            x=x_t, state=state, mask=mask_t, reset=reset_t, noise=inputs.noise._replace(keys=key)
        )
        state = one_step(cell, now)
        if added_t is not None:
            state = jax.tree.map(jnp.add, state, added_t)
        return state, emit(state)

    steps = (inputs.x, inputs.mask, inputs.reset, inputs.noise.keys, added)
    return jax.lax.scan(body, inputs.state, steps)


def one_step(cell: Cell, inputs: Inputs) -> Row:
    """Returns the state after one time step.

    Here x is [B, D], mask and reset are [B], and `noise.keys` is one key.
    """
    params, x, state, initial, mask, reset, noise = inputs
    start = restart(reset, initial, state)
    x = zero_unless(mask, x)
    packed = preactivations(cell, params, x, fed_back(cell, start, noise.keep))
    new, _ = advance(cell, packed, start, params.theta, noise.keys)
    return where_row(mask, new, start)


_scan_with_resets = jax.custom_vjp(_scan, nondiff_argnums=(0, 1))


def _fwd(cell, emit, inputs, added):
    return _scan(cell, emit, inputs, added), (inputs, added)


def _bwd(cell, emit, operands, cotangents):
    inputs, added = operands
    read = reached(inputs.reset, *cotangents)
    # Time steps without a cotangent restart from the initial state, with an input of zero.
    clean = inputs._replace(x=zero_unless(read, inputs.x), reset=inputs.reset | ~read)
    return jax.vjp(functools.partial(_scan, cell, emit), clean, added)[1](cotangents)


_scan_with_resets.defvjp(_fwd, _bwd)

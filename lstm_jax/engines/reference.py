"""The reference engine: `lax.scan` over time steps, differentiated by JAX.

All other engines are tested against it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from lstm_jax.cells import Cell
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import reached, restart, where_row, zero_unless
from lstm_jax.engines.products import advance, fed_back, preactivations
from lstm_jax.types import Row

Loop = Callable[[Cell, Callable[[Row], Any], Inputs], tuple[Row, Any]]


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
        if inputs.reset is None or self.forward:
            return run_loop(cell, emit, inputs)
        return differentiable(run_loop, cell, emit, inputs)

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: this engine runs every cell."""


def run_loop(cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
    """Runs `one_step` over time; returns the final state, and `emit` of every state."""

    def body(state, step):
        x_t, mask_t, reset_t, key = step
        now = inputs._replace(
            x=x_t, state=state, mask=mask_t, reset=reset_t, noise=inputs.noise._replace(keys=key)
        )
        state = one_step(cell, now)
        return state, emit(state)

    steps = (inputs.x, inputs.mask, inputs.reset, inputs.noise.keys)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def differentiable(loop: Loop, cell: Cell, emit: Callable, inputs: Any) -> tuple[Row, Any]:
    """Returns loop(cell, emit, inputs); time steps without a cotangent have no gradient."""
    return loop(cell, emit, inputs)


def _fwd(loop, cell, emit, inputs):
    return loop(cell, emit, inputs), inputs


def _bwd(loop, cell, emit, inputs, cotangents):
    read = reached(inputs.reset, *cotangents)
    # Time steps without a cotangent restart from the initial state, with an input of zero.
    clean = inputs._replace(x=zero_unless(read, inputs.x), reset=inputs.reset | ~read)
    return jax.vjp(functools.partial(loop, cell, emit), clean)[1](cotangents)


differentiable.defvjp(_fwd, _bwd)

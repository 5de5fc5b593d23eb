"""A cell over time: `step`, `unroll`, and `trace`, which also returns states and gates."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell
from lstm_jax.engines import checks
from lstm_jax.engines.choice import Engine, resolve
from lstm_jax.engines.inputs import Inputs, prepare
from lstm_jax.engines.masking import emitted, map_rows, restart, zero_unless
from lstm_jax.engines.products import advance, fed_back, preactivations
from lstm_jax.engines.reference import one_step
from lstm_jax.types import Array, ArrayLike, CellParams, Noise, Row


class Trace(NamedTuple):
    """The states, activated gates and outputs of one loop.

    Attributes:
      final: the state after the last time step, each [B, width].
      h: [T, B, H] outputs, zero where masked.
      states: the state after every time step, each [T, B, width]; held where masked.
      gates: the activated gates of every time step, each [T, B, width].
    """

    final: Row
    h: Array
    states: Row
    gates: Row


def step(
    cell: Cell,
    params: CellParams,
    state: Row,
    x_t: ArrayLike,
    *,
    initial: Row | None = None,
    mask_t: ArrayLike | None = None,
    reset_t: ArrayLike | None = None,
    noise: Noise | None = None,
) -> tuple[Row, Array]:
    """Advances a batch by one time step, for streaming.

    It equals `unroll` of a sequence of length one. See `unroll` for `state` and `initial`.

    Args:
      cell: the recurrent cell.
      params: its parameters.
      state: the state before this time step, each [B, width].
      x_t: [B, D] the input at this time step.
      initial: the state at sequence starts, each [width] or [B, width]; zeros by default.
      mask_t: [B] bool; where False the state is held and the output is zero.
      reset_t: [B] bool; where True the state becomes `initial` before the time step.
      noise: the key of this time step and the factor of the feedback; none by default.

    Returns:
      The next state and the output [B, H].

    Raises:
      ValueError: a shape does not fit; TypeError: a dtype or the type of state does not.
    """
    inputs = prepare(cell, params, x_t, state, initial, mask_t, reset_t, noise, axes=("B",))
    state = one_step(cell, inputs)
    return state, zero_unless(inputs.mask, _outputs(cell, inputs.x.dtype, state))


def unroll(
    cell: Cell,
    params: CellParams,
    x: ArrayLike,
    state: Row | None = None,
    *,
    initial: Row | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    noise: Noise | None = None,
    engine: str | Engine = "auto",
    checked: bool = False,
) -> tuple[Row, Array]:
    """Runs a cell over time.

        gates_t = x_t w_x + feedback(state_{t-1}) w_h + b
        state_t = update(gates_t, state_{t-1})
        h_t     = output(state_t)

    `state` is the state before the first time step, such as the final state of an earlier call. It
    is Flax's carry (`initial_carry`) and torch's (h_0, c_0). `initial` is the state from which each
    sequence starts: after every reset, and at the first time step if `state` is None. Flax and
    torch have no resets, so `initial` has no counterpart there.

    The dtype of x is the dtype of computation, whatever the dtype of the parameters. Matrix
    products round their operands to it, and the outputs have it. Sums, gates, states and sums of
    gradients have float32 at least.

    Args:
      cell: the recurrent cell.
      params: its parameters.
      x: [T, B, D] inputs, floats.
      state: the state before the call, each [B, width], float32 at least; `initial` by default.
      initial: the state at sequence starts, each [width] or [B, width]; zeros by default.
      mask: [T, B] bool; where False the state is held and the output is zero.
      reset: [T, B] bool; where True the state becomes `initial` before the time step, also where
        the mask is False.
      noise: keys for a noisy cell, and the factor of the feedback; none by default.
      engine: "auto", "reference", "scan", "scan_sqrt", "associative", "pallas", "mosaic", or an
        instance.
      checked: asserts with chex that all values are finite and in the cell's `ranges`; inside `jit`
        wrap the whole function in `chex.chexify(..., async_check=False)`.

    Returns:
      The final state, each [B, width], and the outputs [T, B, H].

    Raises:
      ValueError: a shape does not fit, or the engine cannot run the cell; TypeError: a dtype or the
        type of state does not.
      AssertionError: with `checked`, a value is not finite or outside its range.
    """
    if checked:
        recorded = trace(
            cell, params, x, state, initial=initial, mask=mask, reset=reset, noise=noise,
            engine=engine, checked=True,
        )  # fmt: skip
        return recorded.final, recorded.h
    inputs = prepare(cell, params, x, state, initial, mask, reset, noise)
    engine = resolve(engine, cell, dtype=inputs.x.dtype)
    emit = functools.partial(_outputs, cell, inputs.x.dtype)
    final, h = engine.loop(cell, emit, inputs)
    return final, zero_unless(inputs.mask, h)


def trace(
    cell: Cell,
    params: CellParams,
    x: ArrayLike,
    state: Row | None = None,
    *,
    initial: Row | None = None,
    mask: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    noise: Noise | None = None,
    engine: str | Engine = "auto",
    checked: bool = False,
) -> Trace:
    """Runs `unroll` and also returns all states and all activated gates.

    The gates are computed from the engine's states, for all time steps at once. Arguments and
    errors are those of `unroll`.
    """
    inputs = prepare(cell, params, x, state, initial, mask, reset, noise)
    engine, dtype = resolve(engine, cell, dtype=inputs.x.dtype), inputs.x.dtype
    final, states = engine.loop(cell, _identity, inputs)
    h = emitted(functools.partial(_outputs, cell, dtype), states, inputs.reset)
    gates = _gates(cell, inputs, states)
    if checked:
        checks.check_values(cell, states, gates)
    return Trace(final, zero_unless(inputs.mask, h), states, gates)


def _outputs(cell: Cell, dtype: Any, state: Row) -> Array:
    return jax.vmap(cell.output)(state).astype(dtype)


def _identity(state: Row) -> Row:
    return state


def _gates(cell: Cell, inputs: Inputs, states: Row) -> Row:
    """Returns the activated gates of all time steps, computed from the states."""
    before = jax.tree.map(
        lambda s0, s: jnp.concatenate([s0[None], s])[: s.shape[0]], inputs.state, states
    )
    rows = zero_unless(inputs.mask, inputs.x), restart(inputs.reset, inputs.initial, before)
    shared = inputs.params, inputs.noise
    if inputs.reset is None:
        return _gates_of_rows(cell, rows, shared)
    return map_rows(functools.partial(_gates_of_rows, cell), rows, shared)


def _gates_of_rows(cell: Cell, rows: tuple[Array, Row], shared: tuple[CellParams, Noise]) -> Row:
    (x, start), (params, noise) = rows, shared
    feedback = jax.vmap(lambda s: fed_back(cell, s, noise.keep))(start)
    packed = preactivations(cell, params, x, feedback)
    steps = jax.vmap(advance, in_axes=(None, 0, 0, None, 0))
    return steps(cell, packed, start, params.theta, noise.keys)[1]

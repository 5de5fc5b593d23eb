"""A cell over time: `step` one instant, `unroll` the loop, `trace` the loop with all it did."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, initial_state, wired
from lstm_jax.engines import doorway
from lstm_jax.engines.choice import Engine, resolve
from lstm_jax.engines.products import advance, fed_back, preactivations
from lstm_jax.engines.select import begin, zero_unless
from lstm_jax.types import Array, CellParams, Noise, Row, wide


class Trace(NamedTuple):
    """Everything a loop did.

    Attributes:
      final: the state after the last instant, each [B, width].
      h: [T, B, H] outputs, zero where masked.
      states: the state after every instant, each [T, B, width]; held where masked.
      gates: the activated gates of every instant, each [T, B, width].
    """

    final: Row
    h: Array
    states: Row
    gates: Row


def step(
    cell: Cell, params: CellParams, state: Row, x_t: Array, *, noise: Noise | None = None
) -> tuple[Row, Array]:
    """Advances a batch of rows by one instant, for streaming.

    Args:
      cell: the recurrent cell.
      params: its parameters.
      state: the state before this instant, each [B, width].
      x_t: [B, D] the input at this instant.
      noise: the one key of this instant and what multiplies the feedback; none by default.

    Returns:
      The next state and the output [B, H].

    Raises:
      ValueError: a shape does not fit; TypeError: a dtype or the kind of state does not.
    """
    doorway.check_params(cell, params)
    doorway.check_input("x_t", x_t, ("B", "D"), params)
    doorway.check_state("state", cell, state, x_t.shape[0], wide(x_t.dtype))
    keys, keep = doorway.checked_noise(cell, noise, (), x_t)
    params = wired(cell, doorway.widened(params, x_t))
    packed = preactivations(cell, params, x_t, fed_back(cell, state, keep))
    state, _ = advance(cell, packed, state, params.theta, keys)
    return state, jax.vmap(cell.output)(state).astype(x_t.dtype)


def unroll(
    cell: Cell,
    params: CellParams,
    x: Array,
    state: Row | None = None,
    *,
    initial: Row | None = None,
    mask: Array | None = None,
    reset: Array | None = None,
    noise: Noise | None = None,
    engine: str | Engine = "auto",
    checked: bool = False,
) -> tuple[Row, Array]:
    """Runs a cell over time.

        gates_t = x_t w_x + feedback(state_{t-1}) w_h + b
        state_t = update(gates_t, state_{t-1})
        h_t     = output(state_t)

    The dtype of x is that of computation, whatever the parameters': the products take operands
    rounded to it, and the outputs have it. Sums, gates and states are kept in float32 at least, and
    so are the sums of gradients.

    Args:
      cell: the recurrent cell.
      params: its parameters.
      x: [T, B, D] inputs, floats.
      state: where the call starts, each [B, width], float32 at least; `initial` by default.
      initial: where a sequence starts, each [width] or [B, width]; zeros by default.
      mask: [T, B] bool; where False the state is held and the output is zero.
      reset: [T, B] bool; where True the state becomes `initial` before the instant, also where the
        mask is False.
      noise: keys for a noisy cell, and what multiplies the feedback; none by default.
      engine: what runs the loop: "auto", "reference", "scan", "associative", "pallas", or an
        instance.
      checked: asserts with chex that everything is finite and in the cell's `ranges`; inside `jit`
        wrap the whole function in `chex.chexify(..., async_check=False)`.

    Returns:
      The final state, each [B, width], and the outputs [T, B, H].

    Raises:
      ValueError: a shape does not fit, or the engine cannot run the cell; TypeError: a dtype or the
        kind of state does not.
      AssertionError: with `checked`, a value is not finite or outside its range.
    """
    if checked:
        kept = trace(
            cell, params, x, state, initial=initial, mask=mask, reset=reset, noise=noise,
            engine=engine, checked=True,
        )  # fmt: skip
        return kept.final, kept.h
    engine, params, state, initial, noise = _enter(
        cell, params, x, state, initial, mask, reset, noise, engine
    )
    final, h = engine.loop(
        cell,
        lambda state: jax.vmap(cell.output)(state).astype(x.dtype),
        params, x, state, initial, mask, reset, noise,
    )  # fmt: skip
    return final, zero_unless(mask, h)


def trace(
    cell: Cell,
    params: CellParams,
    x: Array,
    state: Row | None = None,
    *,
    initial: Row | None = None,
    mask: Array | None = None,
    reset: Array | None = None,
    noise: Noise | None = None,
    engine: str | Engine = "auto",
    checked: bool = False,
) -> Trace:
    """Is `unroll`, and returns every state and every activated gate as well.

    The gates are made again from the engine's states, all instants at once. Arguments and errors
    are those of `unroll`.
    """
    engine, params, state, initial, noise = _enter(
        cell, params, x, state, initial, mask, reset, noise, engine
    )
    final, states = engine.loop(cell, lambda s: s, params, x, state, initial, mask, reset, noise)
    start = jax.tree.map(lambda s0, s: jnp.concatenate([s0[None], s])[: len(x)], state, states)
    start = begin(reset, initial, start)
    feedback = jax.vmap(lambda s: fed_back(cell, s, noise.keep))(start)
    packed = preactivations(cell, params, x, feedback)
    instants = jax.vmap(advance, in_axes=(None, 0, 0, None, 0))
    _, gates = instants(cell, packed, start, params.theta, noise.keys)
    h = zero_unless(mask, jax.vmap(jax.vmap(cell.output))(states).astype(x.dtype))
    if checked:
        doorway.check_values(cell, states, gates)
    return Trace(final, h, states, gates)


def _enter(cell, params, x, state, initial, mask, reset, noise, engine):
    doorway.check_params(cell, params)
    doorway.check_input("x", x, ("T", "B", "D"), params)
    doorway.check_flags("mask", mask, x.shape[:2])
    doorway.check_flags("reset", reset, x.shape[:2])
    B, dtype = x.shape[1], wide(x.dtype)
    initial = initial_state(cell, (B,), dtype) if initial is None else initial
    doorway.check_kind("initial", cell, initial)
    initial = jax.tree.map(lambda s: jnp.tile(s, (B, 1)) if s.ndim == 1 else s, initial)
    doorway.check_state("initial", cell, initial, B, dtype)
    state = initial if state is None else state
    doorway.check_state("state", cell, state, B, dtype)
    noise = doorway.checked_noise(cell, noise, x.shape[:1], x)
    params = wired(cell, doorway.widened(params, x))
    return resolve(engine, cell, dtype=x.dtype), params, state, initial, noise

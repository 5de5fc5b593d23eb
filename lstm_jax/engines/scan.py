"""The scan engine: `lax.scan` with a backward pass of our own, in chunks of instants.

The forward loop saves the states and nothing else. The backward loop walks over chunks of instants,
the last one first: one matrix product rebuilds a chunk's pre-activations from its states, which are
known by then; an inner loop goes back through its instants by the `jax.vjp` of the cell's `update`;
and one matrix product makes the chunk's share of every weight gradient, where plain autodiff reads,
adds to and writes all of it at every instant. Chunks are small enough to stay in cache.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell
from lstm_jax.engines.inputs import Inputs
from lstm_jax.engines.masking import partition, reached, restart, where_row, zero_unless
from lstm_jax.engines.products import (
    add_bias,
    advance,
    assemble,
    columns,
    dot,
    fed_back,
    joined_preactivations,
    preactivations,
    reads_both,
    rounded,
    rows,
    times_w_h,
    transpose_w_h,
)
from lstm_jax.types import Array, CellParams, Noise, Row

PRODUCTS = ("joined", "hoisted")
RESIDUALS = ("rebuilt", "saved")


@dataclasses.dataclass(frozen=True)
class Scan:
    """`lax.scan` with a custom VJP; `jax.jvp` of the loop itself is for `Reference`.

    Attributes:
      product: "joined" multiplies [x, h] by [w_x; w_h] at every instant, for cells whose every
        gate reads both; "hoisted" multiplies all inputs by w_x before the loop.
      residuals: "rebuilt" saves the states and makes the pre-activations again in the backward
        pass; "saved" keeps them too: more memory, one matrix product less.
      chunk: the most instants whose weight gradients are made by one product; None for 16, or as
        many as make 256 rows of a narrow batch.
      unroll: instants in one iteration of the compiled loops.
    """

    product: str = "joined"
    residuals: str = "rebuilt"
    chunk: int | None = None
    unroll: int = 1

    def __post_init__(self):
        if self.product not in PRODUCTS:
            raise ValueError(f"product must be one of {PRODUCTS}, got {self.product!r}")
        if self.residuals not in RESIDUALS:
            raise ValueError(f"residuals must be one of {RESIDUALS}, got {self.residuals!r}")
        if (self.chunk is not None and self.chunk < 1) or self.unroll < 1:
            raise ValueError(
                f"chunk and unroll must be positive, got {self.chunk} and {self.unroll}"
            )

    def loop(self, cell: Cell, emit: Callable[[Row], Any], inputs: Inputs) -> tuple[Row, Any]:
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""
        return _loop(self, cell, emit, inputs)

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: it runs every cell."""


class Instants(NamedTuple):
    """What the backward pass knows of a stretch of time: [T, ...], [N, K, ...] or [K, ...].

    `read` is False where no cotangent reaches, None without resets; `packed` is None where the
    pre-activations are rebuilt; `before` is the state before the stretch, without its axis of
    instants.
    """

    x: Array
    states: Row
    d_emitted: Row
    mask: Array | None
    reset: Array | None
    read: Array | None
    keys: Array | None
    packed: Array | None
    before: Row


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _loop(engine: Scan, cell: Cell, emit: Callable, inputs: Inputs):
    return _forward(engine, cell, inputs, lambda state, packed: emit(state))


def _loop_fwd(engine, cell, emit, inputs):
    save = engine.residuals == "saved"
    final, (states, packed) = _forward(
        engine, cell, inputs, lambda state, packed: (state, packed if save else None)
    )
    return (final, jax.vmap(emit)(states)), (inputs, states, packed)


def _loop_bwd(engine, cell, emit, residuals, cotangents):
    inputs, states, packed = residuals
    d_final, d_emitted = cotangents
    reset, read = inputs.reset, None
    if reset is not None:  # a step that is not read starts afresh
        read = reached(reset, d_final, d_emitted)
        reset = reset | ~read
    known = Instants(
        inputs.x, states, d_emitted, inputs.mask, reset, read, inputs.noise.keys, packed,
        inputs.state,
    )  # fmt: skip
    zeros = jax.tree.map(jnp.zeros_like, (inputs.params, inputs.initial))
    carry, d_x = (d_final, *zeros), []
    for stretch in reversed(_stretches(_most(engine, inputs.x), known)):
        back = functools.partial(_chunk_back, engine, cell, emit, inputs)
        carry, d_x_n = jax.lax.scan(back, carry, stretch, reverse=True)
        N, K = stretch.x.shape[:2]
        d_x.insert(0, d_x_n.reshape(N * K, *inputs.x.shape[1:]))
    d_state, d_params, d_initial = carry
    d_x = jnp.concatenate(d_x) if d_x else jnp.zeros_like(inputs.x)
    return (Inputs(d_params, d_x, d_state, d_initial, None, None, Noise()),)


_loop.defvjp(_loop_fwd, _loop_bwd)


def _forward(engine: Scan, cell: Cell, inputs: Inputs, emit: Callable) -> tuple[Row, Any]:
    params, x, state, initial, mask, reset, noise = inputs
    multiply, from_x = _products(engine, cell, params, x)

    def instant(state, step):
        from_x_t, mask_t, reset_t, key = step
        start = restart(reset_t, initial, state)
        packed = multiply(from_x_t, fed_back(cell, start, noise.keep))
        new, _ = advance(cell, packed, start, params.theta, key)
        state = where_row(mask_t, new, start)
        return state, emit(state, packed)

    steps = (from_x, mask, reset, noise.keys)
    return jax.lax.scan(instant, state, steps, unroll=engine.unroll)


def _products(engine: Scan, cell: Cell, params: CellParams, x: Array):
    """Returns the product made at every instant, and what it takes from the input."""
    if _joins(engine, cell, params):
        assert isinstance(params.w_h, jax.Array)
        w = jnp.concatenate([params.w_x, params.w_h]).astype(x.dtype)

        def multiply_both(x_t, h):
            joined = jnp.concatenate([x_t, h.astype(x.dtype)], axis=-1)
            return add_bias(dot(joined, w, x.dtype), params.b)

        return multiply_both, x
    from_x = dot(rows(x), params.w_x, x.dtype).reshape(*x.shape[:2], params.w_x.shape[1])
    w_h = rounded(params.w_h, x.dtype)

    def multiply(from_x_t, h):
        return add_bias(assemble(cell, from_x_t, times_w_h(h, w_h, x.dtype)), params.b)

    return multiply, from_x


def _joins(engine: Scan, cell: Cell, params: CellParams) -> bool:
    return engine.product == "joined" and reads_both(cell) and isinstance(params.w_h, jax.Array)


def _both(mask: Array | None, read: Array | None) -> Array | None:
    if mask is None or read is None:
        return read if mask is None else mask
    return mask & read


def _add(total: Row, part: Row) -> Row:
    return jax.tree.map(jnp.add, total, part)


def _most(engine: Scan, x: Array) -> int:
    """Returns how many instants a chunk may have; 16 for a symbolic batch."""
    B = x.shape[1]
    return engine.chunk or (max(16, 256 // max(1, B)) if isinstance(B, int) else 16)


def _stretches(chunk: int, known: Instants) -> list[Instants]:
    """Cuts time into stretches of equal chunks [N, K, ...]; a second one holds a remainder.

    A symbolic T is one chunk.
    """
    T = known.x.shape[0]
    if not isinstance(T, int):
        return [_stretch(known, 0, 1, T)]
    even = max((k for k in range(1, min(chunk, T) + 1) if T % k == 0), default=1)
    K = even if 2 * even > chunk else min(chunk, T)
    cuts = [(0, T // K, K), (T - T % K, 1, T % K)] if T else []
    return [_stretch(known, *cut) for cut in cuts if cut[1] * cut[2]]


def _stretch(known: Instants, start: int, N: int, K: int) -> Instants:
    def cut(a):
        return a[start : start + N * K].reshape(N, K, *a.shape[1:])

    def last(before, states):
        ends = cut(states)[:-1, -1]
        return jnp.concatenate([states[start - 1][None] if start else before[None], ends])

    before = jax.tree.map(last, known.before, known.states)
    return jax.tree.map(cut, known._replace(before=()))._replace(before=before)


def _chunk_back(engine: Scan, cell: Cell, emit: Callable, inputs: Inputs, carry, known: Instants):
    """Goes back through one chunk; returns the carry before it and d_x [K, B, D]."""
    d_state, d_params, d_initial = carry
    params, (K, B), keep = inputs.params, known.x.shape[:2], inputs.noise.keep
    previous = jax.tree.map(
        lambda before, states: jnp.concatenate([before[None], states[:-1]]),
        known.before,
        known.states,
    )
    start = restart(known.reset, inputs.initial, previous)
    states = zero_unless(known.read, known.states)
    x, saved = zero_unless(_both(known.mask, known.read), (known.x, known.packed))
    feedback = jax.vmap(lambda s: fed_back(cell, s, keep))(start)
    product = joined_preactivations if _joins(engine, cell, params) else preactivations
    rebuilt, product_back = jax.vjp(
        lambda weights: product(cell, weights, rows(x), rows(feedback)),
        params._replace(theta=()),
    )
    packed = rebuilt.reshape(K, B, rebuilt.shape[-1]) if saved is None else saved
    transposed = rounded(transpose_w_h(params.w_h), x.dtype)
    back = functools.partial(_instant_back, cell, emit, params.theta, transposed, x.dtype, keep)
    (d_state, d_theta, d_initial), d_packed = jax.lax.scan(
        back,
        (d_state, d_params.theta, d_initial),
        (start, packed, states, known.d_emitted, known.mask, known.reset, known.keys),
        reverse=True,
        unroll=engine.unroll,
    )
    d_packed = rows(d_packed)
    (d_weights,) = product_back(d_packed)
    d_x = dot(columns(cell, cell.x_blocks, d_packed), params.w_x.T, x.dtype).astype(x.dtype)
    d_params = _add(d_params._replace(theta=()), d_weights)._replace(theta=d_theta)
    return (d_state, d_params, d_initial), d_x.reshape(x.shape)


def _instant_back(
    cell: Cell, emit: Callable, theta: Row, w_h_transposed, x_dtype, keep, carry, known
):
    """Goes back through one instant; returns the carry before it and d_packed [B, G].

    Noise is not known from the forward loop: it is drawn again, from the instant's key.
    """
    d_state, d_theta, d_initial = carry
    start, packed, state, d_emitted, mask, reset, key = known
    d_state = _add(d_state, jax.vjp(emit, state)[1](d_emitted)[0])
    d_new, d_held = (d_state, None) if mask is None else partition(mask, d_state)
    _, update_back = jax.vjp(lambda a, s, p: advance(cell, a, s, p, key)[0], packed, start, theta)
    d_packed, d_start, d_theta_t = update_back(d_new)
    if w_h_transposed is not None:
        d_feedback = times_w_h(columns(cell, cell.h_blocks, d_packed), w_h_transposed, x_dtype)
        _, feedback_back = jax.vjp(lambda s: fed_back(cell, s, keep), start)
        d_start = _add(d_start, feedback_back(d_feedback)[0])
    if d_held is not None:
        d_start = _add(d_start, d_held)
    if reset is not None:
        d_initial_t, d_start = partition(reset, d_start)
        d_initial = _add(d_initial, d_initial_t)
    return (d_start, _add(d_theta, d_theta_t), d_initial), d_packed

"""The scan engine: `lax.scan` with a custom backward pass, in chunks of time steps.

The forward loop saves only the states. The backward loop runs over chunks of time steps, from the
last to the first:

1. One matrix product recomputes the pre-activations of a chunk from its states.
2. An inner loop goes back through its time steps by the `jax.vjp` of the cell's `update`.
3. One matrix product gives the chunk's part of each weight gradient.

Automatic differentiation of the loop reads and writes the whole weight gradient at every time step.
Chunks are small enough to stay in cache.

With residuals="sqrt" the forward loop saves the state before each block of about sqrt(T) steps.
The backward pass runs each block again, from the last to the first, and then does as above.
"""

import dataclasses
import functools
import math
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
    as_matrix,
    assemble,
    columns,
    dot,
    fed_back,
    joined_preactivations,
    preactivations,
    reads_both,
    rounded,
    times_w_h,
    transpose_w_h,
)
from lstm_jax.types import Array, CellParams, Noise, Row

PRODUCTS = ("joined", "hoisted")
RESIDUALS = ("rebuilt", "saved", "sqrt")


@dataclasses.dataclass(frozen=True)
class Scan:
    """`lax.scan` with a custom VJP; for forward mode use `Reference`.

    Attributes:
      product: "joined" multiplies [x, h] by [w_x; w_h] at every time step, for cells in which every
        gate reads both; "hoisted" multiplies all inputs by w_x before the loop.
      residuals: "rebuilt" saves the states and recomputes the pre-activations in the backward pass;
        "saved" saves them too, with more memory and one matrix product less; "sqrt" saves about
        sqrt(T) states and runs the loop again in the backward pass.
      chunk: largest number of time steps in one product of weight gradients; None for 16, or more
        for a narrow batch, up to 256 rows.
      unroll: time steps in one iteration of the compiled loops.
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
        """Returns the final state, and `emit` of every state [T, B, ...]."""
        T = inputs.x.shape[0]
        if self.residuals == "sqrt" and isinstance(T, int) and T:
            return _loop_in_blocks(self, cell, emit, inputs)
        return _loop(self, cell, emit, inputs)  # an empty or symbolic T is one block

    def refuses(self, cell: Cell, dtype: Any = None) -> None:
        """Returns None: this engine runs every cell."""


def _loop_in_blocks(engine: Scan, cell: Cell, emit: Callable, inputs: Inputs) -> tuple[Row, Any]:
    """Runs `_loop` over blocks of about sqrt(T) time steps; only the states between them are saved.

    The backward pass holds the pre-activations of one block, so that it need not rebuild them.
    """
    within = dataclasses.replace(engine, residuals="saved")

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(state, steps):
        x, mask, reset, keys = steps
        here = inputs._replace(x=x, state=state, mask=mask, reset=reset)
        return _loop(within, cell, emit, here._replace(noise=inputs.noise._replace(keys=keys)))

    T, state, emitted = len(inputs.x), inputs.state, []
    for cut in _cuts(T, math.isqrt(T)):
        steps = _cut((inputs.x, inputs.mask, inputs.reset, inputs.noise.keys), *cut)
        state, emitted_n = jax.lax.scan(block, state, steps)
        emitted.append(jax.tree.map(lambda a: jax.lax.collapse(a, 0, 2), emitted_n))
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *emitted)


class Segment(NamedTuple):
    """Inputs of the backward pass over some time steps.

    Leading axes are [T], or [N, K] for N chunks of K time steps, or [K].

    Attributes:
      read: False where no cotangent reaches; None without resets.
      packed: pre-activations; None if they are rebuilt.
      before: the state before the segment, or before each chunk, without the last axis of time.
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
    if reset is not None:  # time steps without a cotangent restart
        read = reached(reset, d_final, d_emitted)
        reset = reset | ~read
    whole = Segment(
        inputs.x, states, d_emitted, inputs.mask, reset, read, inputs.noise.keys, packed,
        inputs.state,
    )  # fmt: skip
    zeros = jax.tree.map(jnp.zeros_like, (inputs.params, inputs.initial))
    carry, d_x = (d_final, *zeros), []
    for cut in reversed(_cuts(inputs.x.shape[0], _chunk_size(engine, inputs.x))):
        segment = _segment(whole, *cut)
        back = functools.partial(_chunk_back, engine, cell, emit, inputs)
        carry, d_x_n = jax.lax.scan(back, carry, segment, reverse=True)
        N, K = segment.x.shape[:2]
        d_x.insert(0, d_x_n.reshape(N * K, *inputs.x.shape[1:]))
    d_state, d_params, d_initial = carry
    d_x = jnp.concatenate(d_x) if d_x else jnp.zeros_like(inputs.x)
    return (Inputs(d_params, d_x, d_state, d_initial, None, None, Noise()),)


_loop.defvjp(_loop_fwd, _loop_bwd)


def _forward(engine: Scan, cell: Cell, inputs: Inputs, emit: Callable) -> tuple[Row, Any]:
    params, x, state, initial, mask, reset, noise = inputs
    multiply, from_x = _products(engine, cell, params, x)

    def body(state, step):
        from_x_t, mask_t, reset_t, key = step
        start = restart(reset_t, initial, state)
        packed = multiply(from_x_t, fed_back(cell, start, noise.keep))
        new, _ = advance(cell, packed, start, params.theta, key)
        state = where_row(mask_t, new, start)
        return state, emit(state, packed)

    steps = (from_x, mask, reset, noise.keys)
    return jax.lax.scan(body, state, steps, unroll=engine.unroll)


def _products(engine: Scan, cell: Cell, params: CellParams, x: Array):
    """Returns the product of each time step, and its argument from the input."""
    if _joins(engine, cell, params):
        assert isinstance(params.w_h, jax.Array)
        w = jnp.concatenate([params.w_x, params.w_h]).astype(x.dtype)

        def multiply_both(x_t, h):
            joined = jnp.concatenate([x_t, h.astype(x.dtype)], axis=-1)
            return add_bias(dot(joined, w, x.dtype), params.b)

        return multiply_both, x
    from_x = dot(as_matrix(x), params.w_x, x.dtype).reshape(*x.shape[:2], params.w_x.shape[1])
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


def _chunk_size(engine: Scan, x: Array) -> int:
    """Returns the largest number of time steps of a chunk; 16 for a symbolic batch."""
    B = x.shape[1]
    return engine.chunk or (max(16, 256 // max(1, B)) if isinstance(B, int) else 16)


def _cuts(T: int, longest: int) -> list[tuple[int, int, int]]:
    """Cuts T time steps into (start, N, K): N pieces of K, at most `longest`, and the remainder.

    A divisor of T that is near `longest` leaves no remainder. A symbolic T is one piece.
    """
    if not isinstance(T, int):
        return [(0, 1, T)]
    even = max((k for k in range(1, min(longest, T) + 1) if T % k == 0), default=1)
    K = even if 2 * even > longest else min(longest, T)
    cuts = [(0, T // K, K), (T - T % K, 1, T % K)] if T else []
    return [cut for cut in cuts if cut[1] * cut[2]]


def _cut(steps: Any, start: int, N: int, K: int) -> Any:
    """Returns arrays [T, ...] as N pieces [N, K, ...] of K time steps from `start` on."""
    return jax.tree.map(lambda a: a[start : start + N * K].reshape(N, K, *a.shape[1:]), steps)


def _segment(whole: Segment, start: int, N: int, K: int) -> Segment:
    def last(before, states):
        ends = _cut(states, start, N, K)[:-1, -1]
        return jnp.concatenate([states[start - 1][None] if start else before[None], ends])

    before = jax.tree.map(last, whole.before, whole.states)
    return _cut(whole._replace(before=()), start, N, K)._replace(before=before)


def _chunk_back(engine: Scan, cell: Cell, emit: Callable, inputs: Inputs, carry, chunk: Segment):
    """Goes back through one chunk; returns the carry before it and d_x [K, B, D]."""
    d_state, d_params, d_initial = carry
    params, (K, B), keep = inputs.params, chunk.x.shape[:2], inputs.noise.keep
    previous = jax.tree.map(
        lambda before, states: jnp.concatenate([before[None], states[:-1]]),
        chunk.before,
        chunk.states,
    )
    start = restart(chunk.reset, inputs.initial, previous)
    states = zero_unless(chunk.read, chunk.states)
    x, saved = zero_unless(_both(chunk.mask, chunk.read), (chunk.x, chunk.packed))
    feedback = jax.vmap(lambda s: fed_back(cell, s, keep))(start)
    product = joined_preactivations if _joins(engine, cell, params) else preactivations
    rebuilt, product_back = jax.vjp(
        lambda weights: product(cell, weights, as_matrix(x), as_matrix(feedback)),
        params._replace(theta=()),
    )
    packed = rebuilt.reshape(K, B, rebuilt.shape[-1]) if saved is None else saved
    transposed = rounded(transpose_w_h(params.w_h), x.dtype)
    back = functools.partial(_step_back, cell, emit, params.theta, transposed, x.dtype, keep)
    (d_state, d_theta, d_initial), d_packed = jax.lax.scan(
        back,
        (d_state, d_params.theta, d_initial),
        (start, packed, states, chunk.d_emitted, chunk.mask, chunk.reset, chunk.keys),
        reverse=True,
        unroll=engine.unroll,
    )
    d_packed = as_matrix(d_packed)
    (d_weights,) = product_back(d_packed)
    d_x = dot(columns(cell, cell.x_blocks, d_packed), params.w_x.T, x.dtype).astype(x.dtype)
    d_params = _add(d_params._replace(theta=()), d_weights)._replace(theta=d_theta)
    return (d_state, d_params, d_initial), d_x.reshape(x.shape)


def _step_back(
    cell: Cell, emit: Callable, theta: Row, w_h_transposed, x_dtype, keep, carry, residuals
):
    """Goes back through one time step; returns the carry before it and d_packed [B, G].

    The forward loop does not save noise: it is drawn again, from the key of the time step.
    """
    d_state, d_theta, d_initial = carry
    start, packed, state, d_emitted, mask, reset, key = residuals
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

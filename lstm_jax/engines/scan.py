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
import numpy as np

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
    pack,
    preactivations,
    reads_both,
    rounded,
    split,
    sums,
    times_w_h,
    transpose_w_h,
)
from lstm_jax.types import Array, CellParams, Noise, Row

PRODUCTS = ("joined", "hoisted")
NARROW = 128  # units of a batch
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


class Steps(NamedTuple):
    """Inputs of the backward pass, each [T, B, ...]; of a chunk of time steps, [K, B, ...].

    Attributes:
      read: False where no cotangent reaches; None without resets.
      packed: pre-activations; None if they are rebuilt.
    """

    x: Array
    states: Row
    d_emitted: Row
    mask: Array | None
    reset: Array | None
    read: Array | None
    keys: Array | None
    packed: Array | None


class Chunk(NamedTuple):
    """The place of a chunk; each of [N] for all chunks.

    Attributes:
      start: the first of its K time steps.
      size: how many of them, from the first on, are its own; later ones belong to the next chunk.
    """

    start: Any
    size: Any


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
    steps = Steps(inputs.x, states, d_emitted, inputs.mask, reset, read, inputs.noise.keys, packed)
    zeros = jax.tree.map(jnp.zeros_like, (inputs.params, inputs.initial))
    carry, d_x = (d_final, *zeros), inputs.x
    if inputs.x.shape[0] != 0:
        K, chunks = _chunks(inputs.x.shape[0], _chunk_size(engine, inputs.x))
        back = functools.partial(_chunk_back, engine, cell, emit, inputs, steps, K)
        carry, d_x = jax.lax.scan(back, carry, chunks, reverse=True)
        d_x = _own_steps(d_x, inputs.x.shape)
    d_state, d_params, d_initial = carry
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
    w_h = rounded(params.w_h, x.dtype)

    def times_w_x(w):
        return dot(as_matrix(x), w, x.dtype).reshape(*x.shape[:2], w.shape[1])

    if _is_narrow(cell, x):

        def multiply(from_x_t, h):
            return add_bias(assemble(cell, from_x_t, times_w_h(h, w_h, x.dtype)), params.b)

        return multiply, times_w_x(params.w_x)
    biases = split(cell, tuple(cell.gates), params.b)

    def multiply_by_block(from_x_t, h):
        from_h = split(cell, cell.h_blocks, times_w_h(h, w_h, x.dtype))
        gates = sums(cell, from_x_t, from_h, h)
        return pack([*map(add_bias, gates, biases.values())])

    blocks = split(cell, cell.x_blocks, params.w_x)
    return multiply_by_block, {name: times_w_x(w) for name, w in blocks.items()}


def _is_narrow(cell: Cell, x: Array) -> bool:
    """Returns whether a time step has so few units that one input product serves all blocks.

    Otherwise each block has its own: XLA:CPU does not vectorise column slices of the slice of a
    time step, 12 ns a unit in place of 3, but each further slice costs about 0.2 us a time step.
    """
    B = x.shape[1]
    return isinstance(B, int) and B * cell.hidden < NARROW


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

    A divisor of T that is near `longest` leaves no remainder.
    """
    K = _near(T, longest)
    K = K if T % K == 0 else longest
    return [cut for cut in ((0, T // K, K), (T - T % K, 1, T % K)) if cut[2]]


def _cut(steps: Any, start: int, N: int, K: int) -> Any:
    """Returns arrays [T, ...] as N pieces [N, K, ...] of K time steps from `start` on."""
    return jax.tree.map(lambda a: a[start : start + N * K].reshape(N, K, *a.shape[1:]), steps)


def _near(T: int, longest: int) -> int:
    """Returns K, more than half of `longest`, whose multiple exceeds T by the fewest time steps."""
    longest = min(longest, T)
    return min(range(longest, longest // 2, -1), key=lambda K: -T % K)


def _chunks(T: Any, longest: int) -> tuple[Any, Chunk]:
    """Returns K, at most `longest`, and the places of chunks of K time steps.

    If K does not divide T, the first chunk overlaps the second: one loop serves all chunks, and is
    compiled once. A symbolic T is one chunk.
    """
    if not isinstance(T, int):
        return T, Chunk(np.zeros(1, np.int32), None)
    K = _near(T, longest)
    ends = np.arange(T, 0, -K, np.int32)[::-1]
    starts = np.maximum(0, ends - K)
    return K, Chunk(starts, None if T % K == 0 else ends - starts)


def _own_steps(d_x: Array, shape: tuple[Any, ...]) -> Array:
    """Returns [N, K, B, D] as [T, B, D], without the overlap of the first chunk."""
    N, K = d_x.shape[:2]
    flat = d_x.reshape(N * K, *shape[1:])
    first = shape[0] - (N - 1) * K
    return flat if first == K else jnp.concatenate([flat[:first], flat[K:]])


def _steps_of(steps: Steps, initial: Row, start: Any, K: Any) -> tuple[Steps, Row]:
    """Returns the K time steps from `start` on, and the states before each of them."""
    if steps.x.shape[0] == K:
        chunk, before = steps, initial
    else:
        at = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=K)
        chunk = jax.tree.map(at, steps)
        last = jax.tree.map(lambda a: a[jnp.maximum(start, 1) - 1], steps.states)
        before = jax.tree.map(functools.partial(jnp.where, start == 0), initial, last)
    shifted = jax.tree.map(
        lambda first, states: jnp.concatenate([first[None], states[:-1]]), before, chunk.states
    )
    return chunk, shifted


def _chunk_back(
    engine: Scan, cell: Cell, emit: Callable, inputs: Inputs, steps: Steps, K: Any, carry,
    place: Chunk,
):  # fmt: skip
    """Goes back through one chunk; returns the carry before it and d_x [K, B, D].

    Time steps that belong to the next chunk have cotangents of zero: `d_state` enters behind the
    last time step of its own.
    """
    d_state, d_params, d_initial = carry
    params, keep = inputs.params, inputs.noise.keep
    chunk, previous = _steps_of(steps, inputs.state, place.start, K)
    B = chunk.x.shape[1]
    entering, enters = None, None
    if place.size is not None:
        k = np.arange(K, dtype=np.int32)
        chunk = chunk._replace(d_emitted=zero_unless(k < place.size, chunk.d_emitted))
        entering, enters = d_state, k == place.size - 1
        d_state = jax.tree.map(jnp.zeros_like, d_state)
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
    back = functools.partial(
        _step_back, cell, emit, params.theta, transposed, x.dtype, keep, entering
    )
    (d_state, d_theta, d_initial), d_packed = jax.lax.scan(
        back,
        (d_state, d_params.theta, d_initial),
        (start, packed, states, chunk.d_emitted, chunk.mask, chunk.reset, chunk.keys, enters),
        reverse=True,
        unroll=engine.unroll,
    )
    d_packed = as_matrix(d_packed)
    (d_weights,) = product_back(d_packed)
    d_x = dot(columns(cell, cell.x_blocks, d_packed), params.w_x.T, x.dtype).astype(x.dtype)
    d_params = _add(d_params._replace(theta=()), d_weights)._replace(theta=d_theta)
    return (d_state, d_params, d_initial), d_x.reshape(x.shape)


def _step_back(
    cell: Cell, emit: Callable, theta: Row, w_h_transposed, x_dtype, keep, entering, carry,
    residuals,
):  # fmt: skip
    """Goes back through one time step; returns the carry before it and d_packed [B, G].

    The forward loop does not save noise: it is drawn again, from the key of the time step.
    """
    d_state, d_theta, d_initial = carry
    start, packed, state, d_emitted, mask, reset, key, enters = residuals
    if enters is not None:
        d_state = where_row(enters, entering, d_state)
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

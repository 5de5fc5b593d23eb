"""The time loop as one kernel, forward and backward, for Triton and Mosaic alike.

Inside, every gate, state and vector of theta is a matrix [B, H] of one tile of rows. All operations
are pointwise except the recurrent product. The recurrent weights are read once, before the loop,
and stay on chip. The cell's own `update` is traced into the forward kernel, and its `jax.vjp` into
the backward kernel, which starts at the last time step (`steps`). `pallas` pads all sizes to those
of the chip.

Weights, pre-activations and their gradients pass in the dtype of the products. All other arrays
have the dtype of the states, float32 at least, in which everything is computed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from lstm_jax.cells import Cell
from lstm_jax.engines import steps
from lstm_jax.engines.steps import Parts
from lstm_jax.types import Array, Row

Ref = Any


class Forward(NamedTuple):
    """Inputs of the forward kernel.

    Attributes:
      packed: [T, B, G H] pre-activations without the recurrent product.
      weights: recurrent weights [H, H], by block that reads the state and vector of the feedback.
      theta: the cell's small vectors, each [1, H].
      state: the state before the first time step, each [B, H].
      initial: the state at sequence starts, each [B, H]; None without resets.
      keep: factors [B, H] of the vectors of the feedback; None for no factors.
      draws: random vectors of the time steps, each [T, B, H]; None without noise.
      mask: [T, B, 1] integers, 0 where the state is held; None without a mask.
      reset: [T, B, 1] integers, not 0 where a sequence starts; None without resets.
    """

    packed: Array
    weights: tuple[Parts, ...]
    theta: Row
    state: Row
    initial: Row | None
    keep: Parts | None
    draws: Row | None
    mask: Array | None
    reset: Array | None


class Backward(NamedTuple):
    """Inputs of the backward kernel.

    Attributes:
      packed: [T, B, G H] pre-activations.
      start: the states before the time steps, after resets, each [T, B, H].
      d_states: cotangents of the states after the time steps, each [T, B, H].
      d_final: cotangents of the final state, each [B, H].
      weights: the recurrent weights of `Forward`, each transposed.
      theta, keep, draws, mask, reset: those of `Forward`.
    """

    packed: Array
    start: Row
    d_states: Row
    d_final: Row
    weights: tuple[Parts, ...]
    theta: Row
    keep: Parts | None
    draws: Row | None
    mask: Array | None
    reset: Array | None


class Schedule(NamedTuple):
    """The grid of a kernel and the parameters of its compiler.

    Attributes:
      rows: rows of a tile; B is a multiple of it.
      steps: time steps of a chunk; T is a multiple of it.
      prefetch: whether the loop reads each time step during the one before it.
      compiler: parameters of the kernel's compiler.
      interpret: whether the kernel runs as ordinary JAX, on any platform.
    """

    rows: int
    steps: int
    prefetch: bool
    compiler: Any
    interpret: bool


def forward(cell: Cell, schedule: Schedule, given: Forward) -> tuple[Row, Row]:
    """Returns the final state, each [B, H], and all states, each [T, B, H]."""
    T, B, _ = given.packed.shape
    H, wide = given.state[0].shape[-1], given.state[0].dtype
    over_time, over_rows, shared = _specs(schedule, T, reverse=False)
    specs = Forward(
        packed=over_time(given.packed), weights=shared(given.weights), theta=shared(given.theta),
        state=over_rows(given.state), initial=over_rows(given.initial), keep=over_rows(given.keep),
        draws=over_time(given.draws), mask=over_time(given.mask), reset=over_time(given.reset),
    )  # fmt: skip
    final = cell.State(*(jax.ShapeDtypeStruct((B, H), wide) for _ in cell.states))
    states = cell.State(*(jax.ShapeDtypeStruct((T, B, H), wide) for _ in cell.states))
    body = _forward_body(cell, schedule, T)
    return _call(body, schedule, (T, B), given, specs, (final, states),
                 (over_rows(final), over_time(states)))  # fmt: skip


def backward(cell: Cell, schedule: Schedule, given: Backward) -> tuple[Array, Row, Row, Row]:
    """Returns the gradients of the pre-activations, the state, theta and the initial state.

    The first is [T, B, G H], the others are each [B, H], theta's for every row of the batch. The
    initial state's is None without resets.
    """
    T, B, _ = given.packed.shape
    over_time, over_rows, shared = _specs(schedule, T, reverse=True)
    specs = Backward(
        packed=over_time(given.packed), start=over_time(given.start),
        d_states=over_time(given.d_states), d_final=over_rows(given.d_final),
        weights=shared(given.weights), theta=shared(given.theta), keep=over_rows(given.keep),
        draws=over_time(given.draws), mask=over_time(given.mask), reset=over_time(given.reset),
    )  # fmt: skip
    row = jax.ShapeDtypeStruct(given.d_final[0].shape, given.d_final[0].dtype)
    carry = (
        cell.State(*(row for _ in cell.states)),
        jax.tree.map(lambda _: row, given.theta),
        None if given.reset is None else cell.State(*(row for _ in cell.states)),
    )
    d_packed = jax.ShapeDtypeStruct(given.packed.shape, given.packed.dtype)
    body = _backward_body(cell, schedule, T)
    return _call(body, schedule, (T, B), given, specs, (d_packed, *carry),
                 (over_time(d_packed), *map(over_rows, carry)))  # fmt: skip


def _specs(schedule: Schedule, T: int, reverse: bool) -> tuple[Callable, Callable, Callable]:
    """Returns three functions to block specs: over time and batch, over the batch, and shared."""
    rows, steps = schedule.rows, schedule.steps
    last = T // steps - 1

    def over_time(tree):
        chunk = (lambda n: last - n) if reverse else (lambda n: n)
        return jax.tree.map(
            lambda a: pl.BlockSpec((steps, rows, a.shape[2]), lambda tile, n: (chunk(n), tile, 0)),
            tree,
        )

    def over_rows(tree):
        return jax.tree.map(
            lambda a: pl.BlockSpec((rows, a.shape[1]), lambda tile, n: (tile, 0)), tree
        )

    def shared(tree):
        return jax.tree.map(lambda a: pl.BlockSpec(a.shape, lambda tile, n: (0, 0)), tree)

    return over_time, over_rows, shared


def _call(body, schedule: Schedule, size: tuple[int, int], given, specs, shapes, out_specs):
    """Runs `body` on a grid of tiles and chunks, sequentially over chunks."""
    return pl.pallas_call(
        body,
        grid=(size[1] // schedule.rows, size[0] // schedule.steps),
        in_specs=(specs,),
        out_specs=out_specs,
        out_shape=shapes,
        compiler_params=schedule.compiler,
        interpret=schedule.interpret,
        name=body.__name__,
    )(given)


def _forward_body(cell: Cell, schedule: Schedule, T: int) -> Callable:
    def lstm_jax_forward(given: Forward, final: Row, states: Row) -> None:
        theta = _theta(given.theta, final[0].shape)
        fixed = steps.Fixed(theta, *_read((given.initial, given.keep)))
        product = _product(_read(given.weights))

        def load(t):
            return _inputs(cell, given, t)

        def advance(t, inputs, state):
            state = steps.step(cell, fixed, product, inputs, state)
            jax.tree.map(lambda ref, s: _put(ref, t, s), states, state)
            return state

        def first():
            return _read(given.state)

        _run_chunk(T, schedule, final, first, load, advance, lambda k: k)

    return lstm_jax_forward


def _backward_body(cell: Cell, schedule: Schedule, T: int) -> Callable:
    def lstm_jax_backward(
        given: Backward, d_packed: Ref, d_state: Row, d_theta: Row, d_initial: Row | None
    ) -> None:
        theta = _theta(given.theta, d_state[0].shape)
        fixed = steps.Fixed(theta, None, _read(given.keep))
        product = _product(tuple(zip(*_read(given.weights), strict=True)))

        def load(t):
            return _inputs(cell, given, t), *_at((given.start, given.d_states), t)

        def advance(t, inputs, carry):
            at_t, start, d_after = inputs
            carry = (steps.add(carry[0], d_after), *carry[1:])

            def write(d_gates):
                for n, d_gate in enumerate(d_gates):
                    _put_block(d_packed, t, n, d_gate)

            return steps.step_back(cell, fixed, product, at_t, start, carry, write)

        def first():
            d_final = _read(given.d_final)
            no_resets = d_initial is None
            return d_final, steps.zeros(theta), None if no_resets else steps.zeros(d_final)

        carry = (d_state, d_theta, d_initial)
        _run_chunk(T, schedule, carry, first, load, advance, lambda k: schedule.steps - 1 - k)

    return lstm_jax_backward


def _run_chunk(T: int, schedule: Schedule, refs, first, load, advance, time) -> None:
    """Runs the time steps of a chunk; `refs` hold the carry between chunks."""
    if schedule.steps == T:
        carry = first()
    else:

        @pl.when(pl.program_id(1) == 0)
        def _():
            jax.tree.map(_write, refs, first())

        carry = _read(refs)
    carry = _run_steps(schedule, load, advance, time, carry)
    jax.tree.map(_write, refs, carry)


def _run_steps(schedule: Schedule, load, advance, time, carry):
    last = schedule.steps - 1
    if not schedule.prefetch:

        def body(k, carry):
            return advance(time(k), load(time(k)), carry)

        return jax.lax.fori_loop(0, last + 1, body, carry)

    def prefetch(k, carry_and_inputs):
        carry, inputs = carry_and_inputs
        following = load(time(jnp.minimum(k + 1, last)))
        return advance(time(k), inputs, carry), following

    return jax.lax.fori_loop(0, last + 1, prefetch, (carry, load(time(0))))[0]


def _product(weights: tuple[Parts, ...]) -> steps.Product:
    """Returns the function of row vectors to their sums of products, one for each of `weights`."""

    def product(parts):
        return tuple(functools.reduce(jnp.add, map(_dot, parts, squares)) for squares in weights)

    return product


def _dot(a: Array, w: Array) -> Array:
    return jnp.dot(a.astype(w.dtype), w, preferred_element_type=a.dtype)


def _inputs(cell: Cell, given: Forward | Backward, t: Array) -> steps.Given:
    packed = _blocks(cell, given.packed, t)
    return steps.Given(packed, *_at((given.draws, given.mask, given.reset), t))


def _blocks(cell: Cell, packed: Ref, t: Array) -> tuple[Array, ...]:
    H = packed.shape[-1] // len(cell.gates)
    return tuple(packed[t, :, pl.ds(n * H, H)] for n in range(len(cell.gates)))


def _put_block(packed: Ref, t: Array, n: int, value: Array) -> None:
    H = value.shape[-1]
    packed[t, :, pl.ds(n * H, H)] = value.astype(packed.dtype)


def _theta(theta: Row, shape: tuple[int, int]) -> Row:
    return jax.tree.map(lambda v: jnp.broadcast_to(v[...], shape), theta)


def _read(refs: Any) -> Any:
    return jax.tree.map(lambda ref: ref[...], refs)


def _at(refs: Any, t: Array) -> Any:
    return jax.tree.map(lambda ref: ref[t], refs)


def _write(ref: Ref, value: Array) -> None:
    ref[...] = value


def _put(ref: Ref, t: Array, value: Array) -> None:
    ref[t] = value

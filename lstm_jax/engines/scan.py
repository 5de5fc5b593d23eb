"""The scan engine: `lax.scan` with a backward pass of our own, in chunks of instants.

The forward loop saves the states alone. The backward loop walks over chunks of instants: one matrix
product rebuilds a chunk's pre-activations from its states, an inner loop of `jax.vjp`s of the
cell's `update` walks back through its instants, and one matrix product makes the chunk's share of
every weight gradient.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell
from lstm_jax.engines.products import advance, assemble, pick, preactivations, reads_both, times_w_h
from lstm_jax.engines.select import begin, where_row
from lstm_jax.types import Array, CellParams, Row

Emit = Callable[[Row], Row]


@dataclasses.dataclass(frozen=True)
class Scan:
    """`lax.scan` with a custom VJP.

    Attributes:
      product: "joined" multiplies [x, h] by [w_x; w_h] at every instant; "hoisted" multiplies the
        input by w_x before the loop.
      residuals: "rebuilt" saves the states and makes the pre-activations again in the backward
        pass; "saved" keeps them, for more memory and one product less.
      chunk: instants whose weight gradients are made by one product.
      unroll: instants in one iteration of the compiled loops.
    """

    product: str = "joined"
    residuals: str = "rebuilt"
    chunk: int = 16
    unroll: int = 1

    def loop(self, cell, emit, params, x, state, initial, mask, reset):
        """Returns the final state and what `emit` makes of every state [T, B, ...]."""
        return _loop(self, cell, emit, params, x, state, initial, mask, reset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _loop(engine, cell, emit, params, x, state, initial, mask, reset):
    return _forward(engine, cell, lambda s, _: emit(s), params, x, state, initial, mask, reset)


def _forward(engine, cell, emit, params, x, state, initial, mask, reset):
    joined = engine.product == "joined" and reads_both(cell) and not isinstance(params.w_h, tuple)
    if joined:
        w = jnp.concatenate([params.w_x, params.w_h])
        inputs = x
    else:
        inputs = x.reshape(-1, x.shape[-1]) @ params.w_x
        inputs = inputs.reshape(*x.shape[:2], params.w_x.shape[1])

    def instant(state, step_inputs):
        in_t, mask_t, reset_t = step_inputs
        start = begin(reset_t, initial, state)
        feedback = jax.vmap(cell.feedback)(start)
        if joined:
            packed = jnp.concatenate([in_t, feedback], axis=-1) @ w + params.b
        else:
            packed = assemble(cell, in_t, times_w_h(feedback, params.w_h)) + params.b
        new, _ = advance(cell, packed, start, params.theta)
        state = where_row(mask_t, new, start)
        return state, emit(state, packed)

    return jax.lax.scan(instant, state, (inputs, mask, reset), unroll=engine.unroll)


def _loop_fwd(engine, cell, emit, params, x, state, initial, mask, reset):
    save = engine.residuals == "saved"
    final, (states, packed) = _forward(
        engine, cell, lambda s, p: (s, p if save else None), params, x, state, initial, mask, reset
    )
    return (final, jax.vmap(emit)(states)), (params, x, state, initial, mask, reset, states, packed)


def _loop_bwd(engine, cell, emit, residuals, cotangents):
    params, x, state, initial, mask, reset, states, packed = residuals
    d_final, d_emitted = cotangents
    T = x.shape[0]
    zeros = jax.tree.map(jnp.zeros_like, (params, initial))
    previous = jax.tree.map(lambda s0, s: jnp.concatenate([s0[None], s])[:-1][:: 1], state, states)

    def chunk(carry, xs):
        d_state, d_params, d_initial = carry
        x_k, previous_k, states_k, d_emitted_k, mask_k, reset_k, packed_k = xs
        start_k = begin(reset_k, initial, previous_k)
        feedback_k, feedback_vjp = jax.vjp(jax.vmap(jax.vmap(cell.feedback)), start_k)
        if packed_k is None:
            packed_k = preactivations(cell, params, x_k, feedback_k)

        def instant(carry, xs):
            d_state, d_theta, d_initial = carry
            start_t, state_t, packed_t, d_emitted_t, mask_t, reset_t = xs
            _, emit_vjp = jax.vjp(emit, state_t)
            d_state = jax.tree.map(jnp.add, d_state, emit_vjp(d_emitted_t)[0])
            d_new = d_state if mask_t is None else where_row(mask_t, d_state, jax.tree.map(jnp.zeros_like, d_state))
            _, update_vjp = jax.vjp(
                lambda p, s, th: advance(cell, p, s, th)[0], packed_t, start_t, params.theta)
            d_packed, d_start, d_th = update_vjp(d_new)
            if mask_t is not None:
                d_start = where_row(mask_t, d_start, d_state)
            d_h = pick(cell, cell.h_blocks, d_packed)
            _, fb_vjp = jax.vjp(jax.vmap(cell.feedback), start_t)
            d_start = jax.tree.map(jnp.add, d_start, fb_vjp(times_w_h_T(d_h, params.w_h))[0])
            if reset_t is not None:
                z = jax.tree.map(jnp.zeros_like, d_start)
                d_initial = jax.tree.map(jnp.add, d_initial, where_row(reset_t, d_start, z))
                d_start = where_row(reset_t, z, d_start)
            return (d_start, jax.tree.map(jnp.add, d_theta, d_th), d_initial), d_packed

        (d_state, d_theta, d_initial), d_packed = jax.lax.scan(
            instant, (d_state, d_params.theta, d_initial),
            (start_k, states_k, packed_k, d_emitted_k, mask_k, reset_k), reverse=True, unroll=engine.unroll)
        flat = lambda a: a.reshape(-1, a.shape[-1])
        d_x_part, d_h_part = pick(cell, cell.x_blocks, d_packed), pick(cell, cell.h_blocks, d_packed)
        d_params = CellParams(
            d_params.w_x + flat(x_k).T @ flat(d_x_part),
            d_params.w_h + flat(feedback_k).T @ flat(d_h_part),
            d_params.b + d_packed.sum((0, 1)), d_theta)
        d_x = (flat(d_x_part) @ params.w_x.T).reshape(x_k.shape)
        return (d_state, d_params, d_initial), d_x

    K = engine.chunk
    N = T // K
    assert N * K == T
    xs = jax.tree.map(lambda a: a.reshape(N, K, *a.shape[1:]), (x, previous, states, d_emitted, mask, reset, packed))
    (d_state, d_params, d_initial), d_x = jax.lax.scan(chunk, (d_final, zeros[0], zeros[1]), xs, reverse=True)
    d_x = d_x.reshape(x.shape)
    return d_params, d_x, d_state, d_initial, None, None

def times_w_h_T(d, w_h):
    return d @ w_h.T

_loop.defvjp(_loop_fwd, _loop_bwd)

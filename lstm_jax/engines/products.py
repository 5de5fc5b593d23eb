"""Pre-activations: matrix products of the input and the feedback, by block.

Every product is a `dot`: its operands have the dtype of the input, its sums float32 at least.
"""

import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_parts
from lstm_jax.types import Array, CellParams, RecurrentWeights, Row, wide


def split(cell: Cell, blocks: tuple[str, ...], packed: Array) -> dict[str, Array]:
    """Returns the blocks of `packed` [..., sum of widths] by name."""
    if not blocks:
        return {}
    widths = [cell.width(name) for name in blocks]
    return dict(zip(blocks, jax.lax.split(packed, widths, axis=packed.ndim - 1), strict=True))


def pack(parts: list[Array]) -> Array:
    """Returns blocks concatenated on the last axis."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def reads_both(cell: Cell) -> bool:
    """Returns whether every block takes both the input and the state."""
    return cell.x_blocks == cell.h_blocks == tuple(cell.gates)


def dot(a: Array, w: Array, dtype: Any) -> Array:
    """Returns a [..., J] @ w [J, K], with operands rounded to `dtype`.

    Sums are in float32 at least. The two products of its gradient round their operands likewise. A
    16-bit `dtype` has no forward-mode derivative.
    """
    if wide(dtype) == dtype:
        return a.astype(dtype) @ w.astype(dtype)
    return _narrow_dot(a, w, jnp.dtype(dtype))


def _product(a: Array, w: Array, dtype: Any) -> Array:
    a, w = a.astype(dtype), w.astype(dtype)
    return jnp.matmul(a, w, preferred_element_type=wide(dtype))


_narrow_dot = jax.custom_vjp(_product, nondiff_argnums=(2,))


def _narrow_dot_bwd(dtype, operands, d_sum):
    a, w = operands
    d_a = _product(d_sum, w.T, dtype)
    d_w = _contracted(as_matrix(a), as_matrix(d_sum), w, dtype)
    return d_a.astype(a.dtype), d_w.astype(w.dtype)


def _contracted(a: Array, b: Array, w: Array, dtype: Any) -> Array:
    """Returns a [..., J] and b [..., K] contracted to [J, K], sharded like w."""
    leading = tuple(range(a.ndim - 1))
    return jax.lax.dot_general(
        a.astype(dtype), b.astype(dtype), ((leading, leading), ((), ())),
        preferred_element_type=wide(dtype),
        out_sharding=jax.typeof(w).sharding if _sharded(a) else None,
    )  # fmt: skip


def as_matrix(a: Array) -> Array:
    """Returns [..., K] as a matrix, or unchanged if a leading axis is sharded."""
    if _sharded(a):  # a reshape must not merge a sharded axis with another
        return a
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def _sharded(a: Array) -> bool:
    """Returns whether a leading axis of `a` is sharded on an explicit mesh."""
    return any(jax.typeof(a).sharding.spec[:-1])


_narrow_dot.defvjp(lambda a, w, dtype: (_product(a, w, dtype), (a, w)), _narrow_dot_bwd)


def times_w_h(feedback: Array, w_h: RecurrentWeights, dtype: Any) -> Array:
    """Returns feedback @ w_h, through the projection where `w_h` is a pair (P, U)."""
    if w_h is None:
        return feedback[..., :0]
    if isinstance(w_h, tuple):
        return dot(dot(feedback, w_h[0], dtype), w_h[1], dtype)
    return dot(feedback, w_h, dtype)


def projected(h: Array, w_h: RecurrentWeights) -> Array:
    """Returns h P if `w_h` is a pair (P, U), else h."""
    return dot(h, w_h[0], h.dtype).astype(h.dtype) if isinstance(w_h, tuple) else h


def rounded(w_h: RecurrentWeights, dtype: Any) -> RecurrentWeights:
    """Returns the recurrent weights in `dtype`, rounded once for all time steps."""
    return jax.tree.map(lambda w: w.astype(dtype), w_h)


def transpose_w_h(w_h: RecurrentWeights) -> RecurrentWeights:
    """Returns the transposed recurrent weights, as `times_w_h` takes them."""
    return (w_h[1].T, w_h[0].T) if isinstance(w_h, tuple) else w_h if w_h is None else w_h.T


def assemble(cell: Cell, from_x: Array, from_h: Array) -> Array:
    """Returns packed pre-activations [..., G] from the two products, without the bias."""
    if reads_both(cell):
        return from_x + from_h
    products = split(cell, cell.x_blocks, from_x), split(cell, cell.h_blocks, from_h)
    return pack(sums(cell, *products, from_x))


def sums(
    cell: Cell, from_x: dict[str, Array], from_h: dict[str, Array], like: Array
) -> list[Array]:
    """Returns the sum of both products for each gate, or zeros with the sharding of `like`."""
    terms = [[product[g] for product in (from_x, from_h) if g in product] for g in cell.gates]
    return [
        functools.reduce(jnp.add, parts) if parts else _zeros(cell.width(g), like)
        for g, parts in zip(cell.gates, terms, strict=True)
    ]


def _zeros(width: int, like: Array) -> Array:
    zero = jnp.sum(like[..., :0], axis=-1, keepdims=True)  # with the sharding of `like`
    return jnp.broadcast_to(zero, (*like.shape[:-1], width))


def columns(cell: Cell, blocks: tuple[str, ...], packed: Array) -> Array:
    """Returns the columns of `packed` [..., G] that belong to `blocks`."""
    if blocks == tuple(cell.gates):
        return packed
    parts = split(cell, tuple(cell.gates), packed)
    return pack([parts[name] for name in blocks] or [packed[..., :0]])


def add_bias(packed: Array, b: Array) -> Array:
    """Returns packed + b, for any number of leading axes."""
    return packed + jnp.broadcast_to(b, packed.shape)


def preactivations(cell: Cell, params: CellParams, x: Array, feedback: Array) -> Array:
    """Returns packed pre-activations [..., G] = x w_x + feedback w_h + b."""
    from_x, from_h = dot(x, params.w_x, x.dtype), times_w_h(feedback, params.w_h, x.dtype)
    return add_bias(assemble(cell, from_x, from_h), params.b)


def joined_preactivations(cell: Cell, params: CellParams, x: Array, feedback: Array) -> Array:
    """Returns [x, feedback, 1] [w_x; w_h; b], if every gate reads both inputs.

    It is one product, and so is its gradient: narrow inputs and biases cost almost nothing. If
    operands are rounded to 16 bits, the bias is added to the sum instead.
    """
    del cell
    assert isinstance(params.w_h, jax.Array)
    if x.dtype != params.b.dtype:
        w = jnp.concatenate([params.w_x, params.w_h])
        joined = jnp.concatenate([x, feedback.astype(x.dtype)], axis=-1)
        return add_bias(dot(joined, w, x.dtype), params.b)
    ones = jnp.ones_like(feedback[..., :1])
    w = jnp.concatenate([params.w_x, params.w_h, params.b[None]])
    return jnp.concatenate([x, feedback, ones], axis=-1) @ w


def fed_back(cell: Cell, state: Row, keep: Array | None) -> Array:
    """Returns the feedback [B, F] of a batch of states, times `keep` [B, F]."""
    feedback = pack([*jax.vmap(functools.partial(feedback_parts, cell))(state)])
    return feedback if keep is None else feedback * keep


def advance(
    cell: Cell, packed: Array, state: Row, theta: Row, key: Array | None
) -> tuple[Row, Row]:
    """Maps the cell's `update` over a batch: packed [B, G], states [B, width]."""
    gates = cell.Gates(**split(cell, tuple(cell.gates), packed))
    if key is None:
        return jax.vmap(cell.update, in_axes=(0, 0, None))(gates, state, theta)
    draws, update = drawn(cell, theta, key, len(packed), packed.dtype), cast(Any, cell.update)
    return jax.vmap(update, in_axes=(0, 0, None, 0))(gates, state, theta, draws)


def drawn(cell: Cell, theta: Row, key: Array, batch: int, dtype: Any) -> Row:
    """Returns the random vectors [B, width] of a noisy cell at one time step."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch))
    draws = jax.vmap(lambda key: cell.Draws(cell.draw(theta, key)))(keys)
    return jax.tree.map(lambda d: jax.lax.stop_gradient(d).astype(dtype), draws)

"""The arguments of a loop over time, converted and checked once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, initial_state, mask_params
from lstm_jax.engines import checks
from lstm_jax.types import Array, ArrayLike, CellParams, Noise, Row, wide


class Inputs(NamedTuple):
    """The arguments of every engine.

    Matrix products take operands in the dtype of x. Parameters, states and `noise.keep` have the
    dtype `wide` of it, float32 at least, in which everything else is computed.

    Attributes:
      params: the parameters of the cell.
      x: [T, B, D] inputs; arbitrary where masked, since engines ignore them there.
      state: the state before the first time step, each [B, width].
      initial: the state at sequence starts, each [B, width].
      mask: [T, B] bool, False where the state is held; None where it never is.
      reset: [T, B] bool, True where a sequence starts; None where none does.
      noise: keys of the time steps, and the factor of the feedback.
    """

    params: CellParams
    x: Array
    state: Row
    initial: Row
    mask: Array | None
    reset: Array | None
    noise: Noise


def prepare(
    cell: Cell,
    params: CellParams,
    x: ArrayLike,
    state: Row | None,
    initial: Row | None,
    mask: ArrayLike | None,
    reset: ArrayLike | None,
    noise: Noise | None,
    axes: tuple[str, ...] = ("T", "B"),
) -> Inputs:
    """Returns checked inputs of a loop over `axes`; of one step for axes ("B",).

    Raises:
      ValueError: a shape does not fit; TypeError: a dtype or the type of state does not.
    """
    suffix = "_t" if len(axes) == 1 else ""
    params = checks.params_of(cell, params)
    x = checks.floats(f"x{suffix}", x, (*axes, "D"), params.w_x.shape[0])
    mask = checks.flags(f"mask{suffix}", mask, x.shape[:-1])
    reset = checks.flags(f"reset{suffix}", reset, x.shape[:-1])
    batch, dtype = x.shape[-2], wide(x.dtype)
    initial = initial_state(cell, (), dtype) if initial is None else initial
    initial = checks.state_of("initial", cell, initial, batch, dtype)
    state = initial if state is None else state
    state = checks.state_of("state", cell, state, batch, dtype)
    initial, state = (_placed_as(x, row) for row in (initial, state))
    noise = checks.noise_of(cell, noise, x)
    params = _varying(x, mask_params(cell, jax.tree.map(lambda p: p.astype(dtype), params)))
    return Inputs(params, x, state, initial, mask, reset, noise)


def _varying(x: Array, params: CellParams) -> CellParams:
    """Returns `params`, which vary over devices as x does inside `jax.shard_map`.

    Their gradients are then summed over devices once, after the loop, not at every product.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return params
    zero = jnp.zeros_like(x, shape=())
    return jax.tree.map(lambda p: p + jnp.broadcast_to(zero.astype(p.dtype), p.shape), params)


def _placed_as(x: Array, row: Row) -> Row:
    """Returns states [width] or [B, width] as [B, width], sharded like the rows of x.

    A loop's state needs the same sharding before and after each time step. An empty sum over x
    gives zeros [B] with the sharding of x.
    """
    zero = jnp.sum(x[..., :0], axis=(*range(x.ndim - 2), x.ndim - 1))

    def placed(s):
        zeros = jnp.broadcast_to(zero[:, None].astype(s.dtype), (x.shape[-2], s.shape[-1]))
        return zeros + (s if s.ndim == 2 else s[None])

    return jax.tree.map(placed, row)

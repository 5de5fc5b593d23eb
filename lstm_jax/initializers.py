"""Initial parameters: weights block by block, and biases that say what a cell remembers at first."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lstm_jax.cells import Cell, feedback_width
from lstm_jax.types import Array, CellParams

WeightInit = Callable[..., Array]  # (key, shape, dtype) -> array
BiasInit = Callable[..., Mapping[str, Array]]  # (key, cell, dtype) -> block -> vector


def glorot() -> WeightInit:
    """Uniform with variance 2 / (fan in + fan out) (Glorot & Bengio 2010)."""
    return jax.nn.initializers.glorot_uniform()


def orthogonal() -> WeightInit:
    """A random orthogonal matrix, or its best part when the block is not square (Saxe et al. 2014)."""
    return jax.nn.initializers.orthogonal()


def init(
    cell: Cell,
    key: Array,
    input_size: int,
    *,
    w_x: WeightInit | None = None,
    w_h: WeightInit | None = None,
    b: BiasInit | None = None,
    dtype=jnp.float32,
) -> CellParams:
    """Returns the initial parameters of one layer of `cell` on inputs of width `input_size`.

    Args:
      cell: the recurrent cell.
      key: a PRNG key.
      input_size: D, the width of the input.
      w_x: initialiser of each input block [D, width]; Glorot by default.
      w_h: initialiser of each recurrent block [H, width]; orthogonal by default.
      b: biases by block; a block it does not name starts at `cell.bias`, or zero.
      dtype: of every parameter.

    Raises:
      ValueError: `input_size` is negative, or `b` names a block that the cell does not have.
    """
    if input_size < 0:
        raise ValueError(f"input_size must not be negative, got {input_size}")
    x_key, h_key, b_key, theta_key = jax.random.split(key, 4)
    theta = {n: jnp.asarray(v, dtype) for n, v in cell.init_theta(theta_key).items()}
    return CellParams(
        w_x=_blocks(cell, cell.x_blocks, x_key, input_size, w_x or glorot(), dtype),
        w_h=_blocks(cell, cell.h_blocks, h_key, feedback_width(cell), w_h or orthogonal(), dtype),
        b=_biases(cell, b_key, b, dtype),
        theta=cell.Theta(theta),
    )


def _blocks(cell, blocks, key, rows, initializer, dtype) -> Array:
    if not blocks or not rows:
        return jnp.zeros((rows, sum(cell.width(name) for name in blocks)), dtype)
    keys = jax.random.split(key, len(blocks))
    columns = [initializer(k, (rows, cell.width(n)), dtype) for k, n in zip(keys, blocks)]
    return jnp.concatenate(columns, axis=1)


def _biases(cell, key, b, dtype) -> Array:
    named = dict(b(key, cell, dtype)) if b else {}
    if unknown := set(named) - set(cell.gates):
        raise ValueError(f"b names blocks {sorted(unknown)}; {cell} has {tuple(cell.gates)}")
    parts = [
        jnp.broadcast_to(jnp.asarray(named.get(g, cell.bias.get(g, 0.0)), dtype), (cell.width(g),))
        for g in cell.gates
    ]
    return jnp.concatenate(parts)

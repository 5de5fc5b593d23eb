"""Layers and models of a few units, their inputs, and flags of every kind of row."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import lstm_jax as lj
from lstm_jax import cells
from lstm_jax.nn import (
    Recurrent,
    SequenceSpec,
    initializers,
)
from lstm_jax.types import Array

T, B, D, H, V = 7, 4, 3, 5, 2
CELL = cells.LSTM(H)
ENGINE = "reference"
KEY = jax.random.key(11)


def flags(*true: list[int]) -> Array:
    """[T, B]: the instants at which each row is True."""
    rows = [np.isin(np.arange(T), instants) for instants in true]
    return jnp.asarray(np.stack(rows, axis=1))


# A full row, a row with a gap and padding, a row of one instant, a row of none.
MASK = flags([0, 1, 2, 3, 4, 5, 6], [0, 1, 3, 4], [0], [])


# At the first instant and side by side, in a gap and in the padding, never, in the row of none.
RESET = flags([0, 3, 4], [2, 6], [], [3])


VALID = np.asarray(MASK)


def draw(seed: int, *shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def a_state(seed: int, cell: lj.Cell = CELL, rows: int = B) -> Any:
    return cell.State(*(draw(seed + i, rows, cell.width(s)) for i, s in enumerate(cell.states)))


def layer_of(seed: int, cell: lj.Cell = CELL, width: int = D, **options: Any) -> Recurrent:
    return Recurrent(
        cell, width, rngs=nnx.Rngs(seed), w_h=initializers.glorot(), engine=ENGINE, **options
    )


def spec_of(**changes: Any) -> SequenceSpec:
    spec = SequenceSpec(CELL, D, V, w_h=initializers.glorot(), engine=ENGINE)
    return dataclasses.replace(spec, **changes)


def params_of(spec: SequenceSpec) -> Any:
    """Parameters of the spec's shapes, none of them zero: compiles nothing."""
    shapes, treedef = jax.tree.flatten(jax.eval_shape(spec.init, jax.random.key(0)))
    leaves = [0.5 * draw(100 + i, *leaf.shape).astype(leaf.dtype) for i, leaf in enumerate(shapes)]
    return jax.tree.unflatten(treedef, leaves)


def drawn(spec: SequenceSpec, seed: int = 0, **given: Any) -> Any:
    return jax.jit(spec.init)(jax.random.key(seed), **given)


def assert_equal(found: Any, expected: Any, rtol: float = 0.0, atol: float = 1e-6) -> None:
    def same(a, b):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

    jax.tree.map(same, found, expected)


ZONED = cells.Zoneout(CELL, {"h": 0.3, "c": 0.2})


# Draws that compile in no time.
SIMPLE: dict[str, Any] = dict(
    w_x=initializers.identity(0.5),
    w_h=initializers.identity(0.5),
    b=initializers.torch_uniform_bias(),
)

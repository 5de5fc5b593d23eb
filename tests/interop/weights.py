"""Weights of small layers, and tensors as other libraries give them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from lstm_jax import cells, interop
from lstm_jax.nn import SequenceSpec
from lstm_jax.types import CellParams
from tests.peers import numbers

D, H, p = 2, 3, 2
LSTM, GRU, RNN = cells.LSTM(H), cells.GRU(H), cells.RNN(H, "relu")
ROOT = Path(__file__).parents[2]


def params_of(cell: lj.Cell, seed: int = 0, rows: int = D, projected: bool = False) -> CellParams:
    """Random parameters of one layer; NumPy draws, so that nothing is compiled."""
    x, h, b = (
        sum(cell.width(n) for n in names) for names in (cell.x_blocks, cell.h_blocks, cell.gates)
    )
    shapes = [(rows, x), (p if projected else H, h), (b,), (H, p)]
    w_x, w_h, b, P = (
        jnp.asarray(numbers(9 * seed + i, *shape), jnp.float32) for i, shape in enumerate(shapes)
    )
    return CellParams(w_x, (P, w_h) if projected else w_h, b, cell.Theta({}))


def layers_of_two(cell: lj.Cell, projected: bool = False) -> interop.Layers:
    width = 2 * (p if projected else H)
    return tuple(
        tuple(params_of(cell, 2 * depth + way, rows, projected) for way in range(2))
        for depth, rows in enumerate([D, width])
    )


def assert_same(found: Any, expected: Any) -> None:
    """Bit for bit, in structure, shape and dtype too."""

    def same(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(same, found, expected)


class FakeTensor:
    """A torch tensor on a device, with a gradient: NumPy takes it after `detach` and `cpu` only."""

    def __init__(self, array: np.ndarray, *ready: str):
        self.array, self.ready, self.dtype = array, ready, f"torch.{array.dtype}"

    def detach(self) -> "FakeTensor":
        return type(self)(self.array, *self.ready, "detach")

    def cpu(self) -> "FakeTensor":
        return FakeTensor(self.array, *self.ready, "cpu")

    def double(self) -> "FakeTensor":
        return FakeTensor(self.array.astype("float64"), *self.ready)

    def numpy(self) -> np.ndarray:
        if {*self.ready} != {"detach", "cpu"} or self.dtype == "torch.bfloat16":
            raise TypeError("not for NumPy")
        return self.array


def part(golden: Any, prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)}


def random_params(spec: SequenceSpec) -> Any:
    shapes = jax.eval_shape(spec.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    drawn = [jnp.asarray(numbers(i, *s.shape), s.dtype) for i, s in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def torch_tensors(cell: lj.Cell = LSTM, projected: bool = False) -> dict[str, np.ndarray]:
    return interop.to_torch(cell, layers_of_two(cell, projected))

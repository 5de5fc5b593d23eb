"""Flax: the cells of linen and of NNX, by their own trees of parameters.

Both have one bias a gate: the LSTM's beside the recurrent product, the GRU's and the simple cell's
beside that of the input. Linen's GRU has one more, in the recurrent half of its candidate; that of
NNX has not. Both reset after the product, as ours does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.checks import check_is
from lstm_jax.interop.checking import arrays, named
from lstm_jax.interop.layouts import LINEN, NNX, NNX_LSTM_CELL, kind, read, write
from lstm_jax.types import CellParams


def from_linen(cell: Cell, tree: Mapping[str, Any]) -> CellParams:
    """Returns the parameters of a linen cell.

    Args:
      cell: `LSTM(H)`, `GRU(H)` or `RNN(H)`, for `LSTMCell` and `OptimizedLSTMCell`, `GRUCell` and
        `SimpleCell`.
      tree: the cell's own parameters, `{"ii": {"kernel": ...}, ...}`: those of `linen.RNN(cell)`
        have them under "cell", those of a compact model under "OptimizedLSTMCell_0".

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: a tensor is missing, unexpected or of another shape or dtype: the first is named.
    """
    name = kind(cell)
    check_is("tree", tree, Mapping, "the parameters of a linen cell, a dictionary")
    source = f"flax.linen {name}"
    return read(source, LINEN[name], cell, arrays(source, named(tree)))


def to_linen(cell: Cell, params: CellParams) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of a linen cell as nested dictionaries of NumPy arrays.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: `w_h` is a pair, or a bias has no place there.
    """
    name = kind(cell)
    return _nested(write(f"flax.linen {name}", LINEN[name], cell, params))


def from_nnx(cell: Cell, tree: Mapping[str, Any]) -> CellParams:
    """Returns the parameters of an NNX cell.

    Args:
      cell: `LSTM(H)`, `GRU(H)` or `RNN(H)`, for `OptimizedLSTMCell` and `LSTMCell`, `GRUCell` and
        `SimpleCell`.
      tree: `nnx.to_pure_dict(nnx.state(cell, nnx.Param))`.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: a tensor is missing, unexpected or of another shape or dtype: the first is named.
    """
    name = kind(cell)
    check_is("tree", tree, Mapping, "the parameters of an NNX cell, a dictionary")
    layout = NNX_LSTM_CELL if name == "LSTM" and "ii" in tree else NNX[name]
    source = f"flax.nnx {name}"
    return read(source, layout, cell, arrays(source, named(tree)))


def to_nnx(
    cell: Cell, params: CellParams, *, optimized: bool = True
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of an NNX cell as nested dictionaries of NumPy arrays.

    Args:
      cell: the cell.
      params: its parameters.
      optimized: for an LSTM, those of `OptimizedLSTMCell`; False for those of `LSTMCell`.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: `w_h` is a pair, or a bias has no place there: that of the block `nh` of a GRU
        must be zero.
    """
    name = kind(cell)
    layout = NNX_LSTM_CELL if name == "LSTM" and not optimized else NNX[name]
    return _nested(write(f"flax.nnx {name}", layout, cell, params))


def _nested(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    tree: dict[str, dict[str, np.ndarray]] = {}
    for path, array in tensors.items():
        layer, name = path.split(".")
        tree.setdefault(layer, {})[name] = array
    return tree

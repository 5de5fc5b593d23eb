"""Keras 3: `layers.LSTM` and `layers.GRU`, by the names of their weights.

Keras puts the GRU's z before r, keeps its two biases as the rows of one tensor, and has two GRUs:
the one with `reset_after=True`, its default, is ours; the other applies the reset gate before the
product and is refused.
"""

from collections.abc import Mapping

import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.interop.layouts import KERAS, kind, present, read, write
from lstm_jax.types import Array, CellParams


def from_keras(cell: Cell, tensors: Mapping[str, Array | np.ndarray]) -> CellParams:
    """Returns the parameters of a Keras layer.

    Args:
      cell: `LSTM(H)` or `GRU(H)`.
      tensors: `kernel`, `recurrent_kernel` and `bias`, as `{w.name: w.numpy() for w in
        layer.weights}` gives them. An LSTM without `bias` has biases of zero here.

    Raises:
      TypeError: there is no such cell.
      ValueError: a GRU is one with `reset_after=False`, or, without a bias, may be; a tensor is
        missing, unexpected or of another shape or dtype: the first is named.
    """
    name, tensors = kind(cell, KERAS), dict(tensors)
    if name == "GRU" and "kernel" in tensors:
        tensors |= _two_rows(tensors.pop("bias", None))
    return read(f"keras.layers.{name}", present(KERAS[name], tensors), cell, tensors)


def to_keras(cell: Cell, params: CellParams) -> dict[str, np.ndarray]:
    """Returns the weights of a Keras layer, as NumPy arrays, in the order `set_weights` takes.

    Raises:
      TypeError: there is no such cell.
      ValueError: `w_h` is a pair.
    """
    name = kind(cell, KERAS)
    tensors = write(f"keras.layers.{name}", KERAS[name], cell, params)
    if name == "GRU":
        tensors["bias"] = np.stack([tensors.pop("bias[0]"), tensors.pop("bias[1]")])
    return tensors


def _two_rows(bias: Array | np.ndarray | None) -> dict[str, Array | np.ndarray]:
    if bias is None:
        raise ValueError(
            "keras.layers.GRU: tensor 'bias' is missing, and without it the weights do not say "
            "whether reset_after is True; if it is, give zeros [2, 3H]"
        )
    if bias.ndim == 1:
        raise ValueError(
            f"keras.layers.GRU: 'bias' of shape {bias.shape} is that of reset_after=False, which "
            "resets before the recurrent product; lj.cells.GRU is the GRU of reset_after=True"
        )
    if bias.ndim != 2 or bias.shape[0] != 2:
        raise ValueError(f"keras.layers.GRU: tensor 'bias' must be [2, 3H], got {bias.shape}")
    return {"bias[0]": bias[0], "bias[1]": bias[1]}

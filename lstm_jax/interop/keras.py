"""Keras 3: `layers.LSTM`, `layers.GRU` and `layers.SimpleRNN`, by the names of their weights.

Keras has the GRU's z before r, and its two biases as the rows of one tensor. Our GRU is Keras's
with `reset_after=True`, the default. With False, the reset gate is applied before the product; such
layers are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.checks import check_is
from lstm_jax.interop.checking import arrays
from lstm_jax.interop.layouts import KERAS, kind, present, read, write
from lstm_jax.types import Array, CellParams

CLASSES = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}
NAMES: tuple[str, ...] = ("kernel", "recurrent_kernel", "bias")


def from_keras(cell: Cell, weights: Sequence[Any] | Mapping[str, Any]) -> CellParams:
    """Returns the parameters of a Keras layer.

    Args:
      cell: `LSTM(H)`, `GRU(H)` or `RNN(H, activation)`, by the layer's own settings.
      weights: `layer.weights` or `layer.get_weights()`, or the same by name or path: `kernel`,
        `recurrent_kernel` and `bias`. A layer without a bias has biases of zero here. The halves of
        a `Bidirectional` are layers of their own, its `forward_layer` and `backward_layer`.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: the weights are those of several layers; a GRU is one with `reset_after=False`,
        or, without a bias, may be; a tensor is missing, unexpected or of another shape or dtype:
        the first is named.
    """
    name = kind(cell)
    source = f"keras.layers.{CLASSES[name]}"
    tensors = arrays(source, _of_one_layer(source, weights))
    if name == "GRU" and "kernel" in tensors:
        tensors |= _two_rows(tensors.pop("bias", None))
    return read(source, present(KERAS[name], tensors), cell, tensors)


def to_keras(cell: Cell, params: CellParams) -> dict[str, np.ndarray]:
    """Returns the weights of a Keras layer, as NumPy arrays, in the order `set_weights` takes.

    Raises:
      TypeError: the cell is none of those that convert.
      ValueError: `w_h` is a pair.
    """
    name = kind(cell)
    tensors = write(f"keras.layers.{CLASSES[name]}", KERAS[name], cell, params)
    if name == "GRU":
        tensors["bias"] = np.stack([tensors.pop("bias[0]"), tensors.pop("bias[1]")])
    return tensors


def _of_one_layer(source: str, weights: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the weights by name."""
    check_is("weights", weights, Sequence | Mapping, "those of a layer, such as layer.weights")
    if isinstance(weights, Mapping):
        tensors = {path.rsplit("/", 1)[-1]: weight for path, weight in weights.items()}
    else:
        tensors = dict(zip(NAMES, weights, strict=False))
    if len(tensors) < len(weights):
        raise ValueError(
            f"{source}: weights must be those of one layer, {len(NAMES)} at most, got "
            f"{len(weights)}; a Bidirectional has two layers, forward_layer and backward_layer"
        )
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

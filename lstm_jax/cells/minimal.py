"""Recurrent cells whose gates read the input only."""

import dataclasses
from typing import ClassVar

from jax.nn import log_sigmoid

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell


@dataclasses.dataclass(frozen=True)
class MinGRU(Cell):
    """The GRU without recurrent weights: linear in its state.

        z = sigmoid(x w_x + b)                    update gate, in [0, 1]
        n = x w_x + b                             candidate
        h' = (1 - z) * h + z * n                  hidden state

    Source: Feng et al. 2024.
    """

    gates: ClassVar = ("z", "n")
    reads: ClassVar = {"z": "x", "n": "x"}
    ranges: ClassVar = {"z": (0, 1)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        z = sigmoid(gates.z)
        h = (1 - z) * state.h + z * gates.n
        return state._replace(h=h), gates._replace(z=z)


@dataclasses.dataclass(frozen=True)
class MinLSTM(Cell):
    """The LSTM without recurrent weights, its two gates scaled to a sum of one.

        i, f = sigmoid(x w_x + b)                 gates, in [0, 1]
        n = x w_x + b                             candidate
        h' = (f * h + i * n) / (f + i)            hidden state

    Source: Feng et al. 2024.
    """

    gates: ClassVar = ("i", "f", "n")
    reads: ClassVar = {"i": "x", "f": "x", "n": "x"}
    bias: ClassVar = {"f": 1.0}
    ranges: ClassVar = {"i": (0, 1), "f": (0, 1)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates, i / (f + i) and f / (f + i), of a row."""
        # The quotient from logarithms: both gates may round to zero.
        f = sigmoid(log_sigmoid(gates.f) - log_sigmoid(gates.i))
        i = 1 - f
        h = f * state.h + i * gates.n
        return state._replace(h=h), gates._replace(i=i, f=f)

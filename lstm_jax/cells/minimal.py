"""Recurrent cells with gates that read the input only."""

import dataclasses
from typing import ClassVar

from jax.nn import log_sigmoid

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.linear import LinearCell


@dataclasses.dataclass(frozen=True)
class MinGRU(LinearCell):
    """The GRU without recurrent weights: linear in its state.

        z = sigmoid(x w_x + b)                    update gate, in [0, 1]
        n = x w_x + b                             candidate
        h' = (1 - z) * h + z * n                  hidden state

    Source: Feng et al. 2024.
    """

    gates: ClassVar = ("z", "n")
    ranges: ClassVar = {"z": (0, 1)}

    def linear(self, gates, theta):
        """Returns 1 - z, z * n and the activated gates of one row."""
        z = sigmoid(gates.z)
        return 1 - z, z * gates.n, gates._replace(z=z)


@dataclasses.dataclass(frozen=True)
class MinLSTM(LinearCell):
    """The LSTM without recurrent weights, its two gates scaled to a sum of one.

        i, f = sigmoid(x w_x + b)                 gates, in [0, 1]
        n = x w_x + b                             candidate
        h' = (f * h + i * n) / (f + i)            hidden state

    The activated gates are the scaled ones, i / (f + i) and f / (f + i).

    Source: Feng et al. 2024.
    """

    gates: ClassVar = ("i", "f", "n")
    bias: ClassVar = {"f": 1.0}
    ranges: ClassVar = {"i": (0, 1), "f": (0, 1)}

    def linear(self, gates, theta):
        """Returns the two factors of h' and the activated gates of one row."""
        # f / (f + i), computed from logarithms: both gates may round to zero.
        f = sigmoid(log_sigmoid(gates.f) - log_sigmoid(gates.i))
        i = 1 - f
        return f, i * gates.n, gates._replace(i=i, f=f)

"""Long short-term memory."""

import dataclasses
from typing import ClassVar

from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell


@dataclasses.dataclass(frozen=True)
class LSTM(Cell):
    """The LSTM: three gates control what a cell state forgets, stores and outputs.

        i, f, o = sigmoid(x w_x + h w_h + b)      gates, in [0, 1]
        g = tanh(x w_x + h w_h + b)               candidate memory, in [-1, 1]
        c' = f * c + i * g                        cell state
        h' = o * tanh(c')                         hidden state

    Source: Hochreiter & Schmidhuber 1997; the forget gate, Gers et al. 2000; its bias of 1,
    Jozefowicz et al. 2015.
    """

    gates: ClassVar = ("i", "f", "g", "o")
    states: ClassVar = ("h", "c")
    bias: ClassVar = {"f": 1.0}
    ranges: ClassVar = {"i": (0, 1), "f": (0, 1), "g": (-1, 1), "o": (0, 1), "h": (-1, 1)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        i, f, g, o = sigmoid(gates.i), sigmoid(gates.f), tanh(gates.g), sigmoid(gates.o)
        c = f * state.c + i * g
        h = o * tanh(c)
        return state._replace(h=h, c=c), gates._replace(i=i, f=f, g=g, o=o)

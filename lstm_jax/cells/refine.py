"""The LSTM with a refine gate."""

import dataclasses
from typing import ClassVar

from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell


@dataclasses.dataclass(frozen=True)
class URLSTM(Cell):
    """The LSTM with a refine gate and coupled input and forget gates.

        f, r, o = sigmoid(x w_x + h w_h + b)      forget, refine and output gate, in [0, 1]
        k = (1 - 2 r) * f^2 + 2 r * f             refined gate, in [f^2, 1 - (1 - f)^2]
        g = tanh(x w_x + h w_h + b)               candidate memory, in [-1, 1]
        c' = k * c + (1 - k) * g                  cell state
        h' = o * tanh(c')                         hidden state

    The U in its name refers to the biases of `initializers.uniform_gate`: b_f is the logit of a
    uniform number and b_r = -b_f. The paper ties the two in training; here they only start tied.

    Source: Gu et al. 2020.
    """

    gates: ClassVar = ("f", "r", "g", "o")
    states: ClassVar = ("h", "c")
    bias: ClassVar = {"f": 1.0, "r": -1.0}
    ranges: ClassVar = {"f": (0, 1), "r": (0, 1), "g": (-1, 1), "o": (0, 1), "h": (-1, 1)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        f, r, g, o = sigmoid(gates.f), sigmoid(gates.r), tanh(gates.g), sigmoid(gates.o)
        k = (1 - 2 * r) * f**2 + 2 * r * f
        c = k * state.c + (1 - k) * g
        h = o * tanh(c)
        return state._replace(h=h, c=c), gates._replace(f=f, r=r, g=g, o=o)

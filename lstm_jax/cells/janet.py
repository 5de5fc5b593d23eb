"""JANET: an LSTM with a forget gate only."""

import dataclasses
import math
from typing import ClassVar

from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell


@dataclasses.dataclass(frozen=True)
class JANET(Cell):
    """The LSTM with a forget gate only.

        s = x w_x + h w_h + b                     of block f
        f = sigmoid(s)                            forget gate, in [0, 1]
        g = tanh(x w_x + h w_h + b)               candidate, in [-1, 1]
        h' = f * h + (1 - sigmoid(s - beta)) * g  hidden state

    Attributes:
      beta: offset of the input pre-activation: larger values admit more of the candidate.

    Source: van der Westhuizen & Lasenby 2018; its chrono biases are `initializers.chrono` with
    `input=None`.
    """

    beta: float = 1.0

    gates: ClassVar = ("f", "g")
    bias: ClassVar = {"f": 1.0}

    @property
    def ranges(self):
        """The ranges; h stays within exp(beta), or 1 where beta is negative."""
        bound = math.exp(max(self.beta, 0.0))
        return {"f": (0, 1), "g": (-1, 1), "h": (-bound, bound)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        f, g = sigmoid(gates.f), tanh(gates.g)
        h = f * state.h + (1 - sigmoid(gates.f - self.beta)) * g
        return state._replace(h=h), gates._replace(f=f, g=g)

"""The gated recurrent unit."""

import dataclasses
from typing import ClassVar

from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell


@dataclasses.dataclass(frozen=True)
class GRU(Cell):
    """The GRU with the reset gate after the recurrent product, as in cuDNN and torch.

        r, z = sigmoid(x w_x + h w_h + b)         reset and update gates, in [0, 1]
        n = tanh(nx + r * nh)                     candidate; nx = x w_x + b, nh = h w_h + b
        h' = (1 - z) * n + z * h                  hidden state

    Source: Cho et al. 2014, in the form of its version 1.
    """

    gates: ClassVar = ("r", "z", "nx", "nh")
    reads: ClassVar = {"nx": "x", "nh": "h"}
    ranges: ClassVar = {"r": (0, 1), "z": (0, 1), "nx": (-1, 1), "h": (-1, 1)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates; `nx` holds the candidate."""
        r, z = sigmoid(gates.r), sigmoid(gates.z)
        n = tanh(gates.nx + r * gates.nh)
        h = (1 - z) * n + z * state.h
        return state._replace(h=h), gates._replace(r=r, z=z, nx=n)

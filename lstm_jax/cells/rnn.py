"""The Elman network."""

import dataclasses
from typing import ClassVar

from jax.nn import relu, tanh

from lstm_jax.cells.base import Cell
from lstm_jax.checks import check_choice

ACTIVATIONS = {"tanh": tanh, "relu": relu}


@dataclasses.dataclass(frozen=True)
class RNN(Cell):
    """The Elman network.

        h' = tanh(x w_x + h w_h + b)              hidden state; relu in place of tanh by choice

    With relu and the identity as the initial `w_h`, it is the IRNN.

    Source: Elman 1990; the IRNN, Le, Jaitly & Hinton 2015.
    """

    activation: str = "tanh"

    gates: ClassVar = ("h",)
    states: ClassVar = ("h",)

    def __post_init__(self):
        super().__post_init__()
        check_choice("activation", self.activation, ACTIVATIONS)

    @property
    def ranges(self):
        """The range of h: [-1, 1] with tanh, non-negative with relu."""
        return {"h": (-1, 1)} if self.activation == "tanh" else {"h": (0, float("inf"))}

    def update(self, gates, state, theta):
        """Returns the next state and the activation of one row."""
        h = ACTIVATIONS[self.activation](gates.h)
        return state._replace(h=h), gates._replace(h=h)

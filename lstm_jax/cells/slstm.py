"""The LSTM with exponential gates."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell
from lstm_jax.checks import check_choice
from lstm_jax.types import Array

FORGET_GATES = ("sigmoid", "exponential")


@dataclasses.dataclass(frozen=True)
class SLSTM(Cell):
    """The LSTM with an exponential input gate, which can outweigh all earlier input.

        i = exp(a_i)                              input gate, positive; a = x w_x + h w_h + b
        f = sigmoid(a_f), or exp(a_f)             forget gate
        z, o = tanh(a_z), sigmoid(a_o)            cell input, in [-1, 1]; output gate, in [0, 1]
        C' = f * C + i * z                        cell state
        N' = f * N + i                            normaliser: the sum of all weights so far
        h' = o * C' / N'                          hidden state, in [-1, 1] from a zero state

    C and N may overflow or underflow. The states are therefore c = C exp(-m) and n = N exp(-m),
    where the stabiliser m removes the larger of the two exponents:

        m' = max(log f + m, log i);  c' = exp(log f + m - m') * c + exp(log i - m') * z;  n' alike

    Where n = 0 nothing is stored and m' = log i. The activated gates i and f are the shares of the
    two terms of n': they sum to one.

    Attributes:
      hidden: H, the number of units in all heads; the units of a head are adjacent.
      heads: number of heads. A unit's gates read the h of its own head only: each of the four
        blocks of `w_h` is block-diagonal.
      forget_gate: "sigmoid" or "exponential".

    Raises:
      ValueError: heads do not divide H, or `forget_gate` is unknown.

    Source: Beck et al. 2024 (xLSTM), section 2.2 and appendix A.2; the sigmoid, the rule for n = 0
    and the initial biases follow the authors' code.
    """

    heads: int = 1
    forget_gate: str = "sigmoid"

    gates: ClassVar = ("i", "f", "z", "o")
    states: ClassVar = ("h", "c", "n", "m")
    ranges: ClassVar = {"i": (0, 1), "f": (0, 1), "z": (-1, 1), "o": (0, 1), "n": (0, math.inf)}

    def __post_init__(self):
        super().__post_init__()
        if self.heads < 1 or self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden = {self.hidden}, got {self.heads!r}")
        check_choice("forget_gate", self.forget_gate, FORGET_GATES)

    @property
    def bias(self):
        """The initial forget biases, spread over the units of a head by a power law.

        Unit k of K starts with f = sigmoid(5 - 12 (k / (K - 1))^0.3), for both kinds of gate.
        """
        K = self.hidden // self.heads
        b = np.tile(5 - 12 * (np.arange(K) / max(K - 1, 1)) ** 0.3, self.heads)
        return {"f": b if self.forget_gate == "sigmoid" else -np.log1p(np.exp(-b))}

    def wiring(self, name):
        """Returns a mask in which units read their own head; None for one head."""
        if self.heads == 1:
            return None
        head = np.arange(self.hidden) // (self.hidden // self.heads)
        return head[:, None] == head

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        log_i = gates.i
        log_f = log_sigmoid(gates.f) if self.forget_gate == "sigmoid" else gates.f
        forgotten = log_f + state.m
        m = jnp.where(state.n > 0, jnp.maximum(forgotten, log_i), log_i)
        i, f = jnp.exp(log_i - m), _finite_exp(forgotten - m)
        z, o = tanh(gates.z), sigmoid(gates.o)
        c = f * state.c + i * z
        n = f * state.n + i
        h = o * c / n
        shares = dict(i=i / n, f=f * state.n / n)
        return state._replace(h=h, c=c, n=n, m=m), gates._replace(z=z, o=o, **shares)


def _finite_exp(x: Array) -> Array:
    # x > 0 only where n = 0: the result multiplies zeros there, and infinity would give NaN.
    return jnp.exp(jnp.minimum(x, math.log(float(jnp.finfo(x.dtype).max)) / 2))

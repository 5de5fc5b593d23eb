"""The LSTM with layer normalisation."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax.nn import tanh

from lstm_jax.cells.activations import sigmoid
from lstm_jax.cells.base import Cell
from lstm_jax.types import Array


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(Cell):
    """The LSTM whose two products and whose cell state are normalised over the units.

        LN(v) = (v - mean(v)) / sqrt(variance(v) + epsilon)
        a = gain_x * LN(x w_x) + gain_h * LN(h w_h) + b       [4H], normalised over all four blocks
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)    gates, in [0, 1]
        g = tanh(a_g)                                         candidate memory, in [-1, 1]
        c' = f * c + i * g                                    cell state
        h' = o * tanh(gain_c * LN(c') + bias_c)               hidden state

    The products of block i are the blocks xi and hi; i itself holds the bias and, activated, the
    gate. The paper adds two more biases to a, which come to the one here.

    Attributes:
      epsilon: added to the variance.

    Source: Ba, Kiros & Hinton 2016, supplementary material.
    """

    epsilon: float = 1e-5

    gates: ClassVar = ("i", "f", "g", "o", "xi", "xf", "xg", "xo", "hi", "hf", "hg", "ho")
    states: ClassVar = ("h", "c")
    reads: ClassVar = {g: g[0] if len(g) == 2 else "b" for g in gates}
    unbiased: ClassVar = gates[4:]
    bias: ClassVar = {"f": 1.0}
    ranges: ClassVar = {"i": (0, 1), "f": (0, 1), "g": (-1, 1), "o": (0, 1), "h": (-1, 1)}

    def init_theta(self, key):
        """Returns gains of one and biases of zero."""
        H = self.hidden
        ones = {"gain_x": jnp.ones(4 * H), "gain_h": jnp.ones(4 * H), "gain_c": jnp.ones(H)}
        return ones | {"bias_c": jnp.zeros(H)}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        b, from_x, from_h = (jnp.concatenate(gates[n : n + 4]) for n in (0, 4, 8))
        a = theta.gain_x * self._norm(from_x) + theta.gain_h * self._norm(from_h) + b
        i, f, g, o = jnp.split(a, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * state.c + i * g
        h = o * tanh(theta.gain_c * self._norm(c) + theta.bias_c)
        return state._replace(h=h, c=c), gates._replace(i=i, f=f, g=g, o=o)

    def _norm(self, v: Array) -> Array:
        return (v - jnp.mean(v)) / jnp.sqrt(jnp.var(v) + self.epsilon)

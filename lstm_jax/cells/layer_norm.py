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
    """The LSTM with layer normalisation of its two products and its cell state.

        LN(v) = (v - mean(v)) / sqrt(variance(v) + epsilon)
        a = gain_x * LN(x w_x) + gain_h * LN(h w_h) + b       [4H], normalised over all four blocks
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)    gates, in [0, 1]
        g = tanh(a_g)                                         candidate memory, in [-1, 1]
        c' = f * c + i * g                                    cell state
        h' = o * tanh(gain_c * LN(c') + bias_c)               hidden state

    The products of block i are the blocks xi and hi; i itself holds the bias and, activated, the
    gate. Each block has its own gain: `gain_xi` is that of x w_x in block i. The paper has two more
    biases in a; their sum with b is the one bias here.

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
        ones, zeros = jnp.ones(self.hidden), jnp.zeros(self.hidden)
        return {f"gain_{name}": ones for name in (*self.unbiased, "c")} | {"bias_c": zeros}

    def update(self, gates, state, theta):
        """Returns the next state and the activated gates of one row."""
        products = [*self._norm(*gates[4:8]), *self._norm(*gates[8:])]
        normed = dict(zip(self.unbiased, products, strict=True))

        def a(name):
            x, h = (getattr(theta, f"gain_{n}") * normed[n] for n in (f"x{name}", f"h{name}"))
            return x + h + getattr(gates, name)

        i, f, g, o = sigmoid(a("i")), sigmoid(a("f")), tanh(a("g")), sigmoid(a("o"))
        c = f * state.c + i * g
        h = o * tanh(theta.gain_c * self._norm(c)[0] + theta.bias_c)
        return state._replace(h=h, c=c), gates._replace(i=i, f=f, g=g, o=o)

    def _norm(self, *blocks: Array) -> list[Array]:
        """Returns blocks normalised over all their units.

        No vector is longer than H, as a kernel requires.
        """
        count = sum(v.size for v in blocks)
        mean = jnp.sum(sum(blocks)) / count
        centred = [v - mean for v in blocks]
        variance = jnp.sum(sum(v**2 for v in centred)) / count
        return [v / jnp.sqrt(variance + self.epsilon) for v in centred]

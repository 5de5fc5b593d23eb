"""Cells that the laws are tested on: the built-in ones, and some a user might write."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import tanh

import lstm_jax as lj
from lstm_jax.cells import sigmoid


@dataclass(frozen=True)
class CIFG(lj.Cell):
    """Coupled input and forget gates, as a user would write it."""

    gates = ("f", "g", "o")
    states = ("h", "c")

    def update(self, gates, state, theta):
        f, g, o = sigmoid(gates.f), tanh(gates.g), sigmoid(gates.o)
        c = f * state.c + (1 - f) * g
        return state._replace(h=o * tanh(c), c=c), gates._replace(f=f, g=g, o=o)


@dataclass(frozen=True)
class Peephole(lj.Cell):
    """Gates that look at the cell state through small vectors of their own."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")

    def init_theta(self, key):
        names = ("p_i", "p_f", "p_o")
        keys = jax.random.split(key, 3)
        return {n: jax.random.normal(k, (self.hidden,)) for n, k in zip(names, keys, strict=True)}

    def update(self, gates, state, theta):
        i = sigmoid(gates.i + theta.p_i * state.c)
        f = sigmoid(gates.f + theta.p_f * state.c)
        c = f * state.c + i * tanh(gates.g)
        o = sigmoid(gates.o + theta.p_o * c)
        return state._replace(h=o * tanh(c), c=c), gates._replace(i=i, f=f, o=o)


@dataclass(frozen=True)
class Uneven(lj.Cell):
    """One scalar gate a row, the whole state fed back, no gate that reads only the state."""

    gates = ("f", "g")
    states = ("h", "trace")
    reads = {"g": "x"}

    def widths(self):
        return {"f": 1}

    def feedback(self, state):
        return jnp.concatenate([state.h, jax.lax.stop_gradient(state.trace)], axis=-1)

    def update(self, gates, state, theta):
        f, g = sigmoid(gates.f), tanh(gates.g)
        h = f * state.h + (1 - f) * g
        return state._replace(h=h, trace=0.9 * state.trace + 0.1 * h), gates._replace(f=f, g=g)


def drawn_params(cell, input_size, rng, dtype=jnp.float32):
    """Normal parameters, and the small ones of the start: compiles nothing where there are none."""
    shapes = jax.eval_shape(lambda: lj.init(cell, jax.random.key(0), input_size, dtype=dtype))
    drawn = jax.tree.map(lambda a: rng.normal(0, 0.5, a.shape).astype(a.dtype), shapes)
    theta = {n: np.asarray(a, dtype) for n, a in cell.init_theta(jax.random.key(0)).items()}
    params = lj.cells.mask_params(cell, drawn._replace(theta=cell.Theta(theta)))
    return jax.tree.map(jnp.asarray, params)


BUILT_IN = [
    lj.cells.LSTM(5),
    lj.cells.GRU(5),
    lj.cells.RNN(5),
    lj.cells.RNN(5, activation="relu"),
]
CELLS = [*BUILT_IN, CIFG(5), Peephole(5), Uneven(5)]

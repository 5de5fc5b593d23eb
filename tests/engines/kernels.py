"""Problems for the fused engine, small enough to be interpreted."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import tanh

import lstm_jax as lj
from lstm_jax.cells import sigmoid
from lstm_jax.engines import Pallas
from tests.cells_under_test import CIFG, Peephole, drawn_params

T, B, D, H = 5, 18, 2, 5  # two tiles of 16 rows; on a TPU three chunks, the last one filled up
GPU, TPU = Pallas("gpu", interpret=True), Pallas("tpu", interpret=True)
C = lj.cells


@dataclass(frozen=True)
class Own(lj.Cell):
    """A cell of a user's: a scalar in theta, a gate that reads the input only, a feedback."""

    gates = ("f", "g")
    states = ("h", "s")
    reads = {"g": "x"}

    def init_theta(self, key):
        return {"rate": jnp.float32(0.3)}

    def feedback(self, state):
        return state.h * (1 + state.s)

    def update(self, gates, state, theta):
        f, g = sigmoid(gates.f), tanh(gates.g)
        h = f * state.h + (1 - f) * g
        s = state.s + theta.rate * (h - state.s)
        return state._replace(h=h, s=s), gates._replace(f=f, g=g)


@dataclass(frozen=True)
class Jittered(C.GRU):
    """A GRU whose candidates are moved by noise; what scales it gets no gradient."""

    def init_theta(self, key):
        return {"scale": jnp.float32(0.2)}

    def draw(self, theta, key):
        step = jax.random.normal(key, (self.hidden,), theta.scale.dtype)
        return {"step": theta.scale * step}

    def update(self, gates, state, theta, draws=None):
        moved = gates if draws is None else gates._replace(nx=gates.nx + draws.step)
        return super().update(moved, state, theta)


FGR = C.PeepholeLSTM(H, gate_recurrence=True, clip=0.3)
SHARED, ZONED = C.MemoryBlocks(6, size=3), C.Zoneout(C.LSTM(H), {"h": 0.3, "c": 0.4})
QUICK = [FGR, Own(H), C.LayerNormLSTM(16), SHARED, ZONED]
OTHERS = [
    C.LSTM(H), C.GRU(H),
    C.SLSTM(H), C.MinLSTM(H), *(C.odyssey(variant, H) for variant in C.ODYSSEY),
    C.MemoryBlocks(H),
    C.MemoryBlocks(H, truncated=True, forget_gate=True), C.MemoryBlocks(H, recurrent=False),
    C.MemoryBlocks(H, forget_gate=True, gate_recurrence=False),
    C.RNN(H), C.RNN(H, activation="relu"), C.JANET(H), C.URLSTM(H), C.MinGRU(H),
    C.SLSTM(6, heads=2), C.SLSTM(H, forget_gate="exponential"), CIFG(H), Peephole(H),
    C.MemoryBlocks(4, size=2, truncated=True, forget_gate=True), C.MemoryBlocks(4, size=4),
    C.Zoneout(SHARED, {"c": 0.4}), C.Zoneout(FGR, {"f": 0.4}), Jittered(H),
]  # fmt: skip


def problem(cell, seed=0, dtype=jnp.float64, size=(T, B)):
    """Returns what is differentiated, and a mask with gaps, resets, and noise of every kind."""
    rng = np.random.default_rng(seed)
    params = drawn_params(cell, D, rng, dtype)
    x = jnp.asarray(rng.normal(size=(*size, D)), dtype)
    state, initial = (
        cell.State(*(jnp.asarray(rng.random((size[1], cell.width(s))), dtype) for s in cell.states))
        for _ in range(2)
    )
    mask, reset = (jnp.asarray(rng.random(size) < rate) for rate in (0.7, 0.2))
    keep = jnp.asarray(rng.random((size[1], C.feedback_width(cell))), dtype)
    draws = jax.random.split(jax.random.key(seed), size[0]) if cell.noisy else None
    return (params, x, state, initial), (mask, reset, lj.Noise(draws, keep))


def outputs(cell, engine, params, x, state, initial, mask=None, reset=None, noise=None):
    """Returns the final state and h."""
    return lj.unroll(
        cell, params, x, state, initial=initial, mask=mask, reset=reset, noise=noise, engine=engine
    )


def slope(cell, engine, smooth, mask=None, reset=None, noise=None):
    """Returns a number that outputs and the final state enter, and all its gradients."""

    def score(params, x, state, initial):
        final, h = outputs(cell, engine, params, x, state, initial, mask, reset, noise)
        return sum(jnp.sum(jnp.sin((i + 1) * leaf)) for i, leaf in enumerate((h, *final)))

    return jax.value_and_grad(score, (0, 1, 2, 3))(*smooth)


def kernel_grids(jaxpr):
    """Returns the grid of every kernel in a program, whatever calls it."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found.append(equation.params["grid_mapping"].grid)
        else:
            inner = (
                v for v in equation.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")
            )
            for value in inner:
                found += kernel_grids(getattr(value, "jaxpr", value))
    return found


ON_DEVICE = [pytest.param(Pallas(p), marks=getattr(pytest.mark, p)) for p in ("gpu", "tpu")]

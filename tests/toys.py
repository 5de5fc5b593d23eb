"""The smallest problems and models that learning can be tested with: they compile in no time."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.runs import RunDirectory
from lstm_jax.tasks import Stats, Task
from lstm_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Line(Task):
    """Find the slope 3 of y = 3 x from one number a sequence; right within 0.3."""

    name: ClassVar = "line"
    readout: ClassVar = "last"
    input_size: ClassVar = 1
    output_size: ClassVar = 1
    length: ClassVar = 1
    chance: ClassVar = 0.0
    solvable: bool = False

    def sample(self, key, batch_size, split="train"):
        x = jax.random.normal(jax.random.fold_in(key, len(split)), (1, batch_size, 1))
        return Batch(x, 3 * x[0])

    def loss(self, outputs, batch):
        return jnp.mean((outputs - batch.y) ** 2)

    def correct(self, outputs, batch):
        return (jnp.abs(outputs - batch.y) < 0.3)[:, 0].astype(jnp.float32)

    def solved(self, stats: Stats):
        return (stats.metric > 0.99) & self.solvable


@dataclasses.dataclass(frozen=True)
class Slope:
    """Two numbers w, b; the output is w x + b."""

    dtype: str = "float32"

    def init(self, key, *, scale, gate_bias):
        w = scale * jax.random.normal(key, (1, 1))
        return {"w": w.astype(self.dtype), "b": jnp.zeros((1,), self.dtype)}

    def apply(self, params, x, *, mask=None, reset=None, rates=None, key=None):
        return x[-1] @ params["w"].astype(x.dtype) + params["b"].astype(x.dtype)[None]


@dataclasses.dataclass(frozen=True)
class Elman:
    """A tanh network of 8 units, written out; with dropout on its last state."""

    input_size: int
    output_size: int

    def init(self, key, *, scale, gate_bias):
        x_key, h_key, y_key = jax.random.split(key, 3)
        return {
            "w_x": scale * jax.random.normal(x_key, (self.input_size, 8)) / 2,
            "w_h": jax.random.normal(h_key, (8, 8)) / 3,
            "w_y": jax.random.normal(y_key, (8, self.output_size)) / 3,
        }

    def apply(self, params, x, *, mask=None, reset=None, rates: Any = None, key=None):
        def instant(h, x_t):
            return jnp.tanh(x_t @ params["w_x"] + h @ params["w_h"]), None

        h, _ = jax.lax.scan(instant, jnp.zeros((x.shape[1], 8)), x)
        if key is not None and rates.dropout is not None:
            h = jnp.where(jax.random.uniform(key, h.shape) < rates.dropout, 0.0, h)
        return h @ params["w_y"]


class Eager(RunDirectory):
    """A run that saves a checkpoint at every chance."""

    save_seconds = 0.0

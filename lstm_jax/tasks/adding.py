"""Adding: the sum of two marked numbers among many, in the modern form and in that of 1997."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

TOLERANCE = 0.04


@dataclasses.dataclass(frozen=True)
class Adding(base.Task):
    """Add the two marked numbers of a sequence of fixed length.

    A time step has a value of U[0, 1] and a marker; one random step of each half is marked. The
    target is the sum of the two marked values, answered at the last step. With length=6:

        value    .9  .2  .4  .7  .1  .5
        marker    0   1   0   0   0   1
        answer                       .7

    D = 2, V = 1, T = length; y [B] float32. The loss is the mean squared error; the constant answer
    1 has baseline_loss = 1/6. A sequence is correct if |error| < 0.04; the answer 1 is correct with
    chance 2 (0.04) - 0.04^2 = 7.84 %. A trial is solved when its running accuracy reaches 0.99.

    Attributes:
      length: time steps of every sequence, at least 2.

    Raises:
      ValueError: length is too small or not an integer.

    Source: Arjovsky, Shah & Bengio 2016, section 4.2.
    """

    length: int

    name: ClassVar = "adding"
    readout: ClassVar = "last"
    metric_name: ClassVar = "error < 0.04"
    input_size: ClassVar = 2
    output_size: ClassVar = 1
    chance: ClassVar = 2 * TOLERANCE - TOLERANCE**2
    baseline_loss: ClassVar = 1 / 6

    def __post_init__(self):
        base.check_size("length", self.length, 2)

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the values and one mark in each half."""
        value_key, first_key, second_key = jax.random.split(base.split_key(key, split), 3)
        half = self.length // 2
        values = jax.random.uniform(value_key, (self.length, batch_size), jnp.float32)
        first = jax.random.randint(first_key, (batch_size,), 0, half, jnp.int32)
        second = jax.random.randint(second_key, (batch_size,), half, self.length, jnp.int32)
        marks = _at(first, self.length) + _at(second, self.length)
        return Batch(jnp.stack([values, marks], axis=-1), jnp.sum(values * marks, axis=0))

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean squared error of the answer; outputs [B, 1]."""
        return base.squared_error(outputs[:, 0], batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where |answer - target| < 0.04, else 0, [B]."""
        return base.within(TOLERANCE, outputs[:, 0], batch.y)

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the running accuracy is at least 0.99."""
        return stats.metric >= 0.99


@dataclasses.dataclass(frozen=True)
class Adding1997(base.Task):
    """Add the two marked numbers of a sequence of varying length, as in 1997.

    A row's length is uniform on the integers of [T, 1.1 T]. A time step has a value of U[-1, 1] and
    a marker. The marker is 1 at one of the first ten steps and at another of the first T/2 - 1
    steps, -1 at the first and the last step, else 0. The target is 0.5 + (X1 + X2) / 4, answered at
    a row's last step by a sigmoid output. With T=11, in a row of 12 steps:

        value   -.3   .8   .1  -.6   .2   .5  -.9   .4   .7  -.1   .3   .6
        marker   -1    0    0    1    1    0    0    0    0    0    0   -1
        answer                                                          .4

    The first marker is -1 even if the draw marks that step; its value then counts as zero. X1 + X2
    is thus always the sum of the values whose marker is 1. Padding is zero.

    D = 2, V = 1 (the logit of the answer), mask [T, B], y [B] float32. The loss is the mean squared
    error of sigmoid(output). Let q = 1/10 + 9/10 / (T/2 - 1) be the probability that the first step
    is marked. The constant answer 0.5 has baseline_loss = (1 - q) / 24 + q / 48. It is correct
    (|error| < 0.04) with chance 0.1536 (1 - q) + 0.16 q: 0.0392 and 15.4 % for T = 100. A trial is
    solved when its running accuracy reaches 0.99.

    Attributes:
      shortest: T, the time steps of the shortest sequence, at least 11.

    Raises:
      ValueError: shortest is too small or not an integer.

    Source: Hochreiter & Schmidhuber 1997, experiment 4.
    """

    shortest: int

    name: ClassVar[str] = "adding_1997"
    lowest: ClassVar[float] = -1.0  # of the values
    readout: ClassVar = "last"
    metric_name: ClassVar = "error < 0.04"
    input_size: ClassVar = 2
    output_size: ClassVar = 1

    def __post_init__(self):
        base.check_size("shortest", self.shortest, 11)

    @property
    def length(self) -> int:
        """The time steps of the longest sequence."""
        return self.shortest + self.shortest // 10

    @property
    def chance(self) -> float:
        """The share of sequences for which the answer 0.5 is correct."""
        width, q = 4 * TOLERANCE, self.first_is_marked
        return (width - width**2 / 4) * (1 - q) + width * q

    @property
    def baseline_loss(self) -> float:
        """The loss of the constant answer 0.5."""
        q = self.first_is_marked
        return (1 - q) / 24 + q / 48

    @property
    def first_is_marked(self) -> float:
        """The probability that the draw marks the first step."""
        return 1 / 10 + 9 / 10 / (self.shortest // 2 - 1)

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws lengths, values and marks."""
        value_key, length_key, mark_key = jax.random.split(base.split_key(key, split), 3)
        shape, row = (self.length, batch_size), (batch_size,)
        lengths = jax.random.randint(length_key, row, self.shortest, self.length + 1, jnp.int32)
        mask = jnp.arange(self.length, dtype=jnp.int32)[:, None] < lengths[None, :]
        marks = self._marks(mark_key, batch_size)
        values = jax.random.uniform(value_key, shape, jnp.float32, self.lowest, 1.0)
        values = jnp.where(mask, values, 0.0)
        marker = marks.at[0].set(-1.0) - _at(lengths - 1, self.length)
        x = jnp.stack([values, marker], axis=-1)
        return Batch(x, self.target(values, marks), mask)

    def target(self, values: Array, marks: Array) -> Array:
        """Returns the answers [B] to values and marks, both [T, B]."""
        return 0.5 + jnp.sum(values * marks, axis=0) / 4

    def _marks(self, key: Array, batch_size: int) -> Array:
        """Returns [T, B]: 1 at the marked steps, except for the first step."""
        first_key, second_key = jax.random.split(key)
        unmarked = self.shortest // 2 - 1
        first = jax.random.randint(first_key, (batch_size,), 0, 10, jnp.int32)
        second = jax.random.randint(second_key, (batch_size,), 0, unmarked, jnp.int32)
        second = jnp.where(second >= first, second + 1, second)  # skips the step already marked
        return (_at(first, self.length) + _at(second, self.length)).at[0].set(0.0)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean squared error of sigmoid(outputs); outputs [B, 1]."""
        return base.squared_error(jax.nn.sigmoid(outputs[:, 0]), batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where |answer - target| < 0.04, else 0, [B]."""
        return base.within(TOLERANCE, jax.nn.sigmoid(outputs[:, 0]), batch.y)

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the running accuracy is at least 0.99."""
        return stats.metric >= 0.99


def _at(step: Array, length: int) -> Array:
    """Returns [length, B] float32: 1 at each row's step [B], else 0."""
    return jax.nn.one_hot(step, length, axis=0, dtype=jnp.float32)

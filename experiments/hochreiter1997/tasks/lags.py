"""Strings whose last symbol is an early one again, after many others: the lags of 1997."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from experiments.hochreiter1997.tasks.criterion import Criterion, NamingTask
from experiments.hochreiter1997.tasks.losses import half_squared_error, logistic_errors
from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

TESTED = 10_000


@dataclasses.dataclass(frozen=True)
class TwoStrings(NamingTask):
    """Predict every next symbol of a string whose last one is its first again.

    The symbols are x, y and a_1 to a_{p-1}. Half of the strings begin and end with x, the others
    with y; between stand a_1 to a_{p-1} in their order or, if `noisy`, p - 1 of them drawn with
    replacement. With p = 4:

        x, in order        x    a1   a2   a3
        y                  a1   a2   a3   x
        x, noisy           y    a2   a2   a1
        y                  a2   a2   a1   y

    D = V = p + 1 one-hot symbols, x and y last; T = p; y [T, B] int32. The loss is the squared
    error of 1997, sum_t sum_k (sigmoid(output_k) - [k follows])^2 / 2. The deviation of a string is
    its greatest |error| over all steps and outputs or, if `noisy`, over the outputs of the last
    step, since only that can be predicted. A trial is done when it was below 0.25 for each of the
    last 10,000 training strings. Without its first symbol half of the strings are right: chance.
    With `last_only` the other symbols are neither learned nor tested; with `cross_entropy` the
    loss is the cross entropy instead of the square.
    Source: Hochreiter & Schmidhuber 1997, experiments 2a and 2b (`noisy`).
    """

    symbols: int = 100  # p, the lag, at least 2
    noisy: bool = False  # whether what stands between is random
    last_only: bool = False  # whether the last symbol alone is to be predicted
    cross_entropy: bool = False  # whether it is learnt by cross entropy

    name: ClassVar = "two_strings"
    readout: ClassVar = "every"
    chance: ClassVar = 0.5
    criterion: ClassVar = Criterion(TESTED, 0.25)

    def __post_init__(self):
        base.check_size("symbols", self.symbols, 2)
        for name in ("noisy", "last_only", "cross_entropy"):
            base.check_choice(name, getattr(self, name), (False, True))

    @property
    def length(self) -> int:
        """T: the steps of every string, one less than it has symbols."""
        return self.symbols

    @property
    def input_size(self) -> int:
        """D: one-hot symbols."""
        return self.symbols + 1

    @property
    def output_size(self) -> int:
        """V: a logit for each symbol."""
        return self.symbols + 1

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws first symbols, and what stands between."""
        first_key, key = jax.random.split(base.split_key(key, split))
        ends = (1, batch_size)
        first = self.symbols - 1 + jax.random.bernoulli(first_key, 0.5, ends).astype(jnp.int32)
        shape = (self.symbols - 1, batch_size)
        between = jnp.broadcast_to(jnp.arange(shape[0], dtype=jnp.int32)[:, None], shape)
        if self.noisy:
            between = jax.random.randint(key, shape, 0, shape[0], jnp.int32)
        string = jnp.concatenate([first, between, first])
        return Batch(jax.nn.one_hot(string[:-1], self.input_size, dtype=jnp.float32), string[1:])

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the error of the targets, summed over a string; outputs [T, B, V]."""
        errors = logistic_errors(outputs, self.targets(batch), self.cross_entropy)
        last = batch.y >= self.symbols - 1  # x and y follow nowhere else
        counts = last | (not self.last_only)
        return jnp.sum(errors, where=counts[..., None]) / batch.y.shape[-1]

    def deviation(self, outputs: Array, batch: Batch) -> Array:
        """Returns the greatest |error| of what can be predicted, [B]."""
        errors = jnp.abs(jax.nn.sigmoid(outputs) - self.targets(batch).astype(outputs.dtype))
        return jnp.max(errors[-1:] if self.noisy or self.last_only else errors, axis=(0, 2))


@dataclasses.dataclass(frozen=True)
class RandomLag(NamingTask):
    """Name the second symbol of a string when it ends, after q distractors or more.

    A string is b, then x or y, then q + k symbols drawn from a_1 to a_p, then e; k is geometric, at
    each symbol the string goes on with probability 0.9, so that the expected length is q + 13 with
    the answer. The answer is read at e. With q = 3, in a string of k = 1:

        x         b    y    a4   a1   a1   a3   e
        answer                                  y

    D = p + 4 one-hot symbols (a_1 to a_p, x, y, b, e), V = 2 logits, of x and of y, y [B] int32,
    mask [T, B]. Where k would be beyond `LONGEST` it is `LONGEST`: once in 100,000 strings. The
    loss is sum_k (sigmoid(output_k) - [it is k])^2 / 2; the answers 0.5 cost baseline_loss = 1/4.
    A string is right when both errors are below 0.2, so that chance is 1/2, and a trial is done
    when the last 10,000 training strings were.
    Source: Hochreiter & Schmidhuber 1997, experiment 2c.
    """

    distractors: int = 50  # q, the shortest lag, at least 0
    symbols: int = 50  # p, how many different distractors there are, at least 1

    LONGEST: ClassVar = 110
    STOP: ClassVar = 0.1

    name: ClassVar = "random_lag"
    readout: ClassVar = "last"
    output_size: ClassVar = 2
    chance: ClassVar = 0.5
    baseline_loss: ClassVar = 0.25
    criterion: ClassVar = Criterion(TESTED, 0.2)

    def __post_init__(self):
        base.check_size("distractors", self.distractors, 0)
        base.check_size("symbols", self.symbols, 1)

    @property
    def length(self) -> int:
        """T: the steps of the longest string."""
        return self.distractors + self.LONGEST + 3

    @property
    def input_size(self) -> int:
        """D: one-hot symbols."""
        return self.symbols + 4

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws what is to be named, how many distractors there are, and which."""
        second_key, more_key, key = jax.random.split(base.split_key(key, split), 3)
        row, p = (batch_size,), self.symbols
        second = jax.random.bernoulli(second_key, 0.5, row).astype(jnp.int32)
        # k >= n with probability .9^n
        u = jax.random.uniform(more_key, row, jnp.float32, jnp.finfo(jnp.float32).tiny, 1.0)
        more = jnp.floor(jnp.log(u) / math.log(1 - self.STOP)).astype(jnp.int32)
        last = 2 + self.distractors + jnp.minimum(more, self.LONGEST)
        step = jnp.arange(self.length, dtype=jnp.int32)[:, None]
        string = jax.random.randint(key, (self.length, batch_size), 0, p, jnp.int32)
        string = jnp.where(step == last[None], p + 3, string).at[0].set(p + 2).at[1].set(p + second)
        mask = step <= last[None]
        x = jax.nn.one_hot(jnp.where(mask, string, -1), self.input_size, dtype=jnp.float32)
        return Batch(x, second, mask)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns half the squared error of sigmoid(outputs), summed over both; outputs [B, 2]."""
        return half_squared_error(jax.nn.sigmoid(outputs), self.targets(batch))

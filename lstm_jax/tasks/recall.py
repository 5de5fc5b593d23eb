"""Recall: name a marked symbol after a lag full of similar symbols."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class Recall(base.Task):
    """Name the marked symbol, `lag` steps after it.

    The symbol of step 0 has the marker input on. `lag` distractors from the same alphabet follow,
    which differ from it by the marker alone. The answer is due at the last distractor. With lag=3
    and symbols=4:

        step     0  1  2  3
        symbol   2  0  3  0
        marker   1  0  0  0
        answer            2

    D = symbols + 1 (one-hot symbol, then the marker), V = symbols, T = lag + 1; y [B] int32. The
    loss is the mean cross-entropy, and chance is 1 / symbols. A trial is solved when its running
    accuracy reaches 0.99.

    Attributes:
      lag: steps between the marked symbol and the answer, at least 1.
      symbols: size of the alphabet, at least 2.

    Raises:
      ValueError: lag or symbols is too small or not an integer.
    """

    lag: int
    symbols: int = 8

    name: ClassVar = "recall"
    readout: ClassVar = "last"

    def __post_init__(self):
        base.check_size("lag", self.lag, 1)
        base.check_size("symbols", self.symbols, 2)

    @property
    def input_size(self) -> int:
        """D: the one-hot symbol, then the marker."""
        return self.symbols + 1

    @property
    def output_size(self) -> int:
        """V: one logit for each symbol."""
        return self.symbols

    @property
    def length(self) -> int:
        """T: the marked symbol and `lag` distractors."""
        return self.lag + 1

    @property
    def chance(self) -> float:
        """The accuracy of a constant answer."""
        return 1 / self.symbols

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws symbols for every step and marks the first, which is the answer."""
        key = base.split_key(key, split)
        shape = (self.length, batch_size)
        symbols = jax.random.randint(key, shape, 0, self.symbols, jnp.int32)
        marker = jnp.zeros((*shape, 1), jnp.float32).at[0].set(1.0)
        one_hot = jax.nn.one_hot(symbols, self.symbols, dtype=jnp.float32)
        return Batch(jnp.concatenate([one_hot, marker], axis=-1), symbols[0])

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of the answer, in nats; outputs [B, symbols]."""
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where the marked symbol has the largest output, else 0, [B]."""
        return base.labelled(outputs, batch.y)

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the running accuracy is at least 0.99."""
        return stats.metric >= 0.99

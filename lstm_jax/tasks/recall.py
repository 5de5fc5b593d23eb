"""Recall: name a marked symbol after a lag filled with symbols that look just like it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class Recall(base.Task):
    """Name the marked symbol, `lag` steps after it was shown.

    The symbol stands at step 0 with the marker input on; `lag` distractors follow, drawn from the
    same alphabet and one-hot at full strength, so that nothing but the mark tells them apart. The
    answer is read at the last distractor. There is no query flag: every sequence has the same
    length, so the place of the readout already says when to answer. With lag=3 and symbols=4:

        step     0  1  2  3
        symbol   2  0  3  0
        marker   1  0  0  0
        answer            2

    D = symbols + 1 (one-hot symbol, then the marker), V = symbols, T = lag + 1; y [B] int32. The
    loss is the mean cross-entropy, chance is 1 / symbols, and a trial is solved when its running
    accuracy reaches 0.99.

    Attributes:
      lag: steps between the marked symbol and the answer, at least 1.
      symbols: size of the alphabet, at least 2.

    Raises:
      ValueError: lag or symbols is too small or no integer.
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
        """Accuracy of any fixed answer."""
        return 1 / self.symbols

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws symbols for every step and marks the first; the first is the answer."""
        key = base.split_key(key, split)
        shape = (self.length, batch_size)
        symbols = jax.random.randint(key, shape, 0, self.symbols, jnp.int32)
        marker = jnp.zeros((*shape, 1), jnp.float32).at[0].set(1.0)
        one_hot = jax.nn.one_hot(symbols, self.symbols, dtype=jnp.float32)
        return Batch(jnp.concatenate([one_hot, marker], axis=-1), symbols[0])

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean cross-entropy of the answer, in nats; outputs [B, symbols]."""
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where the largest output is that of the marked symbol, [B]."""
        return base.labelled(outputs, batch.y)

    def solved(self, stats: base.Stats) -> Array:
        """Whether the running accuracy has reached 0.99."""
        return stats.metric >= 0.99

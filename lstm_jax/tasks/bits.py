"""Bits: recall random bits after a gap of random length."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

BLANK, CUE = 2, 3  # the symbols besides the bits 0 and 1


@dataclasses.dataclass(frozen=True)
class Bits(base.Task):
    """Recall `count` random bits, one after another, from a cue on.

    After the bits come 1 to `gap` blanks, uniformly distributed, and the cue. Then the bits follow
    again, and each must be predicted before it appears. The answer is thus the next symbol of the
    sequence, as a hidden Markov model predicts it. With count=3 and gap=4 (blank `_`, cue `:`):

        input    1 0 0 _ _ : 1 0
        answer             1 0 0

    The four symbols are one-hot in the order 0, 1, `_`, `:`: D = 4, V = 2, T = 2 count + gap; y [T,
    B] int32, 0 where no answer is due. The loss is the mean cross-entropy of a bit. The metric is
    the share of bits that are right, chance 1/2. A sequence is correct if every bit is. A trial is
    solved when its running loss is at most ln(2) / 100: 99 % of the information in each bit.

    Attributes:
      count: number of bits, at least 1.
      gap: the most blanks, at least 1.

    Raises:
      ValueError: count or gap is too small or not an integer.
    """

    count: int
    gap: int = 8

    name: ClassVar = "bits"
    readout: ClassVar = "every"
    metric_name: ClassVar = "accuracy of a bit"
    input_size: ClassVar = 4
    output_size: ClassVar = 2
    chance: ClassVar = 0.5

    def __post_init__(self):
        base.check_size("count", self.count, 1)
        base.check_size("gap", self.gap, 1)

    @property
    def length(self) -> int:
        """T: the bits, the longest gap, the cue, and the bits again without the last."""
        return 2 * self.count + self.gap

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the bits and the length of the gap."""
        bits_key, gap_key = jax.random.split(base.split_key(key, split))
        bits = jax.random.randint(bits_key, (self.count, batch_size), 0, 2, jnp.int32)
        gap = jax.random.randint(gap_key, (1, batch_size), 1, self.gap + 1, jnp.int32)
        t = jnp.arange(self.length, dtype=jnp.int32)[:, None]
        due = t - self.count - gap  # the number of the bit to predict
        again = base.rows(bits, due - 1)
        late = jnp.where(due < 0, BLANK, jnp.where(due == 0, CUE, again))
        symbols = jnp.where(t < self.count, base.rows(bits, t), late)
        mask = due < self.count
        x = jax.nn.one_hot(jnp.where(mask, symbols, -1), self.input_size, dtype=jnp.float32)
        return Batch(x, jnp.where((due >= 0) & mask, base.rows(bits, due), 0), mask)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of a bit, in nats; outputs [T, B, 2]."""
        return jnp.mean(base.cross_entropies(outputs, batch.y), where=_due(batch))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where every bit is right, else 0, [B]."""
        right = base.labelled(outputs, batch.y)
        return jnp.min(right, axis=0, where=_due(batch), initial=1.0)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of bits that are right, a scalar."""
        return jnp.mean(base.labelled(outputs, batch.y), where=_due(batch))

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the running loss is at most a hundredth of a guess's loss."""
        return stats.loss <= math.log(2) / 100


def _due(batch: Batch) -> Array:
    """Returns [T, B] bool, True where an answer is due: from the cue on."""
    return (jnp.cumsum(batch.x[..., CUE], axis=0) > 0) & (batch.x.sum(-1) > 0)

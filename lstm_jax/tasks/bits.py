"""Bits: repeat random bits after a gap of random length."""

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
    """Name `count` random bits, one after another, when the cue comes.

    The bits are followed by a gap of blanks, as many as 1 to `gap` with equal probability, and the
    cue; from then on the bits come again, and each is to be named before it is seen. So the answer
    is the next symbol of a sequence, which is what a hidden Markov model has to predict of it. With
    count=3 and gap=4 (blank written `_`, cue `:`):

        input    1 0 0 _ _ : 1 0
        answer             1 0 0

    The four symbols are one-hot in the order 0, 1, `_`, `:`: D = 4, V = 2, T = 2 count + gap;
    y [T, B] int32, 0 where nothing is asked. The loss is the mean cross-entropy of a bit and the
    metric the share of bits named right, chance 1/2; a sequence is correct when every bit is. A
    trial is solved when its running loss is at most ln(2) / 100: when it knows 99 % of each bit.

    Attributes:
      count: the bits to keep, at least 1.
      gap: the most blanks, at least 1.

    Raises:
      ValueError: count or gap is too small or no integer.
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
        """T: the bits, the longest gap, the cue, and all bits but the last again."""
        return 2 * self.count + self.gap

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the bits and the length of the gap; the rest follows."""
        bits_key, gap_key = jax.random.split(base.split_key(key, split))
        bits = jax.random.randint(bits_key, (self.count, batch_size), 0, 2, jnp.int32)
        gap = jax.random.randint(gap_key, (1, batch_size), 1, self.gap + 1, jnp.int32)
        t = jnp.arange(self.length, dtype=jnp.int32)[:, None]
        asked = t - self.count - gap  # the number of the bit that is to be named
        again = base.rows(bits, asked - 1)
        late = jnp.where(asked < 0, BLANK, jnp.where(asked == 0, CUE, again))
        symbols = jnp.where(t < self.count, base.rows(bits, t), late)
        mask = asked < self.count
        x = jax.nn.one_hot(jnp.where(mask, symbols, -1), self.input_size, dtype=jnp.float32)
        return Batch(x, jnp.where((asked >= 0) & mask, base.rows(bits, asked), 0), mask)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean cross-entropy of a bit, in nats; outputs [T, B, 2]."""
        return base.mean_where(_asked(batch), base.cross_entropies(outputs, batch.y))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where every bit is right, [B]."""
        right = base.labelled(outputs, batch.y)
        return jnp.min(jnp.where(_asked(batch), right, 1.0), axis=0)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of bits named right, a scalar."""
        return base.mean_where(_asked(batch), base.labelled(outputs, batch.y))

    def solved(self, stats: base.Stats) -> Array:
        """Whether the running loss has come down to a hundredth of a guess's."""
        return stats.loss <= math.log(2) / 100


def _asked(batch: Batch) -> Array:
    """Where a bit is to be named: from the cue on, [T, B]."""
    return (jnp.cumsum(batch.x[..., CUE], axis=0) > 0) & (batch.x.sum(-1) > 0)

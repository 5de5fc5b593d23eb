"""Temporal order: in which order two or three marks came, far apart, in the form of 1997."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from experiments.hochreiter1997.tasks.criterion import Criterion, NamingTask
from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

SYMBOLS = "abcdXYEB"
STANDS = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}  # first and last step


@dataclasses.dataclass(frozen=True)
class TemporalOrder(NamingTask):
    """Name the order of the marks X and Y in a string of distractors.

    A string of U[100, 110] symbols begins with E and ends with B; the others are drawn from a, b, c
    and d, but for two marks at steps of U[10, 20] and U[50, 60] (three: U[10, 20], U[33, 43] and
    U[66, 76]), each X or Y with probability 1/2; E is step 0. The answer is read at B: the class is
    the number whose binary digits the marks are, Y being 1. Shortened:

        x         E  b  Y  d  a  c  X  a  B
        answer                            2     of 0 to 3, XX, XY, YX, YY

    D = 8 one-hot symbols in the order of `SYMBOLS`, V = 4 (three marks: 8) logits, T = 110, mask
    [T, B], y [B] int32. The loss is sum_k (sigmoid(output_k) - [the class is k])^2 / 2; the best
    constant outputs, 1 / V, cost baseline_loss = (1 - 1 / V) / 2. A string is right when no |error|
    is 0.3 or more; always one class gives chance 1 / V. A trial is done when the last 2,000
    training strings were right, with a mean below 0.1 of their greatest |error|: "the average
    error", which the paper does not define. With `cross_entropy` the loss is the
    cross entropy instead of the square, and baseline_loss = ln V + (V - 1) ln(V / (V - 1)).
    Source: Hochreiter & Schmidhuber 1997, experiments 6a and 6b.
    """

    marks: int = 2  # 2 (experiment 6a) or 3 (6b)
    cross_entropy: bool = False  # whether it is learnt by cross entropy

    name: ClassVar = "temporal_order"
    readout: ClassVar = "last"
    input_size: ClassVar = len(SYMBOLS)
    length: ClassVar = 110
    criterion: ClassVar = Criterion(2000, 0.3, mean=0.1)

    def __post_init__(self):
        base.check_choice("marks", self.marks, STANDS)
        base.check_choice("cross_entropy", self.cross_entropy, (False, True))

    @property
    def output_size(self) -> int:
        """V: a logit for each order."""
        return 2**self.marks

    @property
    def chance(self) -> float:
        """Share of strings of any one class."""
        return 1 / self.output_size

    @property
    def baseline_loss(self) -> float:
        """The loss of the best constant outputs."""
        p = self.chance
        if self.cross_entropy:
            return -math.log(p) - (1 / p - 1) * math.log(1 - p)
        return (1 - p) / 2

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws lengths, distractors, where the marks stand and what they are."""
        length_key, symbol_key, mark_key, *stand_keys = jax.random.split(
            base.split_key(key, split), 3 + self.marks
        )
        row, step = (batch_size,), jnp.arange(self.length, dtype=jnp.int32)[:, None]
        last = jax.random.randint(length_key, row, 99, self.length, jnp.int32)
        string = jax.random.randint(symbol_key, (self.length, batch_size), 0, 4, jnp.int32)
        marks = jax.random.bernoulli(mark_key, 0.5, (self.marks, batch_size)).astype(jnp.int32)
        for mark, stand_key, (low, high) in zip(marks, stand_keys, STANDS[self.marks], strict=True):
            stand = jax.random.randint(stand_key, row, low, high + 1, jnp.int32)
            string = jnp.where(step == stand[None], SYMBOLS.index("X") + mark[None], string)
        string = string.at[0].set(SYMBOLS.index("E"))
        string, mask = jnp.where(step == last[None], SYMBOLS.index("B"), string), step <= last[None]
        x = jax.nn.one_hot(jnp.where(mask, string, -1), len(SYMBOLS), dtype=jnp.float32)
        digits = 2 ** jnp.arange(self.marks - 1, -1, -1, dtype=jnp.int32)
        return Batch(x, jnp.sum(digits[:, None] * marks, axis=0, dtype=jnp.int32), mask)

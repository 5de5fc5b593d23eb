"""Copy memory: repeat a string of letters after a long gap."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class CopyMemory(base.Task):
    """Repeat `letters` random letters after the delimiter, `lag` steps after the last letter.

    The input has the letters, lag - 1 blanks, the delimiter and blanks for the answer. The target
    is blank up to the delimiter; then it has the letters. With lag=4, letters=3, symbols=8 (blank
    `_`, delimiter `:`):

        input    2 7 0 _ _ _ : _ _ _
        target   _ _ _ _ _ _ _ 2 7 0

    Letters come first in the order of symbols, then the blank, then the delimiter: D = symbols + 2
    one-hot inputs and V = symbols + 1 classes. T = lag + 2 letters; y [T, B] int32. The loss is the
    mean cross-entropy over all steps. A sequence is correct if every letter is. The best model
    without memory has

        baseline_loss = letters ln(symbols) / T,    chance = symbols^-letters.

    A trial is solved when its running loss is at most a tenth of that baseline and its running
    accuracy at least 0.95.

    Attributes:
      lag: steps from the last letter to the delimiter, at least 1. The answer repeats each letter
        lag + letters steps later.
      letters: number of letters, at least 1.
      symbols: size of the alphabet, at least 2.

    Raises:
      ValueError: lag, letters or symbols is too small or not an integer.

    Source: Hochreiter & Schmidhuber 1997 in the form of Arjovsky et al. 2016; lengths as in Tallec
    & Ollivier 2018, section 3.
    """

    lag: int
    letters: int = 10
    symbols: int = 8

    name: ClassVar = "copy_memory"
    readout: ClassVar = "every"
    metric_name: ClassVar = "exact recall"

    def __post_init__(self):
        base.check_size("lag", self.lag, 1)
        base.check_size("letters", self.letters, 1)
        base.check_size("symbols", self.symbols, 2)

    @property
    def input_size(self) -> int:
        """D: one-hot letters, the blank and the delimiter."""
        return self.symbols + 2

    @property
    def output_size(self) -> int:
        """V: one logit for each letter and for the blank."""
        return self.symbols + 1

    @property
    def length(self) -> int:
        """T: letters, blanks and delimiter, answer."""
        return self.lag + 2 * self.letters

    @property
    def chance(self) -> float:
        """The accuracy of guessing every letter."""
        return self.symbols**-self.letters

    @property
    def baseline_loss(self) -> float:
        """The loss of uniform guesses of the letters after the delimiter, in nats."""
        return self.letters * math.log(self.symbols) / self.length

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the letters."""
        key = base.split_key(key, split)
        blank, delimiter = self.symbols, self.symbols + 1
        shape = (self.letters, batch_size)
        letters = jax.random.randint(key, shape, 0, self.symbols, jnp.int32)
        blanks = jnp.full((self.lag + self.letters, batch_size), blank, jnp.int32)
        inputs = jnp.concatenate([letters, blanks.at[self.lag - 1].set(delimiter)])
        x = jax.nn.one_hot(inputs, self.input_size, dtype=jnp.float32)
        return Batch(x, jnp.concatenate([blanks, letters]))

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy over all steps, in nats; outputs [T, B, V]."""
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where every letter of the answer is right, else 0, [B]."""
        answer = slice(self.length - self.letters, None)
        return jnp.min(base.labelled(outputs[answer], batch.y[answer]), axis=0)

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the loss is at most a tenth of the baseline, and the accuracy 0.95."""
        return (stats.loss <= self.baseline_loss / 10) & (stats.metric >= 0.95)

"""Copy memory: repeat a string of letters after a long run of blanks."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch


@dataclasses.dataclass(frozen=True)
class CopyMemory(base.Task):
    """Repeat `letters` random letters once the delimiter comes, `lag` steps after the last of them.

    The input is the letters, lag - 1 blanks, the delimiter and room for the answer; the target is
    blank until the delimiter has passed, then the letters. With lag=4, letters=3, symbols=8 (blank
    written `_`, delimiter `:`):

        input    2 7 0 _ _ _ : _ _ _
        target   _ _ _ _ _ _ _ 2 7 0

    Letters are numbered first, then the blank, then the delimiter: D = symbols + 2 one-hot inputs
    and V = symbols + 1 classes, since the delimiter is never an answer. T = lag + 2 letters;
    y [T, B] int32. The loss is the mean cross-entropy over all steps; a
    sequence is correct when every letter is. A model without memory does no better than

        baseline_loss = letters ln(symbols) / T,    chance = symbols^-letters,

    and a trial is solved when its running loss is at most a tenth of that baseline and its running
    accuracy at least 0.95. Source: Hochreiter & Schmidhuber 1997 as recast by Arjovsky et al. 2016;
    lengths as in Tallec & Ollivier 2018, section 3.

    Attributes:
      lag: steps from the last letter to the delimiter, at least 1; every letter's copy is due
        lag + letters steps after it.
      letters: how many letters to keep, at least 1.
      symbols: size of the alphabet, at least 2.

    Raises:
      ValueError: lag, letters or symbols is too small or no integer.
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
        """Exact recall by guessing every letter."""
        return self.symbols**-self.letters

    @property
    def baseline_loss(self) -> float:
        """The loss of knowing when to answer and nothing else, in nats."""
        return self.letters * math.log(self.symbols) / self.length

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws the letters; the rest of the sequence is fixed."""
        key = base.split_key(key, split)
        blank, delimiter = self.symbols, self.symbols + 1
        shape = (self.letters, batch_size)
        letters = jax.random.randint(key, shape, 0, self.symbols, jnp.int32)
        blanks = jnp.full((self.lag + self.letters, batch_size), blank, jnp.int32)
        inputs = jnp.concatenate([letters, blanks.at[self.lag - 1].set(delimiter)])
        x = jax.nn.one_hot(inputs, self.input_size, dtype=jnp.float32)
        return Batch(x, jnp.concatenate([blanks, letters]))

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean cross-entropy over all steps, in nats; outputs [T, B, V]."""
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where every letter of the answer is right, [B]."""
        answer = slice(self.length - self.letters, None)
        return jnp.min(base.labelled(outputs[answer], batch.y[answer]), axis=0)

    def solved(self, stats: base.Stats) -> Array:
        """Whether a tenth of the baseline loss and 0.95 exact recall are reached."""
        return (stats.loss <= self.baseline_loss / 10) & (stats.metric >= 0.95)

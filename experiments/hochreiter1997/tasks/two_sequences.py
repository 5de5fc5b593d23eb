"""Two classes of noisy sequences with different starts, in the three forms of 1997."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from experiments.hochreiter1997.tasks.criterion import Criterion, CriterionTask
from experiments.hochreiter1997.tasks.losses import half_squared_error
from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

VARIANCE = 0.2  # of the noise
TARGET_VARIANCE = 0.1
TESTED = 256
CRITERIA = {
    "3a": Criterion(TESTED, 0.2, mean=0.01),
    "3b": Criterion(TESTED, 0.2, allowed=5, mean=0.04),
    "3c": Criterion(TESTED, 0.1, mean=0.015),
}


class Targets(NamedTuple):
    """The noisy target of training and the true target, [B] float32; equal but for form "3c"."""

    taught: Array
    meant: Array


@dataclasses.dataclass(frozen=True)
class TwoSequences(CriterionTask):
    """Name the class of a noisy sequence from its first N elements.

    A row's length is uniform on the integers of [T, 1.1 T]. In class 1 its first N elements are 1,
    in class 2 they are -1; all others are noise of N(0, 0.2), 0.2 being the variance. The target at
    the end is 1 for class 1 and 0 for class 2, a sigmoid output. Of class 1, with N=3 and T=9:

        x         1   1   1  .3 -.6  .1  .8 -.2  .4
        answer                                    1

    In form "3b" the first N elements have the same noise on them. In "3c" too, and the targets are
    0.8 and 0.2, taught with noise of N(0, 0.1) on them and judged without.

    D = 1, V = 1 (the logit), T = the steps of the longest row, mask [T, B], y `Targets`. The loss
    is (sigmoid(output) - taught)^2 / 2; the answer 0.5 costs baseline_loss, 1/8 or, in 3c, .095. A
    sequence is wrong when |sigmoid(output) - meant| is 0.2 (3c: 0.1) or more, so that one class
    always answered gives chance 1/2. A trial is done when of the last 256 training sequences, all
    of which are new as those of a test are, none (3b: fewer than 6) was answered wrong, and the
    mean |error| was below 0.01 (3b: 0.04, 3c: 0.015).
    Source: Hochreiter & Schmidhuber 1997, experiment 3, criterion ST2 in 3a and 3b.
    """

    shortest: int  # T, the steps of the shortest sequence
    signs: int = 3  # N, the first elements that say the class, at least 1 and at most T
    form: str = "3a"  # "3a", "3b" or "3c"

    name: ClassVar = "two_sequences"
    readout: ClassVar = "last"
    input_size: ClassVar = 1
    output_size: ClassVar = 1
    chance: ClassVar = 0.5

    def __post_init__(self):
        base.check_size("signs", self.signs, 1)
        base.check_size("shortest", self.shortest, self.signs)
        base.check_choice("form", self.form, CRITERIA)

    @property
    def length(self) -> int:
        """The steps of the longest sequence."""
        return self.shortest + self.shortest // 10

    @property
    def criterion(self) -> Criterion:
        """That of the form."""
        return CRITERIA[self.form]

    @property
    def baseline_loss(self) -> float:
        """The loss of always answering 0.5."""
        return (0.3**2 + TARGET_VARIANCE) / 2 if self.form == "3c" else 1 / 8

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws classes, lengths and noise."""
        class_key, length_key, x_key, y_key = jax.random.split(base.split_key(key, split), 4)
        row, first = (batch_size,), jnp.arange(self.length)[:, None] < self.signs
        one = jax.random.bernoulli(class_key, 0.5, row)
        lengths = jax.random.randint(length_key, row, self.shortest, self.length + 1, jnp.int32)
        mask = jnp.arange(self.length, dtype=jnp.int32)[:, None] < lengths[None, :]
        noise = VARIANCE**0.5 * jax.random.normal(x_key, mask.shape, jnp.float32)
        quiet = first if self.form == "3a" else jnp.zeros_like(first)
        sign = jnp.where(first, jnp.where(one, 1.0, -1.0)[None, :], 0.0)
        x = jnp.where(mask, sign + jnp.where(quiet, 0.0, noise), 0.0)
        return Batch(x[..., None].astype(jnp.float32), self._targets(y_key, one), mask)

    def _targets(self, key: Array, one: Array) -> Targets:
        if self.form != "3c":
            return Targets(one.astype(jnp.float32), one.astype(jnp.float32))
        meant = jnp.where(one, 0.8, 0.2).astype(jnp.float32)
        noise = TARGET_VARIANCE**0.5 * jax.random.normal(key, one.shape, jnp.float32)
        return Targets(meant + noise, meant)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns half the squared error of sigmoid(outputs) from the target; outputs [B, 1]."""
        return half_squared_error(jax.nn.sigmoid(outputs), batch.y.taught[:, None])

    def deviation(self, outputs: Array, batch: Batch) -> Array:
        """Returns |error| from what is meant, [B]."""
        return jnp.abs(jax.nn.sigmoid(outputs[:, 0]) - batch.y.meant.astype(outputs.dtype))

"""Adding and multiplying as they were learnt in 1997: one sequence an update, to a criterion."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from experiments.hochreiter1997.tasks.criterion import Criterion, CriterionTask
from experiments.hochreiter1997.tasks.losses import half_squared_error, logistic_errors
from lstm_jax.tasks import Adding1997, base
from lstm_jax.types import Array, Batch

RECENT = 2000
TOLERANCE = 0.04


@dataclasses.dataclass(frozen=True)
class AddingOnline(CriterionTask, Adding1997):
    """`Adding1997` with the error and the criterion of 1997, and a linear output unless `logistic`.

    The loss is (answer - target)^2 / 2, of an answer that is the output or, if `logistic`, its
    sigmoid; then it is half that of `Adding1997`. The baseline_loss is half of it in either case;
    D, V and T are the same. With `cross_entropy` the loss is the cross entropy instead of the
    square, and baseline_loss = ln 2. A trial is done when all of the last 2,000 training
    sequences were answered with |error| < 0.04, and with a mean |error| below 0.01: "the average
    training error", which the paper does not define; of its square, 0.01 would say nothing more.
    Source: Hochreiter & Schmidhuber 1997, experiment 4.

    Attributes:
      shortest: T, the steps of the shortest sequence, at least 11.
      logistic: whether the answer is squashed into [0, 1].
      cross_entropy: whether it is learnt by cross entropy; if so it must be `logistic`.
    """

    logistic: bool = False
    cross_entropy: bool = False

    name: ClassVar = "adding_online"
    criterion: ClassVar = Criterion(RECENT, TOLERANCE, mean=0.01)

    def __post_init__(self):
        super().__post_init__()
        base.check_choice("logistic", self.logistic, (False, True))
        base.check_choice("cross_entropy", self.cross_entropy, (False, True))
        if self.cross_entropy and not self.logistic:
            raise ValueError("cross_entropy=True needs logistic=True: a linear output has none")

    @property
    def baseline_loss(self) -> float:
        """The loss of always answering 0.5."""
        return math.log(2) if self.cross_entropy else super().baseline_loss / 2

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns half the squared error of the answers, or their cross entropy; outputs [B, 1]."""
        targets = batch.y[:, None]
        if self.logistic:
            errors = logistic_errors(outputs, targets, self.cross_entropy)
            return jnp.sum(errors) / len(errors)
        return half_squared_error(outputs, targets)

    def deviation(self, outputs: Array, batch: Batch) -> Array:
        """Returns |error|, [B]."""
        return jnp.abs(self._answers(outputs)[:, 0] - batch.y.astype(outputs.dtype))

    def _answers(self, outputs: Array) -> Array:
        return jax.nn.sigmoid(outputs) if self.logistic else outputs


@dataclasses.dataclass(frozen=True)
class MultiplyingOnline(AddingOnline):
    """Multiply the two marked numbers of a sequence of varying length, as in 1997.

    Lengths and marks are those of `Adding1997`, values are of U[0, 1], and the target is X1 X2; a
    value that is not shown as marked, being that of the first step, counts as 1. With T=11, in a
    row of 12 steps:

        value    .3   .8   .1   .6   .2   .5   .9   .4   .7   .1   .3   .6
        marker   -1    0    0    1    1    0    0    0    0    0    0   -1
        answer                                                          .12

    The loss is that of `AddingOnline`. With q = 1/10 + 9/10 / (T/2 - 1), the probability that the
    first step is marked, the best constant answer is m = (1 - q) / 4 + q / 2 and costs
    baseline_loss = ((1 - q) / 9 + q / 3 - m^2) / 2, or with `cross_entropy` -m ln m - (1 - m)
    ln(1 - m); where two steps are marked the variance is 7/144 = .0486. The answer 0.04 is right
    with chance (1 - q) .08 (1 - ln .08) + .08 q. A trial is done when fewer than `wrong` of the
    last 2,000 training sequences had |error| >= 0.04.
    Source: Hochreiter & Schmidhuber 1997, experiment 5.

    Attributes:
      shortest: T, the steps of the shortest sequence, at least 11.
      logistic: whether the answer is squashed into [0, 1].
      cross_entropy: whether it is learnt by cross entropy; if so it must be `logistic`.
      wrong: n_seq of the paper, at least 1.
    """

    wrong: int = 140

    name: ClassVar = "multiplying_online"
    lowest: ClassVar = 0.0

    def __post_init__(self):
        super().__post_init__()
        base.check_size("wrong", self.wrong, 1)

    @property
    def criterion(self) -> Criterion:
        """Fewer than `wrong` of the last 2,000 off by 0.04 or more."""
        return Criterion(RECENT, TOLERANCE, allowed=self.wrong - 1)

    @property
    def chance(self) -> float:
        """Share of sequences for which 0.04 is within 0.04 of the target."""
        width, q = 2 * TOLERANCE, self.first_is_marked
        return width * ((1 - q) * (1 - math.log(width)) + q)

    @property
    def baseline_loss(self) -> float:
        """The loss of the best constant answer."""
        q = self.first_is_marked
        mean = (1 - q) / 4 + q / 2
        if self.cross_entropy:
            return -mean * math.log(mean) - (1 - mean) * math.log(1 - mean)
        return ((1 - q) / 9 + q / 3 - mean**2) / 2

    def target(self, values: Array, marks: Array) -> Array:
        """Returns the product of the values that are marked, [B]."""
        return jnp.prod(jnp.where(marks > 0, values, 1.0), axis=0)

"""The criteria of 1997: a trial ends when its last training sequences are answered right."""

import abc
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.hochreiter1997.tasks.losses import logistic_errors
from lstm_jax.tasks import Stats, Task
from lstm_jax.types import Array, Batch


class Criterion(NamedTuple):
    """The end of a trial, by the answers to its last training sequences.

    Each answer precedes the update from its sequence.
    """

    window: int  # the number of sequences
    tolerance: float  # a sequence is right if its deviation is smaller
    allowed: int = 0  # the most wrong sequences
    mean: float = math.inf  # the mean deviation must be smaller

    def met(self, recent: Array) -> Array:
        """Returns whether deviations [window] meet the criterion, a bool scalar."""
        wrong = jnp.sum(recent >= self.tolerance)
        return (wrong <= self.allowed) & (jnp.mean(recent) < self.mean)


class CriterionTask(Task):
    """A problem whose trials end when the answers to the last sequences meet a criterion.

    A subclass writes `deviation` in place of `correct` and `solved`.
    """

    criterion: Criterion  # ends a trial

    @abc.abstractmethod
    def deviation(self, outputs: Array, batch: Batch) -> Array:
        """Returns the greatest error of the answer to each sequence, [B] float32."""

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns [B] float32: 1 where the deviation is below the criterion's tolerance."""
        return (self.deviation(outputs, batch) < self.criterion.tolerance).astype(jnp.float32)

    def memory(self) -> Array:
        """Returns the deviations [window] of the last sequences, inf where there are none yet."""
        return jnp.full(self.criterion.window, jnp.inf)

    def observe(self, memory: Array, outputs: Array, batch: Batch) -> Array:
        """Returns the memory with the deviations of a batch in the place of the oldest."""
        answers = jnp.asarray(self.deviation(outputs, batch), jnp.float32)
        return jnp.concatenate([memory, answers])[-len(memory) :]

    def solved(self, stats: Stats) -> Array:
        """Returns whether the last answers meet the criterion."""
        return self.criterion.met(stats.memory)


class NamingTask(CriterionTask):
    """A problem whose logistic outputs name the class y [B] of a sequence."""

    cross_entropy: bool = False  # whether it is learnt by cross entropy

    def targets(self, batch: Batch) -> Array:
        """Returns the target of each output, one-hot."""
        return jax.nn.one_hot(batch.y, self.output_size, dtype=jnp.float32)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the sum of the outputs' errors; outputs [B, V]."""
        errors = logistic_errors(outputs, self.targets(batch), self.cross_entropy)
        return jnp.sum(errors) / len(errors)

    def deviation(self, outputs: Array, batch: Batch) -> Array:
        """Returns the greatest |error| of the outputs, [B]."""
        errors = jax.nn.sigmoid(outputs) - self.targets(batch).astype(outputs.dtype)
        return jnp.max(jnp.abs(errors), axis=-1)

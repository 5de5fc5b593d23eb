"""The criteria of 1997: a trial ends when its last training sequences are answered right."""

import abc
import math
from typing import NamedTuple

import jax.numpy as jnp

from lstm_jax.tasks import Stats, Task
from lstm_jax.types import Array, Batch


class Criterion(NamedTuple):
    """The end of a trial, by the answers to its last training sequences.

    Each answer precedes the update from its sequence.

    Attributes:
      window: the number of sequences.
      tolerance: a sequence is right if its deviation is smaller.
      allowed: the most wrong sequences.
      mean: the mean deviation must be smaller.
    """

    window: int
    tolerance: float
    allowed: int = 0
    mean: float = math.inf

    def met(self, recent: Array) -> Array:
        """Returns whether deviations [window] meet the criterion, a bool scalar."""
        wrong = jnp.sum(recent >= self.tolerance)
        return (wrong <= self.allowed) & (jnp.mean(recent) < self.mean)


class CriterionTask(Task):
    """A problem whose trials end when the answers to the last sequences meet a criterion.

    A subclass writes `deviation` in place of `correct` and `solved`.

    Attributes:
      criterion: ends a trial.
    """

    criterion: Criterion

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

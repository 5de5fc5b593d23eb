"""The embedded Reber grammar learnt string by string until all of 512 are right, as in 1997."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from experiments.hochreiter1997.tasks.criterion import Criterion, CriterionTask
from lstm_jax.tasks import base, reber
from lstm_jax.types import Array, Batch

ASKED = 64  # strings at an update
BLOCKS = 2 * reber.STRINGS // ASKED
UPDATES = 48


class Answers(NamedTuple):
    """The symbols that follow each symbol of a string."""

    following: Array  # [T, B] int32, the symbol that does
    legal: Array  # [T, B, 7] bool, those that might; none where the mask is False
    learnt: Array  # [T, B] bool, whether it counts in the loss


@dataclasses.dataclass(frozen=True)
class ReberOnline(CriterionTask, reber.EmbeddedReber):
    """`EmbeddedReber` with the criterion of 1997: all strings that train and all that test.

    To look at 512 strings after every update would cost hundreds of updates. Instead a training
    batch of one string has `ASKED` more rows: one of the 8 blocks of strings that train or test,
    drawn at random. They have no part in the loss. A trial is done when every string was right in
    48 updates; that a given block was not among them has a probability of (7/8)^48 = 0.0016. This
    asks more than the paper does, since strings have to stay right for 48 updates.

    y is `Answers`. The deviation of a string is 0 if it is correct, see `EmbeddedReber`, else 1.
    Source: Hochreiter & Schmidhuber 1997, experiment 1.
    """

    name: ClassVar = "reber_online"
    criterion: ClassVar = Criterion(UPDATES * (1 + ASKED), 0.5)

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws strings of one split; behind those that train, some to ask."""
        drawn = super().sample(key, batch_size, split)
        if split != "train":
            return drawn
        block = jax.random.randint(jax.random.fold_in(key, len(base.SPLITS)), (), 0, BLOCKS)
        index = (block * ASKED + jnp.arange(ASKED, dtype=jnp.int32)) % reber.STRINGS
        train, test = self._batch("train", index), self._batch("test", index)
        tests = block >= BLOCKS // 2
        tested = jax.tree.map(lambda one, other: jnp.where(tests, other, one), train, test)
        tested = tested._replace(y=tested.y._replace(learnt=jnp.zeros_like(tested.y.learnt)))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), drawn, tested)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """`EmbeddedReber`'s, of the strings that are learnt from."""
        learnt = batch._replace(mask=batch.y.learnt)
        strings = jnp.maximum(jnp.sum(jnp.any(batch.y.learnt, axis=0)), 1)
        return super().loss(outputs, learnt) * (outputs.shape[1] / strings).astype(outputs.dtype)

    def deviation(self, outputs: Array, batch: Batch) -> Array:
        """Returns 0 for strings that are correct and 1 for others, [B]."""
        right = reber.most_active(outputs, batch.y.legal) | ~jnp.asarray(batch.mask)
        return 1.0 - jnp.all(right, axis=0).astype(jnp.float32)

    def _batch(self, split: str, index: Array) -> Batch:
        batch = super()._batch(split, index)
        return batch._replace(y=Answers(batch.y.following, batch.y.legal, batch.y.legal.any(-1)))

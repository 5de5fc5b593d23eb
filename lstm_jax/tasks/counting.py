"""Counting: name the symbols that may follow in strings of a^n b^n or a^n b^n c^n."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

LETTERS = "abcdefgh"


@dataclasses.dataclass(frozen=True)
class Counting(base.Task):
    """Name the symbols that may come next in a^n b^n, or a^n b^n c^n and so on, at every step.

    A string starts with S and ends with T. After an a either another a or the first b may follow.
    After the first b, n determines every symbol. With letters=2 and n = 3:

        x      S   a   a   a   b   b   b
        legal  aT  ab  ab  ab  b   b   T

    The number n is uniform from 1 to `longest`.

    D = letters + 1, one-hot, S before the letters; V = letters + 1, the letters before T;
    T = letters longest + 1, mask [T, B], y [T, B, V] bool, the legal symbols. The loss is the mean
    cross-entropy of an output, -log sigmoid(+-output) in nats, over the steps of the batch. A
    string is correct (accepted) if at every step exactly the legal symbols have outputs above 0.
    No constant answer is: chance = 0. No trial counts as solved, since training beyond full
    accuracy still extends the range of counting.

    Attributes:
      letters: number of different letters, 2 to 8.
      longest: the largest n, at least 1.

    Raises:
      ValueError: letters or longest is out of range or not an integer.

    Source: Gers & Schmidhuber 2001.
    """

    letters: int = 2
    longest: int = 10

    name: ClassVar = "counting"
    readout: ClassVar = "every"
    metric_name: ClassVar = "strings accepted"
    chance: ClassVar = 0.0

    def __post_init__(self):
        base.check_size("letters", self.letters, 2)
        base.check_choice("letters", self.letters, range(2, len(LETTERS) + 1))
        base.check_size("longest", self.longest, 1)

    @property
    def input_size(self) -> int:
        """D: S and the letters."""
        return self.letters + 1

    @property
    def output_size(self) -> int:
        """V: the letters and T."""
        return self.letters + 1

    @property
    def length(self) -> int:
        """T: S and each letter `longest` times."""
        return self.letters * self.longest + 1

    @property
    def language(self) -> str:
        """The form of the strings, such as "a^n b^n"."""
        return " ".join(f"{letter}^n" for letter in LETTERS[: self.letters])

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws n for each string."""
        key = base.split_key(key, split)
        return self.of(jax.random.randint(key, (batch_size,), 1, self.longest + 1, jnp.int32))

    def of(self, n: Array) -> Batch:
        """Returns the strings for n [B] int32, from 1 to `longest`."""
        step = jnp.arange(self.length, dtype=jnp.int32)[:, None]
        n = n[None, :]
        mask = step <= self.letters * n
        place = jnp.where(mask, (step + n - 1) // n, -1)  # 0 at S, 1 at a, 2 at b, ...
        ends = step % n == 0  # the last step of each letter
        after = jnp.where(ends, place, place - 1)
        legal = jax.nn.one_hot(after, self.letters + 1, dtype=jnp.bool_)
        other = jnp.where(place == 1, 1 - after, -1)  # any a may be the last one
        other = jnp.where(place == 0, self.letters, other)
        legal |= jax.nn.one_hot(other, self.letters + 1, dtype=jnp.bool_)
        x = jax.nn.one_hot(place, self.letters + 1, dtype=jnp.float32)
        return Batch(x, legal & mask[..., None], mask)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of an output, in nats; outputs [T, B, V]."""
        losses = jax.nn.softplus(jnp.where(batch.y, -outputs, outputs))
        return jnp.mean(losses, where=jnp.asarray(batch.mask)[..., None])

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where a string is accepted, else 0, [B]."""
        right = jnp.all((outputs > 0) == batch.y, axis=-1) | ~jnp.asarray(batch.mask)
        return jnp.all(right, axis=0).astype(jnp.float32)

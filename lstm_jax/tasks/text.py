"""Text: name the next symbol of a text that is read as one stream."""

import dataclasses
import functools
import hashlib
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}


class Cursor(NamedTuple):
    """Where every row of a stream reads.

    Attributes:
      first: [B] int32, where in the text the part of each row begins.
      size: int32, how many symbols every part has to name.
      offset: int32, how many of them were asked since its beginning.
    """

    first: Array
    size: Array
    offset: Array


@dataclasses.dataclass(frozen=True, repr=False)
class Text(base.Stream):
    """Name the next symbol of a text, at every step.

    The first nine tenths of the text train, then a twentieth validates and one tests. A batch cuts
    its split into B parts of equal length, one a row, and reads all of them `window` steps an
    update, from a step that the key draws; a row that has come to the end of its part begins it
    again, with a reset. With text="the cat sat", in windows of 4, of one row:

        x       t h e _ | c a t _ | s a          reset at the t
        y       h e _ c | a t _ s | a t

    D = V = the number of different symbols, x one-hot in their order, y [T, B] int32, T = window.
    `examples` is a whole split as one sequence: what `evaluate` asks, from a fresh state. The loss
    is the mean cross-entropy of a symbol in nats, the metric the share of symbols named right, and
    chance that of the most common symbol. No loss counts as solved.

    Source: of windows with carried state, Williams & Peng 1990; on texts, Mikolov et al. 2010.

    Attributes:
      text: the text; every split must have two symbols at least, so 40 do.
      window: steps between two updates, at least 1.

    Raises:
      ValueError: the text is too short, or window is too small or no integer.
    """

    text: str
    window: int = 64

    name: ClassVar = "text"
    readout: ClassVar = "every"
    metric_name: ClassVar = "accuracy of a symbol"

    def __post_init__(self):
        if not isinstance(self.text, str) or len(self.text) < 40:
            raise ValueError(f"text must be a string of at least 40 symbols, got {self.text!r:.60}")
        base.check_size("window", self.window, 1)

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"Text({len(self.text)} symbols, sha256 {digest}, window={self.window})"

    @property
    def input_size(self) -> int:
        """D: the symbols of the text."""
        return len(_read(self.text)[0])

    @property
    def output_size(self) -> int:
        """V: one logit for each symbol."""
        return self.input_size

    @property
    def length(self) -> int:
        """T: the steps of a window."""
        return self.window

    @property
    def chance(self) -> float:
        """The share of the most common symbol."""
        return float(np.bincount(_read(self.text)[1]).max() / len(self.text))

    @property
    def symbols(self) -> str:
        """The different symbols of the text, in the order of their numbers."""
        return _read(self.text)[0]

    def begin(self, key: Array, batch_size: int, split: str = "train") -> Cursor:
        """Returns the cursor before the first window; all rows begin at one step of their parts.

        Raises:
          ValueError: split is none of `SPLITS`, or has fewer symbols than rows were asked for.
        """
        start, stop = self._bounds(split)
        size = (stop - start - 1) // batch_size
        if size < 1:
            most = stop - start - 1
            raise ValueError(f"batch_size must be at most {most} for {self}, got {batch_size}")
        offset = jax.random.randint(base.split_key(key, split), (), 0, size, jnp.int32)
        first = start + size * jnp.arange(batch_size, dtype=jnp.int32)
        return Cursor(first, jnp.int32(size), offset)

    def next(self, cursor: Cursor) -> tuple[Cursor, Batch]:
        """Reads one window of every row."""
        step = (cursor.offset + jnp.arange(self.window, dtype=jnp.int32)) % cursor.size
        at = step[:, None] + cursor.first[None]
        reset = jnp.broadcast_to((step == 0)[:, None], at.shape)
        offset = (cursor.offset + self.window) % cursor.size
        return cursor._replace(offset=offset), self._batch(at)._replace(reset=reset)

    def examples(self, split: str) -> Batch:
        """Returns a whole split as one sequence, x [N, 1, D] and y [N, 1]."""
        start, stop = self._bounds(split)
        return self._batch(jnp.arange(start, stop - 1, dtype=jnp.int32)[:, None])

    def split_size(self, split: str) -> int:
        """Returns how many sequences a split holds: one."""
        base.check_choice("split", split, base.SPLITS)
        return 1

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Mean cross-entropy of a symbol, in nats; outputs [T, B, V]."""
        return base.cross_entropy(outputs, batch.y)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where every symbol of a row is right, [B]."""
        return jnp.min(base.labelled(outputs, batch.y), axis=0)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of symbols named right, a scalar."""
        return jnp.mean(base.labelled(outputs, batch.y))

    def _bounds(self, split: str) -> tuple[int, int]:
        base.check_choice("split", split, base.SPLITS)
        ends = [0, *np.cumsum(list(SHARES.values()))]
        n = base.SPLITS.index(split)
        return round(ends[n] * len(self.text)), round(ends[n + 1] * len(self.text))

    def _batch(self, at: Array) -> Batch:
        """Returns the symbols at these places of the text, and those behind them."""
        numbers = jnp.asarray(_read(self.text)[1])
        return Batch(jax.nn.one_hot(numbers[at], self.input_size), numbers[at + 1])


@functools.lru_cache(maxsize=8)
def _read(text: str) -> tuple[str, np.ndarray]:
    """Returns the different symbols of a text, and their numbers one after another, int32."""
    points = np.array([ord(symbol) for symbol in text])
    symbols, numbers = np.unique(points, return_inverse=True)
    return "".join(map(chr, symbols)), numbers.astype(np.int32)

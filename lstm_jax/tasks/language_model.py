"""Language models: predict the next symbol of a text, read as a stream."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.data.text import Text, Vocabulary, check_no_path
from lstm_jax.tasks import base, heads
from lstm_jax.tasks.predicting import Block, Fitted, power_of_two
from lstm_jax.types import Array, Batch

PART = 1024  # time steps that a model reads at a time, outside training


class Cursor(NamedTuple):
    """The position of a stream in its text.

    Attributes:
      first: [B] int32, the start of each row's part of the text.
      size: int32, number of symbols to predict in each part.
      offset: int32, the position within each part.
    """

    first: Array
    size: Array
    offset: Array


class Known(NamedTuple):
    """The data of a task, which are not part of a compiled program.

    Attributes:
      arrays: "numbers", the text as numbers of symbols.
      vocabulary: the symbols.
      chance: the share of the most common symbol of the training part.
      digest: the hash of the text.
    """

    arrays: dict[str, np.ndarray]
    vocabulary: Vocabulary
    chance: float
    digest: str


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class LanguageModel(Fitted, base.Stream):
    """Predict the next symbol of a text, at every time step.

    A split is cut into B parts of equal length, one for each row. An update reads `window` time
    steps of every part, from a random first step. After its end a part starts again, with a reset.
    The text "the cat sat" in windows of 4, in one row:

        x       t h e _ | c a t _ | s a          reset at the t
        y       h e _ c | a t _ s | a t

    D = V = the number of different symbols of the training part; x and y are their numbers, [T, B]
    int32, T = window. An unknown symbol is masked in x, and -1 in y, where it does not count.
    `examples` is a whole split as one sequence. The loss is the mean cross-entropy of a symbol, in
    nats. The metric is the share of symbols that are right; chance is the share of the most common
    symbol of the training part. No loss counts as solved.

    Attributes:
      window: time steps of an update.
      symbols: number of different symbols in the training part.
      bounds: start and stop of each split in the text.
      content: the hash of the text; "" in `static`.
      known: the text and its vocabulary; None in `static`.

    Source: windows with carried state, Williams & Peng 1990; on texts, Mikolov et al. 2010.
    """

    window: int
    symbols: int
    bounds: tuple[tuple[int, int], ...]
    content: str
    known: Known | None = dataclasses.field(compare=False)

    name: ClassVar = "text"
    readout: ClassVar = "every"
    metric_name: ClassVar = "accuracy of a symbol"
    input_kind: ClassVar = "symbols"

    def __init__(self, text: Text | str, window: int = 64):
        """Takes a text.

        Args:
          text: a `data.Text`; or a string, whose characters are split 90 % / 5 % / 5 %.
          window: time steps of an update, at least 1.

        Raises:
          ValueError: the text is too short, or window is too small or not an integer.
          TypeError: text is neither.
        """
        text = text if isinstance(text, Text) else Text(text)
        base.check_size("window", window, 1)
        counts = text.counts()
        chance = float(counts.max() / counts.sum())
        known = Known({"numbers": text.numbers}, text.vocabulary, chance, text.digest)
        bounds = tuple(text.bounds[split] for split in base.SPLITS)
        sizes = dict(window=window, symbols=len(text.vocabulary), bounds=bounds)
        self._set(**sizes, content=known.digest, known=known)

    def __repr__(self) -> str:
        content = f", data {self.content[:8]}" if self.content else ""
        sizes = f"{self.bounds[-1][1]} symbols, {self.symbols} different"
        return f"{type(self).__name__}({sizes}, window={self.window}{content})"

    @property
    def static(self) -> Self:
        """The sizes of the text and the window."""
        sizes = dict(window=self.window, symbols=self.symbols, bounds=self.bounds)
        return self._of(**sizes, content="", known=None)

    @property
    def input_size(self) -> int:
        """D: the symbols of the training part."""
        return self.symbols

    @property
    def output_size(self) -> int:
        """V: one logit for each symbol."""
        return self.symbols

    @property
    def length(self) -> int:
        """T: the time steps of a window."""
        return self.window

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols and their numbers."""
        return self._known().vocabulary

    def begin(
        self, key: Array, batch_size: int, split: str = "train", arrays: Any = None
    ) -> Cursor:
        """Returns the cursor before the first window, at a random position within the parts.

        Raises:
          ValueError: split is not one of `SPLITS`, or has fewer symbols than rows.
        """
        del arrays  # the sizes are enough
        start, stop = self._bounds(split)
        size = (stop - start - 1) // batch_size
        if size < 1:
            most = stop - start - 1
            raise ValueError(f"batch_size must be at most {most} for {self}, got {batch_size}")
        offset = jax.random.randint(base.split_key(key, split), (), 0, size, jnp.int32)
        first = start + size * jnp.arange(batch_size, dtype=jnp.int32)
        return Cursor(first, jnp.int32(size), offset)

    def next(self, cursor: Cursor, arrays: Any = None) -> tuple[Cursor, Batch]:
        """Returns the next window of every row."""
        step = (cursor.offset + jnp.arange(self.window, dtype=jnp.int32)) % cursor.size
        at = step[:, None] + cursor.first[None]
        reset = jnp.broadcast_to((step == 0)[:, None], at.shape)
        offset = (cursor.offset + self.window) % cursor.size
        arrays = self.arrays() if arrays is None else arrays
        return cursor._replace(offset=offset), self._batch(arrays, at)._replace(reset=reset)

    def examples(self, split: str) -> Batch:
        """Returns a whole split as one sequence, x and y [N, 1]."""
        arrays = self.rows(split)
        return self._batch(arrays, jnp.arange(self.steps(arrays) - 1, dtype=jnp.int32)[:, None])

    def split_size(self, split: str) -> int:
        """Returns the number of sequences in a split: 1, or 0 for an empty split."""
        start, stop = self._bounds(split)
        return int(stop > start)

    def _bounds(self, split: str) -> tuple[int, int]:
        base.check_choice("split", split, base.SPLITS)
        return self.bounds[base.SPLITS.index(split)]

    def _batch(self, arrays: Any, at: Array) -> Batch:
        """Returns the symbols at positions [T, B] of a text, and their successors.

        Unknown symbols, and those beyond the end of the text, do not count.
        """
        numbers = jnp.asarray(arrays["numbers"])

        def symbol(place):
            number = numbers[jnp.minimum(place, len(numbers) - 1)].astype(jnp.int32)
            return jnp.where(place < len(numbers), number, self.symbols)

        x, y = symbol(at), symbol(at + 1)
        known = x < self.symbols
        return Batch(jnp.where(known, x, 0), jnp.where(y < self.symbols, y, -1), known)

    def evaluated(self, split: str, arrays: Any) -> dict[str, Any]:
        """Returns the symbols of a split."""
        return self.rows(split)

    def parts(self, data: dict[str, Any]) -> int:
        """Returns in how many parts a text is read."""
        return -(-max(1, self.steps(data) - 1) // self._part_steps(data))

    def part(self, data: dict[str, Any], index: Array | int) -> Batch:
        """Returns one part of a text as one row, x [T, 1]."""
        steps = self._part_steps(data)
        return self.batch(data, index * steps + jnp.arange(steps, dtype=jnp.int32))

    def _part_steps(self, data: dict[str, Any]) -> int:
        return min(PART, max(1, self.steps(data) - 1))

    def weight(self, batch: Batch) -> Array:
        """Returns the number of symbols that count."""
        return jnp.sum(batch.y >= 0).astype(jnp.float32)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of a symbol, in nats; outputs [T, B, V]."""
        each = base.cross_entropies(outputs, jnp.maximum(batch.y, 0))
        return base.weighted_mean(each, (batch.y >= 0).astype(each.dtype))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where every symbol of a row is right, else 0, [B]."""
        right = jnp.where(batch.y >= 0, base.labelled(outputs, batch.y), 1.0)
        return jnp.min(right, axis=0)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of symbols that are right, a scalar."""
        right = base.labelled(outputs, batch.y)
        return base.weighted_mean(right, (batch.y >= 0).astype(right.dtype))

    # Predictions. ---------------------------------------------------------------------------------

    def encode(self, text: str | bytes) -> dict[str, np.ndarray]:
        """Returns the arrays of another text in this vocabulary.

        Raises:
          ValueError: the text is the path of a file.
        """
        numbers = self.vocabulary.encode(text)
        check_no_path("text", text)
        return {"numbers": numbers}

    @property
    def has_rows(self) -> bool:
        """Whether the task has its text; a task that was saved with a network has none."""
        return len(self._known().arrays["numbers"]) > 0

    def count(self, arrays: dict[str, Any]) -> int:
        """Returns the number of rows: 1, or 0 for an empty text."""
        return int(len(arrays["numbers"]) > 0)

    def steps(self, arrays: dict[str, Any]) -> int:
        """Returns the number of symbols in a text."""
        return len(arrays["numbers"])

    def rows(self, split: str) -> dict[str, Any]:
        """Returns the arrays of one part of the text."""
        return {"numbers": self.arrays()["numbers"][slice(*self._bounds(split))]}

    def batch(self, arrays: dict[str, Any], index: Array, weight: Any = None) -> Batch:
        """Returns the symbols at positions [T] of a text as one row, x [T, 1]."""
        del weight  # the row has no other rows beside it
        return self._batch(arrays, index[:, None])

    def blocks(self, arrays: dict[str, Any]) -> Iterator[Block]:
        """Yields the parts of a text; `rows` are the positions of symbols."""
        numbers = arrays["numbers"]
        steps = min(PART, power_of_two(len(numbers)))
        for start in range(0, len(numbers), steps):
            some = numbers[start : start + steps + 1].astype(np.int32)
            padded = np.pad(some, (0, steps + 1 - len(some)), constant_values=self.symbols)
            rows = np.arange(start, min(start + steps, len(numbers)))
            yield Block(rows, {"numbers": padded}, np.arange(steps, dtype=np.int32))

    def predictions(
        self,
        outputs: np.ndarray,
        arrays: dict[str, Any],
        *,
        probabilities: bool = False,
        levels: Any = None,
    ) -> np.ndarray:
        """Returns the most probable next symbol at each position, [N], or probabilities [N, V].

        Arguments are those of `Predictor.predict`.
        """
        del arrays
        if levels is not None:
            raise TypeError("levels need numbers, a text has symbols: give probabilities=True")
        log_p = self._log_p(outputs)
        if probabilities:
            return np.exp(log_p)
        return np.array([self.vocabulary.decode([n]) for n in log_p.argmax(-1)])

    def scores(self, outputs: np.ndarray, arrays: dict[str, Any]) -> dict[str, float]:
        """Returns bits per character and accuracy, over all symbols after the first."""
        return self.scores_of_parts([(outputs, arrays)])

    def scores_of_parts(
        self, parts: Iterable[tuple[np.ndarray, dict[str, Any]]]
    ) -> dict[str, float]:
        """Returns the scores of a text that was read in parts."""
        count, nats, right = np.sum([self._answers(*part) for part in parts], axis=0).tolist()
        if not count:
            raise ValueError("text must have two symbols of the vocabulary or more")
        return {"bits per character": nats / count / math.log(2), "accuracy": right / count}

    def _answers(self, outputs: np.ndarray, arrays: dict[str, Any]) -> np.ndarray:
        """Returns sums [3] over known symbols: their number, nats, and correct predictions."""
        y = arrays["numbers"][1 : 1 + outputs.shape[1]].astype(np.int64)
        log_p, known = self._log_p(outputs[:, : len(y)]), y < self.symbols
        log_p, y = log_p[known], y[known]
        nats = -log_p[np.arange(len(y)), y]
        return np.array([len(y), nats.sum(dtype=np.float64), (log_p.argmax(-1) == y).sum()])

    def log_probabilities(self, outputs: Array) -> Array:
        """Returns the logarithm of the mean probability of M models, [N, V], of [M, N, 1, V]."""
        return heads.CrossEntropy(self.symbols).mixed(jnp.asarray(outputs)[:, :, 0])

    def _log_p(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(self.log_probabilities(jnp.asarray(outputs)))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns the requirements of predictions as JSON values, without arrays."""
        description = {
            "kind": type(self).__name__,
            "window": self.window,
            "bounds": self.bounds,
            "digest": self.content,
            "chance": self.chance,
            "level": self.vocabulary.level,
            "symbols": [ord(symbol) for symbol in self.vocabulary.symbols],
        }
        return description, {}

    @classmethod
    def restore(cls, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Returns a task without its text from its `state`."""
        symbols = "".join(map(chr, description["symbols"]))
        vocabulary = Vocabulary(description["level"], symbols)
        arrays = {"numbers": np.zeros(0, np.uint8)}
        known = Known(arrays, vocabulary, description["chance"], description["digest"])
        bounds = tuple(map(tuple, description["bounds"]))
        sizes = dict(window=description["window"], symbols=len(vocabulary), bounds=bounds)
        return cls._of(**sizes, content=known.digest, known=known)

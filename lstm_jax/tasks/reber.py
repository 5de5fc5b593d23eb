"""The embedded Reber grammar: predict the possible next symbols, in strings or in a stream."""

import dataclasses
import functools
import itertools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

SYMBOLS = "BTPSXVE"
STRINGS = 256
TOLERANCE = 0.49

# For each state, symbol -> next state; two symbols are equally likely. State 7 is the end.
REBER: tuple[dict[str, int], ...] = (
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 7},
)


def _embedded() -> tuple[dict[str, int], ...]:
    """Returns the automaton of B {T|P} Reber {the same} E; the last E leads back to state 0."""
    t, p = 2, 2 + len(REBER) + 1  # the first states of the two copies of REBER
    last = p + len(REBER) + 1

    def copy(first: int, symbol: str) -> list[dict[str, int]]:
        return [{s: first + to for s, to in ways.items()} for ways in REBER] + [{symbol: last}]

    return ({"B": 1}, {"T": t, "P": p}, *copy(t, "T"), *copy(p, "P"), {"E": 0})


EMBEDDED = _embedded()
LEGAL = np.array([[symbol in ways for symbol in SYMBOLS] for ways in EMBEDDED])

# The same as arrays: the symbol and the next state of each of two ways out of a state.
WAYS = [(2 * sorted(ways.items()))[:2] for ways in EMBEDDED]  # a single way appears twice
READS = np.array([[SYMBOLS.index(symbol) for symbol, _ in two] for two in WAYS], np.int32)
LEADS = np.array([[to for _, to in two] for two in WAYS], np.int32)


class Answers(NamedTuple):
    """The successors of each symbol of a string.

    Attributes:
      following: [T, B] int32, the next symbol.
      legal: [T, B, 7] bool, the possible next symbols; all False where the mask is False.
    """

    following: Array
    legal: Array


@dataclasses.dataclass(frozen=True)
class EmbeddedReber(base.Task):
    """Predict the next symbol of a string at every step, as in experiment 1 of 1997.

    Strings are B {T|P} w {the same again} E, where w is a string of Reber's grammar:

        w = B ( T S* X L | P T* V (V | P L) ) E,  L = (X T* V P)* (S | X T* V V)

    Where two symbols are possible, each has probability 1/2. A string has at least 9 symbols, 12 on
    average. Its last symbol but one equals the second:

        x      B   T   B   P   V   V   E   T
        y      T   B   P   V   V   E   T   E
        legal  TP  B   TP  TV  PV  E   T   E

    256 strings train, 256 validate and 256 test; no string is in two sets. Within a set frequent
    strings repeat: about 95 training strings are different, and test strings are longer. `sample`
    draws from a set with replacement, and `examples` returns it whole.

    D = V = 7, one-hot in the order of `SYMBOLS`, T = the longest length minus one, mask [T, B], y
    `Answers`. The loss is the squared error of 1997, which its learning rates assume: the mean over
    strings of sum_t sum_k (sigmoid(output_k) - [k follows])^2 / 2. A string is correct if at every
    step the legal symbols have the largest outputs. The criterion of 1997 is that all training and
    test strings are correct. No constant answer is: chance = 0. A trial is solved when its running
    share of correct strings reaches 0.999.

    Attributes:
      data_set: the number of the data set, at least 0.

    Raises:
      ValueError: data_set is negative or not an integer.

    Source: Hochreiter & Schmidhuber 1997, experiment 1; the grammar, Reber 1967; embedded, Smith &
    Zipser 1989.
    """

    data_set: int = 0

    name: ClassVar = "embedded_reber"
    readout: ClassVar = "every"
    input_size: ClassVar = len(SYMBOLS)
    output_size: ClassVar = len(SYMBOLS)
    chance: ClassVar = 0.0

    def __post_init__(self):
        base.check_size("data_set", self.data_set, 0)

    @property
    def length(self) -> int:
        """The time steps of the longest string of all three sets."""
        return max(len(s) for strings in _sets(self.data_set).values() for s in strings) - 1

    def strings(self, split: str) -> tuple[str, ...]:
        """Returns the strings of one split, in the order of `examples`."""
        base.check_choice("split", split, base.SPLITS)
        return _sets(self.data_set)[split]

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws strings of one split, with replacement."""
        key = base.split_key(key, split)
        index = jax.random.randint(key, (batch_size,), 0, STRINGS, jnp.int32)
        return self._batch(split, index)

    def examples(self, split: str) -> Batch:
        """Returns every string of a split once."""
        return self._batch(split, jnp.arange(STRINGS, dtype=jnp.int32))

    def split_size(self, split: str) -> int:
        """Returns the number of strings in a split."""
        base.check_choice("split", split, base.SPLITS)
        return STRINGS

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns half the squared error of sigmoid(outputs), summed over each string."""
        targets = jax.nn.one_hot(batch.y.following, len(SYMBOLS), dtype=outputs.dtype)
        errors = jnp.sum((jax.nn.sigmoid(outputs) - targets) ** 2, axis=-1)
        return jnp.sum(errors, where=jnp.asarray(batch.mask)) / (2 * outputs.shape[1])

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where a string is correct, else 0, [B]."""
        right = most_active(outputs, batch.y.legal) | ~jnp.asarray(batch.mask)
        return jnp.all(right, axis=0).astype(jnp.float32)

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the running share of correct strings is at least 0.999."""
        return stats.metric >= 0.999

    def _batch(self, split: str, index: Array) -> Batch:
        """Returns strings of a split, padded."""
        table = _table(self.strings(split), self.length)
        following, x, legal, mask = (jnp.asarray(part)[:, index] for part in table)
        one_hot = jax.nn.one_hot(x, len(SYMBOLS), dtype=jnp.float32)
        return Batch(jnp.where(mask[..., None], one_hot, 0.0), Answers(following, legal), mask)


class Cursor(NamedTuple):
    """The position of a stream.

    Attributes:
      key: data of the key for the next window.
      state: [B] int32, the state of the automaton.
      begun: [B] int32, number of strings since the start of the stream.
    """

    key: Array
    state: Array
    begun: Array


@dataclasses.dataclass(frozen=True)
class ContinualReber(base.Stream):
    """Predict the possible next symbols in a stream of strings.

    The strings are random ones of the grammar of `EmbeddedReber`. The E of a string is followed by
    the B of the next without a marker, so a network must learn when to forget the second symbol. A
    stream starts with a reset and has `strings` strings, or never ends. With strings=1 every string
    starts with a reset; with strings=2:

        x      B   T   B   ..  E   T   E   B   P   ..  E   P   E   B   T
        legal  TP  B   TP  ..  T   E   B   TP  B   ..  P   E   B   TP  B
        reset  1                                                   1

    D = V = 7, one-hot in the order of `SYMBOLS`, T = window, y [T, B, 7] bool, the legal symbols.
    The loss is the mean cross-entropy of an output, -log sigmoid(+-output) in nats. A symbol is
    right if every |sigmoid(output) - [legal]| < 0.49. The metric is the share of right symbols;
    `chance` is that of the most common set of symbols. A window is correct if all its symbols are
    right. No trial counts as solved.

    Attributes:
      window: time steps of an update, at least 1.
      strings: strings of a stream; 0 for an endless one.

    Raises:
      ValueError: window or strings is too small or not an integer.

    Source: Gers, Schmidhuber & Cummins 2000.
    """

    window: int = 50
    strings: int = 0

    name: ClassVar = "continual_reber"
    readout: ClassVar = "every"
    metric_name: ClassVar = "symbols right"
    input_size: ClassVar = len(SYMBOLS)
    output_size: ClassVar = len(SYMBOLS)

    def __post_init__(self):
        base.check_size("window", self.window, 1)
        base.check_size("strings", self.strings, 0)

    @property
    def length(self) -> int:
        """T: the time steps of a window."""
        return self.window

    @property
    def chance(self) -> float:
        """The share of steps with the most common set of legal symbols."""
        sets = np.unique(LEGAL, axis=0, return_inverse=True)[1]
        return float(np.bincount(sets.ravel(), visits()).max() / visits().sum())

    def begin(self, key: Array, batch_size: int, split: str = "train") -> Cursor:
        """Returns the cursor before the first strings.

        Raises:
          ValueError: split is not one of `SPLITS`.
        """
        key = jax.random.key_data(base.split_key(key, split))
        return Cursor(key, *jnp.zeros((2, batch_size), jnp.int32))

    def next(self, cursor: Cursor) -> tuple[Cursor, Batch]:
        """Draws one window of every row."""
        key, way_key = jax.random.split(jax.random.wrap_key_data(cursor.key, impl="threefry2x32"))
        shape = self.window, *cursor.state.shape
        second = jax.random.bernoulli(way_key, 0.5, shape).astype(jnp.int32)

        def read(state, way):
            return jnp.asarray(LEADS)[state, way], (state, jnp.asarray(READS)[state, way])

        last, (before, symbols) = jax.lax.scan(read, cursor.state, second)
        after = jnp.concatenate([before[1:], last[None]])
        first = before == 0
        begun = cursor.begun[None] + jnp.cumsum(first, axis=0, dtype=jnp.int32)
        # A stream starts every `strings` strings; an endless one starts with the first.
        number = begun - 1 if self.strings == 0 else (begun - 1) % self.strings
        x = jax.nn.one_hot(symbols, len(SYMBOLS), dtype=jnp.float32)
        batch = Batch(x, jnp.asarray(LEGAL)[after], reset=first & (number == 0))
        return Cursor(jax.random.key_data(key), last, begun[-1]), batch

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of an output, in nats; outputs [T, B, 7]."""
        return jnp.mean(jax.nn.softplus(jnp.where(batch.y, -outputs, outputs)))

    def right(self, outputs: Array, batch: Batch) -> Array:
        """Returns [T, B] whether every |sigmoid(output) - [legal]| < 0.49."""
        error = jnp.abs(jax.nn.sigmoid(outputs) - batch.y.astype(outputs.dtype))
        return jnp.all(error < TOLERANCE, axis=-1)

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where every symbol of a window is right, else 0, [B]."""
        return jnp.all(self.right(outputs, batch), axis=0).astype(jnp.float32)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of symbols that are right, a scalar."""
        return jnp.mean(self.right(outputs, batch).astype(jnp.float32))


def visits() -> np.ndarray:
    """Returns the expected visits of each state in one string, [20]; their sum is its length.

    v_0 = 1, v_s = sum over states r and ways from r to s of v_r / (ways out of r).
    """
    chain = np.zeros((len(EMBEDDED), len(EMBEDDED)))
    for state, ways in enumerate(EMBEDDED):
        for to in ways.values():
            chain[to, state] += 1 / len(ways)
    start = np.eye(len(EMBEDDED))[0]
    chain[0] = 0
    return np.linalg.solve(np.eye(len(EMBEDDED)) - chain, start)


def most_active(outputs: Array, legal: Array) -> Array:
    """Returns whether every legal output exceeds every other one, [...]; both [..., V]."""
    least = jnp.min(jnp.where(legal, outputs, jnp.inf), axis=-1)
    most = jnp.max(jnp.where(legal, -jnp.inf, outputs), axis=-1)
    return least > most


@functools.cache
def _sets(data_set: int) -> dict[str, tuple[str, ...]]:
    """Returns the strings of each split; no string is in two splits."""
    rng = np.random.default_rng(data_set)
    sets: dict[str, tuple[str, ...]] = {}
    for split in ("train", "test", "validation"):
        taken, drawn = {s for strings in sets.values() for s in strings}, []
        while len(drawn) < STRINGS:
            string = _draw(rng)
            drawn += [] if string in taken else [string]
        sets[split] = tuple(drawn)
    return sets


def _draw(rng: np.random.Generator) -> str:
    """Returns the string of a random walk from state 0 back to state 0."""
    string, state = "", 0
    while not string or state:
        ways = EMBEDDED[state]
        symbol = sorted(ways)[rng.integers(len(ways))]
        string, state = string + symbol, ways[symbol]
    return string


@functools.lru_cache(maxsize=32)
def _table(strings: tuple[str, ...], length: int) -> tuple[np.ndarray, ...]:
    """Returns next symbols, symbols, legal symbols and mask, [T, N]; legal ones [T, N, 7]."""
    read, following = np.zeros((2, length, len(strings)), np.int32)
    legal = np.zeros((length, len(strings), len(SYMBOLS)), bool)
    for n, string in enumerate(strings):
        state = 0
        for t, (symbol, after) in enumerate(itertools.pairwise(string)):
            state = EMBEDDED[state][symbol]
            read[t, n], following[t, n] = SYMBOLS.index(symbol), SYMBOLS.index(after)
            legal[t, n] = LEGAL[state]
    return following, read, legal, np.any(legal, axis=-1)

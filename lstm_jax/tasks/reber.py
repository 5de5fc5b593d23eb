"""The embedded Reber grammar: name the symbols that may follow, in the form of 1997."""

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

# From each state, which symbol leads where; two ways are equally likely. State 7 is the end.
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
    """Returns the automaton of B {T|P} Reber {the same} E, in which the last E leads back to 0."""
    t, p = 2, 2 + len(REBER) + 1  # where the two copies of REBER begin
    last = p + len(REBER) + 1

    def copy(first: int, symbol: str) -> list[dict[str, int]]:
        return [{s: first + to for s, to in ways.items()} for ways in REBER] + [{symbol: last}]

    return ({"B": 1}, {"T": t, "P": p}, *copy(t, "T"), *copy(p, "P"), {"E": 0})


EMBEDDED = _embedded()
LEGAL = np.array([[symbol in ways for symbol in SYMBOLS] for ways in EMBEDDED])


class Answers(NamedTuple):
    """What follows each symbol of a string.

    Attributes:
      following: [T, B] int32, the symbol that does.
      legal: [T, B, 7] bool, those that might; none where the mask is False.
    """

    following: Array
    legal: Array


@dataclasses.dataclass(frozen=True)
class EmbeddedReber(base.Task):
    """Name the next symbol of a string, at every step, as in experiment 1 of 1997.

    Strings are B {T|P} w {the same again} E, where w is a string of Reber's grammar:

        w = B ( T S* X L | P T* V (V | P L) ) E,  L = (X T* V P)* (S | X T* V V)

    Wherever two symbols may follow, each does with probability 1/2. So a string has at least 9
    symbols, on average 12, and its last but one is the second again, whatever stood between:

        x      B   T   B   P   V   V   E   T
        y      T   B   P   V   V   E   T   E
        legal  TP  B   TP  TV  PV  E   T   E

    256 strings train; 256 test and 256 validate, drawn until they are among neither the strings
    that train nor each other's. Within a set likely strings come more than once: about 95 of those
    that train are different, and those that test are longer. `sample` draws from a set with
    replacement, `examples` gives it whole.

    D = V = 7, one-hot in the order of `SYMBOLS`, T = the symbols of the longest string but one,
    mask [T, B], y `Answers`. The loss is the squared error of 1997, for which its learning rates
    are meant: sum_t sum_k (sigmoid(output_k) - [k follows])^2 / 2, a mean over strings. A string is
    correct when at every step the symbols that might follow have the largest outputs; the criterion
    of 1997 is that all of "train" and of "test" are. Without the input none is: chance = 0. A trial
    is solved when its running share of correct strings reaches 0.999.
    Source: Hochreiter & Schmidhuber 1997, experiment 1; the grammar, Reber 1967; embedded, Smith &
    Zipser 1989.

    Attributes:
      data_set: which strings they are, at least 0.

    Raises:
      ValueError: data_set is negative or no integer.
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
        """The steps of the longest string of all three sets."""
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
        """Returns how many strings a split holds."""
        base.check_choice("split", split, base.SPLITS)
        return STRINGS

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Half the squared error of sigmoid(outputs), a sum over each string; outputs [T, B, 7]."""
        targets = jax.nn.one_hot(batch.y.following, len(SYMBOLS), dtype=outputs.dtype)
        errors = jnp.sum((jax.nn.sigmoid(outputs) - targets) ** 2, axis=-1)
        return jnp.sum(errors, where=jnp.asarray(batch.mask)) / (2 * outputs.shape[1])

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Where at every step of a string the legal symbols have the largest outputs, [B]."""
        right = most_active(outputs, batch.y.legal) | ~jnp.asarray(batch.mask)
        return jnp.all(right, axis=0).astype(jnp.float32)

    def solved(self, stats: base.Stats) -> Array:
        """Whether the running share of correct strings has reached 0.999."""
        return stats.metric >= 0.999

    def _batch(self, split: str, index: Array) -> Batch:
        """Returns some strings of a split, padded."""
        table = _table(self.strings(split), self.length)
        following, x, legal, mask = (jnp.asarray(part)[:, index] for part in table)
        one_hot = jax.nn.one_hot(x, len(SYMBOLS), dtype=jnp.float32)
        return Batch(jnp.where(mask[..., None], one_hot, 0.0), Answers(following, legal), mask)


def most_active(outputs: Array, legal: Array) -> Array:
    """Returns [...] whether every legal output is larger than every other; both [..., V]."""
    least = jnp.min(jnp.where(legal, outputs, jnp.inf), axis=-1)
    most = jnp.max(jnp.where(legal, -jnp.inf, outputs), axis=-1)
    return least > most


@functools.cache
def _sets(data_set: int) -> dict[str, tuple[str, ...]]:
    """Returns the strings of each split; what was drawn for one is drawn for no later one."""
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
    """Walks the automaton once round, each way out of a state as likely as the other."""
    string, state = "", 0
    while not string or state:
        ways = EMBEDDED[state]
        symbol = sorted(ways)[rng.integers(len(ways))]
        string, state = string + symbol, ways[symbol]
    return string


@functools.lru_cache(maxsize=32)
def _table(strings: tuple[str, ...], length: int) -> tuple[np.ndarray, ...]:
    """Returns what follows, what is read, what is legal and the mask, [T, N] (legal [T, N, 7])."""
    read, following = np.zeros((2, length, len(strings)), np.int32)
    legal = np.zeros((length, len(strings), len(SYMBOLS)), bool)
    for n, string in enumerate(strings):
        state = 0
        for t, (symbol, after) in enumerate(itertools.pairwise(string)):
            state = EMBEDDED[state][symbol]
            read[t, n], following[t, n] = SYMBOLS.index(symbol), SYMBOLS.index(after)
            legal[t, n] = LEGAL[state]
    return following, read, legal, np.any(legal, axis=-1)

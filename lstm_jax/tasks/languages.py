"""Formal languages: read a string of any length, then answer.

Source: Deletang et al. 2022, Neural Networks and the Chomsky Hierarchy, appendix A.
"""

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lstm_jax.tasks import base
from lstm_jax.types import Array, Batch

MODULUS = 5


class Problem(NamedTuple):
    """Strings and their answers.

    Attributes:
      string: [L, B] int32 symbols, arbitrary after the end of a string.
      length: [B] int32, the number of symbols of each string.
      answer: [A, B] int32 symbols.
      answer_length: [B] int32, the number of symbols of each answer.
    """

    string: Array
    length: Array
    answer: Array
    answer_length: Array


@dataclasses.dataclass(frozen=True)
class Language(base.Task):
    """Read a string of uniform length, then answer symbol by symbol.

    The string is followed by one placeholder (`?`) for each symbol of the answer, which is due
    there. Reversing a string of two symbols, with longest=3:

        input    0 1 ? ?
        answer       1 0

    x is one-hot, the placeholder last: D = symbols + 1; y [T, B] int32, 0 where no answer is due.
    The loss is the mean cross-entropy of a symbol, and the metric the share of symbols that are
    right. Both are means over the symbols of an answer, then over sequences. Chance is the accuracy
    of the best constant answer. A sequence is correct if its whole answer is. A trial is solved
    when its running loss is at most 0.003 nats.

    Attributes:
      shortest: length of the shortest string, at least 1.
      longest: length of the longest string.

    Raises:
      ValueError: shortest or longest is too small or not an integer.
    """

    shortest: int = 1
    longest: int = 40

    readout: ClassVar = "every"
    metric_name: ClassVar = "accuracy of a symbol"
    symbols: ClassVar[int] = 2
    output_size: ClassVar[int] = 2
    answers: ClassVar[tuple[int, int]] = 0, 1  # (a, b): an answer has at most a n + b symbols

    def __post_init__(self):
        base.check_size("shortest", self.shortest, 1)
        base.check_size("longest", self.longest, self.shortest)

    @property
    def input_size(self) -> int:
        """D: the symbols and the placeholder."""
        return self.symbols + 1

    @property
    def length(self) -> int:
        """T: the longest string and its answer."""
        return self.longest + self.longest_answer(self.longest)

    @property
    def chance(self) -> float:
        """The accuracy of the best constant answer."""
        lengths = range(self.shortest, self.longest + 1)
        return float(np.mean([self.constant(n) for n in lengths], axis=0).max())

    def constant(self, length: int) -> np.ndarray:
        """Returns the accuracy of each constant answer on strings of one length."""
        del length
        return np.full(self.output_size, 1 / self.output_size)

    def longest_answer(self, length: int) -> int:
        """Returns the length of the longest answer to strings of one length."""
        return self.answers[0] * length + self.answers[1]

    @abc.abstractmethod
    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws strings of lengths [B], at most `longest`, with their answers."""

    def sample(self, key: Array, batch_size: int, split: str = "train") -> Batch:
        """Draws lengths and strings."""
        key, length_key = jax.random.split(base.split_key(key, split))
        bounds = self.shortest, self.longest + 1
        return self.at(key, jax.random.randint(length_key, (batch_size,), *bounds, jnp.int32))

    def at(self, key: Array, lengths: Array) -> Batch:
        """Draws one string for each of the lengths [B] int32."""
        problem = self.draw(key, lengths)
        t = jnp.arange(self.length, dtype=jnp.int32)[:, None]
        due = t - problem.length[None]
        mask = due < problem.answer_length[None]
        symbols = jnp.where(due < 0, base.rows(problem.string, t), self.symbols)
        x = jax.nn.one_hot(jnp.where(mask, symbols, -1), self.input_size, dtype=jnp.float32)
        answer = base.rows(problem.answer, due)
        return Batch(x, jnp.where((due >= 0) & mask, answer, 0), mask)

    def loss(self, outputs: Array, batch: Batch) -> Array:
        """Returns the mean cross-entropy of a symbol, in nats; outputs [T, B, V]."""
        return jnp.mean(_over_answers(batch, base.cross_entropies(outputs, batch.y)))

    def share(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of right symbols in each answer, [B]."""
        return _over_answers(batch, base.labelled(outputs, batch.y))

    def correct(self, outputs: Array, batch: Batch) -> Array:
        """Returns 1 where the whole answer is right, else 0, [B]."""
        right = jnp.where(batch.x[..., -1] > 0, base.labelled(outputs, batch.y), 1.0)
        return jnp.min(right, axis=0)

    def metric(self, outputs: Array, batch: Batch) -> Array:
        """Returns the share of symbols that are right, a scalar."""
        return jnp.mean(self.share(outputs, batch))

    def solved(self, stats: base.Stats) -> Array:
        """Returns whether the running loss is at most 0.003 nats."""
        return stats.loss <= 0.003


# Regular. -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EvenPairs(Language):
    """Is the number of 01 and 10 in the string even?  0 1 1 0 1 -> 0 (three of them).

    The answer is 1 exactly if the last bit equals the first.
    """

    name: ClassVar = "even_pairs"

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws bits."""
        bits = _symbols(key, self, lengths)
        even = bits[0] == base.rows(bits, lengths[None] - 1)[0]
        return _one(bits, lengths, even)

    def constant(self, length: int) -> np.ndarray:
        """Returns 1 for the answer 1 at length 1, since a single bit has no pairs; else 1/2."""
        return np.array([0.0, 1.0]) if length == 1 else np.full(2, 0.5)


@dataclasses.dataclass(frozen=True)
class Parity(Language):
    """Is the number of ones odd?  0 1 1 0 1 -> 1."""

    name: ClassVar = "parity"

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws bits."""
        bits = _symbols(key, self, lengths)
        return _one(bits, lengths, jnp.sum(_kept(bits, lengths), axis=0) % 2)


@dataclasses.dataclass(frozen=True)
class CycleNavigation(Language):
    """Where on a circle of five places do the moves lead?  1 1 0 2 -> 1.

    0 stays, 1 moves up, 2 moves down; the start is place 0.
    """

    name: ClassVar = "cycle_navigation"
    symbols: ClassVar = 3
    output_size: ClassVar = MODULUS

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws moves."""
        moves = _symbols(key, self, lengths)
        ahead = _kept(jnp.where(moves == 2, -1, moves), lengths)
        return _one(moves, lengths, jnp.sum(ahead, axis=0) % MODULUS)

    def constant(self, length: int) -> np.ndarray:
        """Returns P(p) = sum_j ((1 + 2 cos a_j) / 3)^n cos(a_j p) / 5, a_j = 2 pi j / 5."""
        angle = 2 * np.pi * np.arange(MODULUS) / MODULUS
        waves = ((1 + 2 * np.cos(angle)) / 3) ** length
        return np.cos(np.outer(np.arange(MODULUS), angle)) @ waves / MODULUS


@dataclasses.dataclass(frozen=True)
class ModularArithmetic(Language):
    """What is the value of an expression modulo 5?  1 + 2 * 3 -> 2.

    Digits 0 to 4 alternate with + - * (symbols 5, 6, 7); * binds closer. An expression has an odd
    length; for an even length it is one symbol shorter.
    """

    name: ClassVar = "modular_arithmetic"
    symbols: ClassVar = MODULUS + 3
    output_size: ClassVar = MODULUS

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws digits and operators."""
        digit_key, operator_key = jax.random.split(key)
        shape = (self.longest // 2 + 1, len(lengths))
        digits = jax.random.randint(digit_key, shape, 0, MODULUS, jnp.int32)
        operators = jax.random.randint(operator_key, shape, 0, 3, jnp.int32)
        count = (lengths + 1) // 2  # digits
        inside = _inside(digits[1:], count - 1)

        def read(state, at):
            digit, operator, here = at
            return jax.tree.map(
                lambda new, old: jnp.where(here, new, old), _calculated(state, digit, operator),
                state,
            ), None  # fmt: skip

        begin = jnp.zeros_like(count), digits[0]
        (total, term), _ = lax.scan(read, begin, (digits[1:], operators[:-1], inside))
        pairs = jnp.stack([digits, operators + MODULUS], axis=1)
        string = pairs.reshape(-1, len(lengths))[: self.longest]
        return _one(string, 2 * count - 1, (total + term) % MODULUS)

    def constant(self, length: int) -> np.ndarray:
        """Returns the distribution of the value, by a Markov chain over (total, term) modulo 5."""
        states = np.zeros((MODULUS, MODULUS))
        states[0] = 1 / MODULUS
        total, term = np.indices(states.shape)
        for _ in range((length - 1) // 2):
            after = np.zeros_like(states)
            for digit in range(MODULUS):
                for operator in range(3):
                    moved = _calculated((total, term), digit, operator)
                    np.add.at(after, tuple(moved), states / (3 * MODULUS))
            states = after
        return np.bincount(((total + term) % MODULUS).ravel(), states.ravel(), MODULUS)


# Deterministic context-free. ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ReverseString(Language):
    """Repeat the bits in reverse order.  0 0 1 0 1 -> 1 0 1 0 0."""

    name: ClassVar = "reverse_string"
    answers: ClassVar = 1, 0

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws bits."""
        bits = _symbols(key, self, lengths)
        t = jnp.arange(self.longest, dtype=jnp.int32)[:, None]
        return Problem(bits, lengths, base.rows(bits, lengths[None] - 1 - t), lengths)


@dataclasses.dataclass(frozen=True)
class StackManipulation(Language):
    """What is on the stack, from the top down?  0 1 1 0 then push 1, pop, pop -> 1 1 0 end.

    A string of n symbols is a stack of 1 to n - 1 bits, the bottom first, followed by actions: 2
    pops (from an empty stack nothing), 3 pushes a 0, 4 pushes a 1. The answer ends with the symbol
    2. A string of one symbol is a stack without actions.
    """

    name: ClassVar = "stack_manipulation"
    symbols: ClassVar = 5
    output_size: ClassVar = 3
    answers: ClassVar = 1, 1

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws a stack and actions."""
        size_key, bit_key, action_key = jax.random.split(key, 3)
        shape = (self.longest, len(lengths))
        size = jax.random.randint(size_key, lengths.shape, 1, jnp.maximum(lengths, 2), jnp.int32)
        bits = jax.random.randint(bit_key, shape, 0, 2, jnp.int32)
        actions = jax.random.randint(action_key, shape, 2, 5, jnp.int32)
        string = jnp.where(_inside(bits, size), bits, actions)
        columns = jnp.arange(len(lengths), dtype=jnp.int32)

        def act(state, at):
            stack, height = state
            symbol, here = at
            pushes = here & (symbol != 2)
            at_top = jnp.where(pushes, symbol % 3 % 2, stack[height, columns])
            stack = stack.at[height, columns].set(at_top)
            height = height + jnp.where(pushes, 1, jnp.where(here, -1, 0))
            return (stack, jnp.maximum(height, 0)), None

        empty = jnp.zeros((self.longest + 1, len(lengths)), jnp.int32), jnp.zeros_like(lengths)
        (stack, height), _ = lax.scan(act, empty, (string, _inside(string, lengths)))
        t = jnp.arange(self.longest + 1, dtype=jnp.int32)[:, None]
        answer = jnp.where(t < height[None], base.rows(stack, height[None] - 1 - t), 2)
        return Problem(string, lengths, answer, height + 1)

    def constant(self, length: int) -> np.ndarray:
        """Returns the accuracy of 0, 1 and the end.

        In an answer of h bits and the end, each bit is right for V_0(h) = h / 2 of h + 1 symbols.
        After m more actions the mean is V_m(h) = V_(m-1)(h - 1) / 3 + 2 V_(m-1)(h + 1) / 3.
        """
        height = np.arange(2 * length + 1)
        value, found = height / 2 / (height + 1), []
        for left in range(length):
            if left or length == 1:
                found.append(value[length - left])
            down, up = np.maximum(height[:-1] - 1, 0), height[:-1] + 1
            value, height = value[down] / 3 + 2 * value[up] / 3, height[:-1]
        bit = float(np.mean(found))
        return np.array([bit, bit, 1 - 2 * bit])


# Context-sensitive. -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DuplicateString(Language):
    """Repeat the bits twice.  0 1 1 -> 0 1 1 0 1 1."""

    name: ClassVar = "duplicate_string"
    answers: ClassVar = 2, 0

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws bits."""
        bits = _symbols(key, self, lengths)
        t = jnp.arange(2 * self.longest, dtype=jnp.int32)[:, None]
        return Problem(bits, lengths, base.rows(bits, t % lengths[None]), 2 * lengths)


@dataclasses.dataclass(frozen=True)
class OddsFirst(Language):
    """Repeat the bits at odd places, then the others.  0 1 0 1 1 -> 0 0 1 1 1."""

    name: ClassVar = "odds_first"
    answers: ClassVar = 1, 0

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws bits."""
        bits = _symbols(key, self, lengths)
        t, odds = jnp.arange(self.longest, dtype=jnp.int32)[:, None], (lengths[None] + 1) // 2
        order = jnp.where(t < odds, 2 * t, 2 * (t - odds) + 1)
        return Problem(bits, lengths, base.rows(bits, order), lengths)


@dataclasses.dataclass(frozen=True)
class BucketSort(Language):
    """Sort a string of five different symbols.  3 0 4 0 2 -> 0 0 2 3 4.

    Five counters are enough.
    """

    name: ClassVar = "bucket_sort"
    symbols: ClassVar = 5
    output_size: ClassVar = 5
    answers: ClassVar = 1, 0

    def draw(self, key: Array, lengths: Array) -> Problem:
        """Draws symbols."""
        string = _symbols(key, self, lengths)
        behind = jnp.where(_inside(string, lengths), string, self.symbols)
        return Problem(string, lengths, jnp.sort(behind, axis=0), lengths)


LANGUAGES: dict[str, type[Language]] = {
    task.name: task
    for task in (
        EvenPairs, Parity, CycleNavigation, ModularArithmetic, ReverseString, StackManipulation,
        DuplicateString, OddsFirst, BucketSort,
    )
}  # fmt: skip


def _symbols(key: Array, task: Language, lengths: Array) -> Array:
    """Returns uniform symbols, [L, B]."""
    shape = task.longest, len(lengths)
    return jax.random.randint(key, shape, 0, task.symbols, jnp.int32)


def _inside(values: Array, lengths: Array) -> Array:
    """Returns [L, B] bool, True before the end of each row of values [L, B]."""
    return jnp.arange(len(values), dtype=jnp.int32)[:, None] < lengths[None]


def _kept(values: Array, lengths: Array) -> Array:
    """Returns values [L, B] with 0 from the end of each row on."""
    return jnp.where(_inside(values, lengths), values, 0)


def _one(string: Array, lengths: Array, answer: Array) -> Problem:
    """Returns a problem with an answer of one symbol, [B]."""
    return Problem(string, lengths, answer.astype(jnp.int32)[None], jnp.ones_like(lengths))


def _calculated(state: tuple, digit, operator) -> tuple:
    """Returns total and term modulo 5 after an operator and a digit; their sum is the value.

    + and - add the term to the total and start a new term; * multiplies the term.
    """
    total, term = state
    xp = jnp if isinstance(total, jax.Array) else np
    closed = (total + term) % MODULUS
    signed = xp.where(operator == 1, -digit, digit) % MODULUS
    times = operator == 2
    return xp.where(times, total, closed), xp.where(times, term * digit % MODULUS, signed)


def _over_answers(batch: Batch, values: Array) -> Array:
    """Returns the mean of values [T, B] over the symbols of each answer, [B]."""
    return jnp.mean(values, axis=0, where=batch.x[..., -1] > 0)

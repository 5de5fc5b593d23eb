"""The parameters of a sweep, and its trials as points of their space."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_jax.report.ledger import Record

ROUNDING = 1e-6  # records hold float32, which may lie as far (relatively) outside of the bounds


@dataclass(frozen=True)
class Parameter:
    """One axis of a search space, and the measure that weighs the settings on it.

    Attributes:
      name: the field of a trial's record.
      domain: its values, such as `lstm_jax.search.space.Log(1e-4, 1e-1)`: a range with `low`,
        `high`, `logarithmic` and `whole`, or a choice with `values`.
    """

    name: str
    domain: Any

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a choice; () for a range."""
        return getattr(self.domain, "values", ())

    @property
    def low(self) -> float:
        """The least value of a range."""
        return self.domain.low

    @property
    def high(self) -> float:
        """The greatest value of a range."""
        return self.domain.high

    @property
    def is_log(self) -> bool:
        """Whether equal ratios are equally far apart."""
        return self.domain.logarithmic

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.domain.whole

    def positions(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Returns values as the shares of the space below them, [n] in [0, 1].

        A whole number or a choice lies in the middle of its own share.

        Raises:
          ValueError: the parameter has no such value; the message names it.
        """
        if self.choices:
            return (np.array([self._index(value) for value in values]) + 0.5) / len(self.choices)
        numbers = np.array([self._number(value) for value in values], float)
        return np.clip(self._share_below(numbers), 0.0, 1.0)

    def values(self, positions: np.ndarray) -> list[Any]:
        """Returns the values at positions [n] in [0, 1], the inverse of `positions`."""
        if self.choices:
            indices = np.minimum(positions * len(self.choices), len(self.choices) - 1)
            return [self.choices[int(index)] for index in indices]
        numbers = self.numbers(positions).tolist()
        return [round(number) for number in numbers] if self.is_whole else numbers

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Returns the numbers at positions [n], not rounded to whole ones; not for a choice."""
        low, high = self._edges
        return low * (high / low) ** positions if self.is_log else low + (high - low) * positions

    def measure_below(self, positions: np.ndarray) -> np.ndarray:
        """Returns the share of the space at or below `positions`, a step for each whole number.

        A boundary between two trials divides the space in these shares.
        """
        positions = np.clip(positions, 0.0, 1.0)
        if not self.is_whole:
            return positions
        nearest = np.clip(np.round(self.numbers(positions)), self.low, self.high)
        centre = self._share_below(nearest)
        return self._share_below(np.where(centre <= positions, nearest + 0.5, nearest - 0.5))

    def grid(self, most: int) -> np.ndarray:
        """Returns positions to draw at: of choices, of few whole numbers, else `most` of them."""
        if self.choices:
            return self.positions(self.choices)
        if self.is_whole and self.high - self.low < most:
            return self.positions(np.arange(self.low, self.high + 1))
        return (np.arange(most) + 0.5) / most

    @property
    def _edges(self) -> tuple[float, float]:
        """Ends of the measure, half a unit beyond whole numbers."""
        half = 0.5 if self.is_whole else 0.0
        return self.low - half, self.high + half

    def _share_below(self, numbers: np.ndarray) -> np.ndarray:
        low, high = self._edges
        if self.is_log:
            return np.log(numbers / low) / math.log(high / low)
        return (numbers - low) / (high - low)

    def _index(self, value: Any) -> int:
        if value not in self.choices:
            raise ValueError(f"{self.name}: {value!r} is none of {self.choices}")
        return self.choices.index(value)

    def _number(self, value: Any) -> float:
        right = f"need a {'whole ' * self.is_whole}number in [{self.low:g}, {self.high:g}]"
        if not isinstance(value, int | float | np.number) or isinstance(value, bool):
            raise ValueError(f"{self.name}: {value!r}, {right}")
        number = float(value)
        slack = ROUNDING * max(abs(self.low), abs(self.high))
        slack_below = ROUNDING * self.low if self.is_log else slack
        inside = self.low - slack_below <= number <= self.high + slack
        if not inside or (self.is_whole and number != round(number)):
            raise ValueError(f"{self.name}: {value!r}, {right}")
        return min(max(number, self.low), self.high)


def points(space: Sequence[Parameter], records: Iterable[Record]) -> np.ndarray:
    """Returns the trials as points of the unit cube, [n, P].

    Raises:
      ValueError: two parameters of one name, or a record without a parameter or with a value that
        the parameter does not have; the message names it.
    """
    names = [parameter.name for parameter in space]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"parameters {names}: need one or more, of different names")
    columns = [parameter.positions(column(records, parameter.name)) for parameter in space]
    return np.stack(columns, axis=1)


def column(records: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """Returns one field of every record.

    Raises:
      ValueError: a record has no such field; the message gives its number and its fields.
    """
    found = []
    for place, record in enumerate(records):
        if name not in record:
            raise ValueError(f"record {place} has no {name!r}, only {sorted(record)}")
        found.append(record[name])
    return found

"""The interface of tasks over data for trained models: new rows, and predictions in their units."""

import abc
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np

from lstm_jax.tasks.base import Task

BLOCK = 256  # rows at a time


class Block(NamedTuple):
    """Rows of one call of a model.

    Attributes:
      rows: [n] their numbers among all rows.
      arrays: arrays that contain them.
      index: [size] their numbers in these arrays, padded by repetition.
    """

    rows: np.ndarray
    arrays: dict[str, Any]
    index: np.ndarray


class Predicting(Task):
    """A problem over data whose trained models predict for new data.

    It has the method `batch` of `Rows`, which also takes the result of `encode`.
    """

    @abc.abstractmethod
    def encode(self, x: Any, **given: Any) -> dict[str, Any]:
        """Returns the arrays of new rows, in the form that `batch` takes."""

    @property
    def has_rows(self) -> bool:
        """Whether the task has its data; a task that was saved with a network has none."""
        return "splits" in self.arrays()

    @abc.abstractmethod
    def arrays(self) -> dict[str, Any]:
        """Returns the data and the constants fitted to them."""

    @abc.abstractmethod
    def count(self, arrays: dict[str, Any]) -> int:
        """Returns the number of rows in arrays."""

    def steps(self, arrays: dict[str, Any]) -> int:
        """Returns the time steps of the longest row of arrays."""
        return arrays["x"].shape[1]

    @abc.abstractmethod
    def rows(self, split: str) -> dict[str, Any]:
        """Returns the arrays of the rows of one split."""

    @abc.abstractmethod
    def predictions(self, outputs: np.ndarray, arrays: dict[str, Any], **how: Any) -> np.ndarray:
        """Returns the mean prediction of M models in the units of the data, rows first.

        Args:
          outputs: [M, N, V] or [M, T, N, V].
          arrays: of the N rows.
          **how: probabilities or levels, see `Predictor.predict`.
        """

    @abc.abstractmethod
    def scores(self, outputs: np.ndarray, arrays: dict[str, Any]) -> dict[str, float]:
        """Returns metrics of the mean prediction; arguments are those of `predictions`."""

    def scores_of_parts(
        self, parts: Iterable[tuple[np.ndarray, dict[str, Any]]]
    ) -> dict[str, float]:
        """Returns the scores of rows that are read in parts of time, see `Task.parts`.

        Args:
          parts: outputs and arrays of one part after another, as `scores` takes them.
        """
        raise ValueError(f"{self.name} has no parts of time, got {parts!r:.40}")

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns the requirements of predictions: JSON values with "kind", and arrays."""

    @classmethod
    @abc.abstractmethod
    def restore(cls, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Returns a task without rows from its `state`."""

    def blocks(self, arrays: dict[str, Any]) -> Iterator[Block]:
        """Yields all rows in blocks of a few sizes, so that few programs are compiled.

        A task that is read in parts (`Task.parts`) yields these, one after another.
        """
        yield from blocks(np.arange(self.count(arrays)), lambda rows: (arrays, rows))


class Fitted(Predicting):
    """A problem with its data and constants fitted to them in `known`, None in `static`."""

    known: Any

    @classmethod
    def _of(cls, **fields: Any) -> Self:
        """Returns a task with these fields, without a call of `__init__`."""
        return cls.__new__(cls)._set(**fields)

    def _set(self, **fields: Any) -> Self:
        """Sets fields of a frozen dataclass while it is built."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        return self

    def _known(self) -> Any:
        if self.known is None:
            raise ValueError(f"a static task has no data: use the task that {self!r} came from")
        return self.known

    def arrays(self) -> dict[str, Any]:
        """Returns the data of all rows, the constants fitted to them, and the splits."""
        return self._known().arrays

    @property
    def digest(self) -> str:
        """The hash of the data."""
        return self._known().digest

    @property
    def chance(self) -> float:
        """The metric of the best answer that ignores the input."""
        return self._known().chance


def blocks(rows: np.ndarray, take: Any) -> Iterator[Block]:
    """Yields rows in blocks; take(padded rows) gives the arrays and the index."""
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        padded = np.resize(some, power_of_two(len(some))).astype(np.int32)
        yield Block(some, *take(padded))


def power_of_two(size: int) -> int:
    """Returns the least power of two that is not below `size`."""
    return 1 << max(size - 1, 0).bit_length()

"""Predictions of trained models for rows of sequences, in the units of the data."""

import abc
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lstm_jax import metrics
from lstm_jax.data.convert import to_length
from lstm_jax.tasks import base, heads
from lstm_jax.tasks.predicting import Block, Fitted, blocks, power_of_two
from lstm_jax.types import Array


class Answers(Fitted):
    """The part of a `Supervised` task for trained models."""

    form: Any
    head: heads.Head
    readout: Any

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[Any, ...]:
        """The labels in the order of their numbers; () for numeric targets."""

    @property
    def _has_classes(self) -> bool:
        return self.head.answers in ("class", "flags")

    # New rows. ------------------------------------------------------------------------------------

    @property
    def input_rank(self) -> int:
        """The rank of one time step of one row."""
        return 0 if self.form.symbols else 1

    def count(self, arrays: dict[str, Any]) -> int:
        """Returns the number of rows in arrays."""
        return len(arrays["x"])

    def rows(self, split: str) -> dict[str, Any]:
        """Returns the arrays of the rows of one split."""
        base.check_choice("split", split, base.SPLITS)
        arrays = self.arrays()
        return _taken(arrays, arrays["splits"][split])

    def blocks(self, arrays: dict[str, Any]) -> Iterator[Block]:
        """Yields blocks of rows of similar lengths, padded to a power of two of time steps."""
        steps = arrays["x"].shape[1]
        lengths = np.asarray(arrays.get("lengths", np.full(self.count(arrays), steps)))
        padded = np.array([power_of_two(n) for n in range(steps + 1)])[lengths]
        arrays = {name: value for name, value in arrays.items() if name != "y"}
        arrays |= {"lengths": lengths}
        for length in np.unique(padded):

            def take(rows, length=length):
                taken = {
                    name: to_length(value, int(length)) if name in ("x", "mask") else value
                    for name, value in _taken(arrays, rows).items()
                }
                return taken, np.arange(len(rows), dtype=np.int32)

            yield from blocks(np.flatnonzero(padded == length), take)

    # Predictions. ---------------------------------------------------------------------------------

    def decode(self, outputs: Any) -> np.ndarray:
        """Returns predictions [N], [N, K], [N, T] or [N, T, K]: labels, or numbers in their units.

        Args:
          outputs: the outputs of a model, [N, V] or [T, N, V].
        """
        values = self._rows_first(self.head.predict(self._split(outputs)))
        if self.head.answers == "class":
            values = np.array(self.classes)[values]
        elif not self._has_classes:
            mean, scale = self.arrays()["fitted"]["y"]
            values = values * scale + mean
        return self._without_single(values, -1)

    def probabilities(self, outputs: Any) -> np.ndarray:
        """Returns the probability of each class, [N, classes] or [N, T, classes].

        Raises:
          TypeError: the targets are numbers.
        """
        head = self._head_of_classes()
        values = self._rows_first(head.probabilities(self._split(outputs)))
        return self._without_single(values, -2 if head.answers == "class" else -1)

    def _head_of_classes(self) -> Any:
        if not self._has_classes:
            raise TypeError(f"probabilities need classes, got {self.head}")
        return self.head

    def quantiles(self, outputs: Any, levels: Sequence[float]) -> np.ndarray:
        """Returns the quantiles of each number in its units, the levels last.

        Raises:
          TypeError: the head predicts no quantiles.
        """
        values = self._rows_first(self.head.quantile(self._split(outputs), levels))
        mean, scale = (leaf[:, None] for leaf in self.arrays()["fitted"]["y"])
        return self._without_single(values * scale + mean, -2)

    def _split(self, outputs: Any) -> Array:
        return self.head.split(jnp.asarray(outputs))

    def _rows_first(self, values: Array) -> np.ndarray:
        rows = np.asarray(values)
        return np.swapaxes(rows, 0, 1) if self.readout == "every" else rows

    def _without_single(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Returns the values without the axis of targets if the task has one target."""
        return np.squeeze(values, axis) if self.form.targets == 1 else values

    def predictions(
        self,
        outputs: np.ndarray,
        arrays: dict[str, Any],
        *,
        probabilities: bool = False,
        levels: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Returns the mean prediction of M models, see `Predictor.predict`."""
        if levels is not None:
            return np.mean([self.quantiles(one, levels) for one in outputs], axis=0)
        if not self._has_classes and not probabilities:
            return np.mean([self.decode(one) for one in outputs], axis=0)
        mixed = self._mixed(outputs)
        return self.probabilities(mixed) if probabilities else self.decode(mixed)

    def _mixed(self, outputs: np.ndarray) -> np.ndarray:
        """Returns outputs for the mean probabilities of M models."""
        head = self._head_of_classes()
        return np.asarray(head.mixed(self._split(outputs))).reshape(outputs.shape[1:])

    def scores(self, outputs: np.ndarray, arrays: dict[str, Any]) -> dict[str, float]:
        """Returns accuracy, macro F1 and AUC of classes; R2, MAE and RMSE of numbers."""
        predictions, counts = self.predictions(outputs, arrays), self._counts(arrays)
        if not self._has_classes:
            y = self._without_single(np.asarray(arrays["y"]), -1)
            names = {"MAE": metrics.mae, "RMSE": metrics.rmse}
            if np.ptp(y[counts], axis=0).all():
                names = {"R2": metrics.r2} | names
            return {name: f(y[counts], predictions[counts]) for name, f in names.items()}
        if self.head.answers == "flags":
            y = np.asarray(arrays["y"])
            return {"accuracy": metrics.accuracy(y[counts].ravel(), predictions[counts].ravel())}
        numbers = self._without_single(np.asarray(arrays["y"]), -1)[counts]
        y = np.array(self.classes)[numbers]
        found = {
            "accuracy": metrics.accuracy(y, predictions[counts]),
            "macro F1": metrics.macro_f1(y, predictions[counts]),
        }
        if self.readout == "last" and len(np.unique(numbers)) == len(self.classes):
            scores = self.predictions(outputs, arrays, probabilities=True)[counts]
            found["AUC"] = metrics.auc(numbers, scores)
        return found

    def _counts(self, arrays: dict[str, Any]) -> np.ndarray:
        """Returns [N] or [N, T] bool, True where a target is known."""
        if "y" not in arrays:
            raise ValueError("data must have targets to be evaluated, got none")
        y = np.asarray(arrays["y"])
        known = np.all(y >= 0 if y.dtype.kind == "i" else ~np.isnan(y), axis=-1)
        if self.readout == "last" or "lengths" not in arrays:
            return known
        return known & (np.arange(y.shape[1]) < np.asarray(arrays["lengths"])[:, None])


SHARED = ("fitted", "splits")  # entries of arrays that are not per row


def _taken(arrays: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Returns the arrays of the given rows, without the splits."""
    taken = {name: value[rows] for name, value in arrays.items() if name not in SHARED}
    return taken | {"fitted": arrays["fitted"]}

"""Problems over your own sequences: a class, numbers, or an answer at every time step."""

import dataclasses
from typing import ClassVar

import numpy as np

from lstm_jax.data import Sequences, Split
from lstm_jax.data.splits import check_split
from lstm_jax.tasks import answers, heads
from lstm_jax.tasks.supervised import Supervised


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Classification(Supervised):
    """Predict the class of a sequence, or several labels that apply independently.

    Labels may be strings, integers, booleans or floats. Zeros and ones [N, K] are K independent
    labels.
    """

    name: ClassVar = "classification"
    readout: ClassVar = "last"

    def __init__(self, split: Split, class_weights: answers.ClassWeights = None):
        """Fits the classes and the scale of the inputs on the training rows.

        Args:
          split: divided sequences with one label for each row.
          class_weights: None, "balanced" for weights inverse to the size of a class, or a
            dictionary from class to weight.

        Raises:
          ValueError: y does not fit, or the training rows have a single class.
        """
        y, counts, train = _training(self, split)
        if answers.is_flags(y):
            answers.refuse_weights(class_weights)
            fitted = answers.fit_flags(y[train], counts[train])
        else:
            fitted = answers.fit_classes(y[train], counts[train], class_weights)
        self._build(split, fitted)

    def _targets(self, data: Sequences) -> tuple[np.ndarray, np.ndarray]:
        return _one_a_row(data)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Regression(Supervised):
    """Predict numbers from a sequence. Targets are scaled, except for a head of counts."""

    name: ClassVar = "regression"
    readout: ClassVar = "last"

    def __init__(self, split: Split, head: heads.Head | None = None):
        """Fits the scales of inputs and targets on the training rows.

        Args:
          split: divided sequences with one number, or K numbers, for each row.
          head: the loss of a number, such as `heads.Huber()`; `heads.Squared()` by default.

        Raises:
          ValueError: y does not fit or is constant; TypeError: y is not numeric.
        """
        y, counts, train = _training(self, split)
        head = answers.number_head(head)
        self._build(split, answers.fit_numbers(y[train], counts[train], head))

    def _targets(self, data: Sequences) -> tuple[np.ndarray, np.ndarray]:
        return _one_a_row(data)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Labelling(Supervised):
    """Answer at every time step: with a class for labels, with numbers for floats.

    Zeros and ones [N, T, K] are K independent labels. A time step with a missing target, None or
    NaN, does not count.
    """

    name: ClassVar = "labelling"
    readout: ClassVar = "every"

    def __init__(
        self,
        split: Split,
        head: heads.Head | None = None,
        class_weights: answers.ClassWeights = None,
    ):
        """Fits classes and scales on the training rows.

        Args:
          split: divided sequences with a target at every time step.
          head: the loss of a number; with it, integers are numbers instead of labels.
          class_weights: as in `Classification`.

        Raises:
          ValueError: y does not fit; TypeError: y is not numeric and a head is given.
        """
        y, counts, train = _training(self, split)
        y, counts = y[train], counts[train]
        if head is not None or y.dtype.kind == "f":
            answers.refuse_weights(class_weights)
            fitted = answers.fit_numbers(y, counts, answers.number_head(head))
        elif answers.is_flags(y):
            answers.refuse_weights(class_weights)
            fitted = answers.fit_flags(y, counts)
        else:
            fitted = answers.fit_classes(y, counts, class_weights)
        self._build(split, fitted)

    def _targets(self, data: Sequences) -> tuple[np.ndarray, np.ndarray]:
        y = answers.per_step(data)
        return y, data.valid()[..., None] & ~answers.missing(y).any(-1, keepdims=True)


def _training(task: Supervised, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the targets of all rows, where they count, and the training rows."""
    check_split(split)
    if not len(split.rows["train"]):
        raise ValueError("split must have training rows, got none")
    weight = split.data.weight
    if weight is not None and not weight[split.rows["train"]].any():
        raise ValueError("weight must be above 0 for one training row at least, got zeros alone")
    return *task._targets(split.data), split.rows["train"]


def _one_a_row(data: Sequences) -> tuple[np.ndarray, np.ndarray]:
    y = answers.per_row(data)
    answers.check_present(y)
    return y, np.ones((len(y), 1), bool)

"""Targets of rows: labels as numbers of classes, and numbers with their scale."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from lstm_jax.data import Sequences, convert, scaling
from lstm_jax.tasks import heads

ClassWeights = Literal["balanced"] | Mapping[Any, float] | None


def given(data: Sequences) -> np.ndarray:
    """Returns the targets of all rows.

    Raises:
      ValueError: the rows have none.
    """
    if data.y is None:
        raise ValueError("y must be given: these Sequences have no targets")
    return data.y


def per_row(data: Sequences) -> np.ndarray:
    """Returns y [N, K], one answer for each row.

    Raises:
      ValueError: y has another shape.
    """
    y = given(data)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2:
        raise ValueError(f"y must be [N] or [N, K], one answer a row, got shape {list(y.shape)}")
    return y


def per_step(data: Sequences) -> np.ndarray:
    """Returns y [N, T, K], one answer for each time step.

    Raises:
      ValueError: y has another shape.
    """
    y = given(data)
    shape = (len(data), data.steps)
    if y.shape[:2] != shape or y.ndim > 3:
        right = f"[N, T] = {list(shape)} or [N, T, K], one answer a time step"
        raise ValueError(f"y must be {right}, got shape {list(y.shape)}")
    return y if y.ndim == 3 else y[..., None]


def missing(y: np.ndarray) -> np.ndarray:
    """Returns True where a target is missing: a label "", or a number NaN."""
    if y.dtype.kind == "U":
        return y == ""
    return np.isnan(y) if y.dtype.kind == "f" else np.zeros(y.shape, bool)


def classes_of(y: np.ndarray, counts: np.ndarray) -> tuple[Any, ...]:
    """Returns the different labels that count, in order.

    Raises:
      ValueError: fewer than two labels count.
    """
    labels = np.unique(y[counts & ~missing(y)])
    if len(labels) < 2:
        got = "one, " + repr(labels[0].item()) if len(labels) else "none"
        raise ValueError(f"y must have at least 2 classes in the training rows, got {got}")
    return tuple(label.item() for label in labels)


def numbered(y: np.ndarray, counts: np.ndarray, classes: tuple[Any, ...]) -> np.ndarray:
    """Returns the number of each label's class, int32; -1 for labels that do not count.

    Raises:
      ValueError: a label is not among the classes.
    """
    known = np.array(classes)
    counts = counts & ~missing(y)
    if (y.dtype.kind == "U") != (known.dtype.kind == "U"):
        raise ValueError(f"y must hold labels such as {classes[0]!r}, got {y.dtype}")
    place = np.minimum(np.searchsorted(known, y), len(known) - 1)
    unknown = counts & (known[place] != y)
    if unknown.any():
        at = np.argwhere(unknown)[0]
        right = f"a class of the training rows, {_listed(classes)}"
        hint = "; Regression predicts numbers" if y.dtype.kind in "iuf" else ""
        raise ValueError(f"y of row {at[0]} must be {right}, got {y[tuple(at)].item()!r}{hint}")
    return np.where(counts, place, -1).astype(np.int32)


def _listed(classes: tuple[Any, ...]) -> str:
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    return ", ".join(repr(label) for label in classes[:8]) + more


def check_present(y: np.ndarray) -> None:
    """Raises ValueError if the target of a row is missing."""
    gone = missing(y).reshape(len(y), -1).any(1)
    if gone.any():
        row = int(np.argmax(gone))
        raise ValueError(f"y must have a target in every row, got none in row {row}; leave it out")


def is_flags(y: np.ndarray) -> bool:
    """Returns whether y [..., K] has zeros and ones for K independent labels.

    Raises:
      ValueError: y has other numbers, or exactly one 1 in every row, which is a class.
    """
    if y.shape[-1] == 1:
        return False
    if y.dtype.kind not in convert.NUMBERS or not np.isin(y, (0, 1)).all():
        right = "[N] labels, or [N, K] zeros and ones"
        raise ValueError(f"y must be {right}, got {y.dtype} of shape {list(y.shape)}")
    if (y.sum(-1) == 1).all():
        right = "[N] labels where each row has one class: use y.argmax(1)"
        raise ValueError(f"y must be {right}, got one-hot rows of shape {list(y.shape)}")
    return True


def importance(
    class_weights: ClassWeights, classes: tuple[Any, ...], numbers: np.ndarray
) -> tuple[float, ...] | None:
    """Returns the weight of each class, with mean 1 over the training labels.

    Raises:
      ValueError: the weights are no dictionary, or a class has no weight, or one that is not
        positive.
    """
    if class_weights is None:
        return None
    count = np.bincount(numbers[numbers >= 0], minlength=len(classes))
    if isinstance(class_weights, Mapping):
        weights = np.array([_weight_of(class_weights, label) for label in classes])
        for label in class_weights:
            if label not in classes:
                right = f"classes alone, {_listed(classes)}"
                raise ValueError(f"class_weights must name {right}, got {label!r}")
    elif isinstance(class_weights, str) and class_weights == "balanced":
        weights = 1 / np.maximum(count, 1)
    else:
        right = "None, 'balanced' or a dictionary from class to weight"
        raise ValueError(f"class_weights must be {right}, got {class_weights!r:.60}")
    return tuple((weights * count.sum() / (weights @ count)).tolist())


def _weight_of(class_weights: Mapping[Any, float], label: Any) -> float:
    weight = class_weights.get(label)
    if weight is None or not 0 < weight < math.inf:
        right = f"a number above 0 for class {label!r}"
        raise ValueError(f"class_weights must have {right}, got {weight!r}")
    return float(weight)


def as_numbers(y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns float32 targets.

    Raises:
      TypeError: the targets are not numeric; ValueError: one that counts is infinite.
    """
    if y.dtype.kind not in convert.NUMBERS:
        hint = "Classification names classes"
        raise TypeError(f"y must hold numbers, got strings such as {y.item(0)!r:.40}; {hint}")
    y = y.astype(np.float32, copy=False)
    bad = np.isinf(y) & counts
    if bad.any():
        at = np.argwhere(bad)[0]
        raise ValueError(f"y of row {at[0]} must be finite, got {y[tuple(at)]}")
    return y


class Fitted(NamedTuple):
    """The properties of a task that its training targets determine.

    Attributes:
      head: the loss of the outputs.
      classes: the labels in the order of their numbers; () for numeric targets.
      importance: the weight of each class, or None.
      constants: scale and unit of errors of numeric targets.
      chance: the metric of the best answer that ignores the input.
    """

    head: heads.Head
    classes: tuple[Any, ...] = ()
    importance: tuple[float, ...] | None = None
    constants: Mapping[str, Any] = MappingProxyType({})
    chance: float = 0.0


def fit_classes(y: np.ndarray, counts: np.ndarray, class_weights: ClassWeights) -> Fitted:
    """Returns the properties of training labels [..., 1]."""
    classes = classes_of(y, counts)
    numbers = numbered(y, counts, classes)
    weights = importance(class_weights, classes, numbers)
    head, chance = heads.CrossEntropy(len(classes)), most_common(numbers)
    return Fitted(head, classes, weights, chance=chance)


def fit_flags(y: np.ndarray, counts: np.ndarray) -> Fitted:
    """Returns the properties of training zeros and ones [..., K]."""
    ones = np.mean(y, axis=tuple(range(y.ndim - 1)), where=counts)
    return Fitted(heads.Bernoulli(), chance=float(np.maximum(ones, 1 - ones).mean()))


def fit_numbers(y: np.ndarray, counts: np.ndarray, head: heads.Head) -> Fitted:
    """Returns the properties of training numbers [..., K]; counts are not scaled.

    Raises:
      ValueError: a target is constant, or is not a count for a head of counts.
    """
    y = as_numbers(y, counts)
    names = tuple(f"target {k} of y" for k in range(y.shape[-1]))
    scale = scaling.fit(y, counts[..., 0], np.arange(len(y)), names)
    for k, name in enumerate(names):
        values = y[..., k][counts[..., 0] & ~np.isnan(y[..., k])]
        if (values == values[0]).all():
            raise ValueError(f"{name} must differ between training rows, got {values[0]} alone")
    if head.answers == "numbers":
        return Fitted(head, constants={"y": scale, "unit": np.ones_like(scale.scale)})
    known = y[counts & ~np.isnan(y)]
    if (known < 0).any() or (known != np.round(known)).any():
        raise ValueError(f"y must hold counts 0, 1, 2, ... for {head}, got {known.min()}")
    return Fitted(head, constants={"y": scaling.identity(len(names)), "unit": scale.scale})


def number_head(head: heads.Head | None) -> heads.Head:
    """Returns the head of a number, the squared error by default.

    Raises:
      TypeError: it is not a head, or a head of classes.
    """
    head = heads.Squared() if head is None else head
    if getattr(head, "answers", None) not in ("numbers", "counts"):
        raise TypeError(f"head must be one of numbers, such as heads.Huber(), got {head!r}")
    return head


def refuse_weights(class_weights: ClassWeights) -> None:
    """Raises ValueError for class weights of targets that are not a single class."""
    if class_weights is not None:
        right = "None where a target is no single class"
        raise ValueError(f"class_weights must be {right}, got {class_weights!r:.60}")


def most_common(numbers: np.ndarray) -> float:
    """Returns the share of the most common class among the labels that count."""
    counted = numbers[numbers >= 0]
    return float(np.bincount(counted).max() / len(counted))

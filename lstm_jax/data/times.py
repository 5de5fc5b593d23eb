"""Times of series: how far apart time steps are, and where a time lies on their grid."""

import datetime
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.data import convert

UNITS = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 7 * 86400}  # seconds
MONTHS = {"M": 1, "Q": 3, "Y": 12}
SEASONS = {("M", 1): 12, ("M", 3): 4, ("s", 3600): 24, ("s", 86400): 7, ("s", 7 * 86400): 52}


class Frequency(NamedTuple):
    """The distance of two time steps.

    Attributes:
      unit: "s" for seconds, "M" for months, "" for plain numbers.
      count: how many of them.
    """

    unit: str
    count: float

    def __str__(self) -> str:
        units = reversed(UNITS.items()) if self.unit == "s" else ()
        whole = ((name, self.count / size) for name, size in units if self.count % size == 0)
        name, count = next(whole, (self.unit, self.count))
        return f"{count:g}{name}"

    @property
    def season(self) -> int:
        """The time steps of the usual season: 12 months, 4 quarters, 7 days, 24 hours; else 1."""
        return SEASONS.get((self.unit, int(self.count)), 1)


def parse(frequency: Any) -> Frequency | None:
    """Returns a frequency given as "h", "15min", "D", "MS", "Q", a timedelta or a number.

    Raises:
      ValueError: it is none of these.
    """
    if frequency is None or isinstance(frequency, Frequency):
        return frequency
    if isinstance(frequency, datetime.timedelta | np.timedelta64):
        return _above_zero(frequency, "s", np.timedelta64(frequency) / np.timedelta64(1, "s"))
    if isinstance(frequency, int | float | np.number) and not isinstance(frequency, bool):
        return _above_zero(frequency, "", float(frequency))
    found = re.fullmatch(r"(\d*)(s|min|h|D|W|[MQY])[SE]?", str(frequency))
    if not found:
        raise ValueError(
            f"frequency must be such as '15min', 'h', 'D', 'W', 'M', 'Q', 'Y', a timedelta or a "
            f"number, got {frequency!r}"
        )
    count, name = int(found[1] or 1), found[2]
    unit, factor = ("M", MONTHS[name]) if name in MONTHS else ("s", UNITS[name])
    return _above_zero(frequency, unit, float(count * factor))


def _above_zero(given: Any, unit: str, count: float) -> Frequency:
    if not 0 < count < np.inf:
        raise ValueError(f"frequency must be above 0, got {given!r}")
    return Frequency(unit, float(count))


def check_alike(frequency: Frequency | None, other: Frequency | None) -> None:
    """Raises ValueError where both sides have times, and another distance of time steps."""
    if frequency is None or other is None:
        return
    if frequency.unit != other.unit or not np.isclose(frequency.count, other.count, rtol=1e-6):
        raise ValueError(
            f"series must have the time step of training, {frequency}, got {other}; where rows are "
            "left out, give frequency="
        )


def as_times(values: Any) -> np.ndarray:
    """Returns times as datetime64[s] or finite numbers; strings in the form of ISO 8601 are read.

    Raises:
      ValueError: a time is missing or cannot be read.
      TypeError: they are neither dates nor numbers.
    """
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.dtype.kind in "OU":
        _check_there([convert.is_missing(value) for value in array])
        array = np.array([_read(row, value) for row, value in enumerate(array)])
    if array.dtype.kind == "M":
        _check_there(np.isnat(array))
        seconds = array.astype("datetime64[s]")
        if np.any(seconds != array):
            row = int(np.argmax(seconds != array))
            raise ValueError(f"time must be in whole seconds, got {array[row]} in row {row}")
        return seconds
    if array.dtype.kind not in "iuf":
        raise TypeError(f"time must hold dates or numbers, got {array.dtype}")
    _check_there(np.isnan(array))
    if not np.all(np.isfinite(array)):
        row = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"time must be finite, got {array[row]} in row {row}")
    return array.astype(np.float64)


def _check_there(gone: Any) -> None:
    """Raises ValueError where a time is missing."""
    if np.any(gone):
        raise ValueError(f"time must have no missing value, got one in row {int(np.argmax(gone))}")


def _read(row: int, value: Any) -> Any:
    """Returns one number, or one date without time zone."""
    if isinstance(value, int | float | np.number):
        return value
    if getattr(value, "tzinfo", None) is not None:
        raise ValueError(f"time must have no time zone, got {value} in row {row}: convert to UTC")
    try:
        return np.datetime64(value, "us")
    except ValueError:
        right = "a date such as '2024-01-31' or '2024-01-31T12:00'"
        raise ValueError(f"time must be {right}, got {value!r} in row {row}") from None


def infer(times: list[np.ndarray]) -> Frequency:
    """Returns the most common distance of consecutive times, in months if days of the month agree.

    Raises:
      ValueError: no series has two times.
    """
    together = [series for series in times if len(series) > 1]
    if not together:
        raise ValueError("frequency must be given where no series has two times")
    if together[0].dtype.kind == "M" and _monthly(together):
        return Frequency("M", _commonest(together, _months))
    unit = "s" if together[0].dtype.kind == "M" else ""
    return Frequency(unit, _commonest(together, _plain))


def _commonest(times: list[np.ndarray], ticks: Callable[[np.ndarray], np.ndarray]) -> float:
    steps = np.concatenate([np.diff(ticks(series)) for series in times])
    values, counts = np.unique(steps, return_counts=True)
    return float(values[np.argmax(counts)])


def _plain(times: np.ndarray) -> np.ndarray:
    """Returns seconds since 1970, or numbers as they are."""
    return times.astype(np.int64) if times.dtype.kind == "M" else times


def _months(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[M]").astype(np.int64)


def _monthly(times: list[np.ndarray]) -> bool:
    """Returns whether all times are of one day of the month, or all of the last one."""
    flat = np.concatenate(times)
    into = flat - flat.astype("datetime64[M]")
    last = _at_end(flat)
    apart = min(np.diff(_months(series)).min() for series in times)
    return bool(apart >= 1 and ((into == into[0]).all() or last.all()))


def _at_end(times: np.ndarray) -> np.ndarray:
    """Returns where a time lies on the last day of its month."""
    day = times.astype("datetime64[D]")
    return (day + 1).astype("datetime64[M]") > day.astype("datetime64[M]")


def positions(name: Any, times: np.ndarray, frequency: Frequency) -> np.ndarray:
    """Returns the time step of each time, int64, 0 for the first.

    Args:
      name: of the series, for messages.
      times: [n], in increasing order.
      frequency: the distance of time steps.

    Raises:
      ValueError: a time lies between two time steps, or is of another kind.
    """
    if (times.dtype.kind == "M") == (frequency.unit == ""):
        raise ValueError(f"frequency must fit the times, got {frequency} for {times.dtype}")
    ticks = _months(times) if frequency.unit == "M" else _plain(times)
    steps = (ticks - ticks[0]) / frequency.count
    whole = np.rint(steps)
    off = np.abs(steps - whole) > 1e-6 * np.maximum(1, np.abs(steps))
    if off.any():
        row = int(np.argmax(off))
        raise ValueError(
            f"time of series {name!r} must lie on its grid of {frequency} from {times[0]}, got "
            f"{times[row]}: give frequency= the distance of time steps"
        )
    return whole.astype(np.int64)


def after(first: Any, frequency: Frequency, steps: np.ndarray) -> np.ndarray:
    """Returns the times of steps counted from the first time."""
    if frequency.unit == "":
        return first + steps * frequency.count
    if frequency.unit == "s":
        return first + (steps * frequency.count).astype("timedelta64[s]")
    month = first.astype("datetime64[M]") + (steps * frequency.count).astype("timedelta64[M]")
    longest = (month + 1).astype("datetime64[s]") - np.timedelta64(1, "D")
    moved = month.astype("datetime64[s]") + (first - first.astype("datetime64[M]"))
    of_day = first - first.astype("datetime64[D]")
    return longest + of_day if _at_end(first) else np.minimum(moved, longest + of_day)


def check_order(
    name: str, time: Any, rows: np.ndarray, hint: str = "", table: bool = False
) -> None:
    """Raises ValueError unless times increase; the message names the owner and row, and a hint."""
    step = np.diff(_plain(time))
    if np.any(step <= 0):
        at = int(np.argmax(step <= 0))
        place = "is there twice" if step[at] == 0 else f"comes after {time[at]}"
        hint += "; sort the table by id and time" if table and step[at] < 0 else ""
        raise ValueError(
            f"time must increase within {name}: {time[at + 1]} in row {rows[at + 1]} {place}{hint}"
        )

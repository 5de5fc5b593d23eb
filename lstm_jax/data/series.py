"""Series: numbers over time, one series or many, with what is known beside them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.checks import check_size
from lstm_jax.data import convert, frames, times, windows
from lstm_jax.data.digest import digest

SPARSE = 100  # a series may span that many time steps for each of its rows


class _One(NamedTuple):
    """One series as given: values [L], known [L, K], past [L, P], and times [L] or None."""

    values: np.ndarray
    known: np.ndarray | None
    past: np.ndarray | None
    time: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False, repr=False, init=False)
class Series:
    """N series of numbers on regular time steps, concatenated.

    A time step without a row or without a number is NaN: a gap, which nothing fills. The time steps
    after the last number of a series are its future, with the covariates that are known ahead.
    The attributes are read-only copies.

    Attributes:
      ids: the names of the series.
      values: [S] float64, all series concatenated, NaN where a number is missing.
      offsets: [N + 1] int64, the ends of the series in `values`.
      lengths: [N] int64, the time steps of each series up to its last number.
      known: [S, K] float64, covariates that are known ahead, such as holidays; or None.
      past: [S, P] float64, covariates that are not; or None.
      static: [N, F] float64, features that are constant within a series; or None.
      season: time steps of a season, 1 for none.
      start: [N] first times, datetime64[s] or numbers; None without times.
      frequency: the distance of time steps; None without times.
      names: the names of the columns of known, past and static, by argument; () without.
      origin: the table that they came from.
    """

    ids: tuple[Any, ...]
    values: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    known: np.ndarray | None
    past: np.ndarray | None
    static: np.ndarray | None
    season: int
    start: np.ndarray | None
    frequency: times.Frequency | None
    names: dict[str, tuple[str, ...]]
    origin: frames.Origin

    def __init__(
        self,
        values: Any,
        *,
        ids: Sequence[Any] | None = None,
        time: Any = None,
        known: Any = None,
        past: Any = None,
        static: Any = None,
        frequency: Any = None,
        season: int | None = None,
    ):
        """Checks the series and lays each on its grid of time steps.

        Args:
          values: numbers [T], or a list of series [T_i] of different lengths.
          ids: a name for each series; 0, 1, .. where they are not given.
          time: the times of the values in increasing order: dates or numbers, [T] or a list of
            [T_i]. Times that are left out become gaps.
          known: covariates known ahead, [L] or [L, K] or a list of them. L may exceed T: further
            rows are of the future. Columns of tables keep their names, here and below: a task
            refuses series whose covariates have other names than those that trained it.
          past: covariates of the past, [T] or [T, P] or a list of them.
          static: [N] or [N, F] numbers.
          frequency: the distance of time steps, such as "D", "15min", "M" or a number; by default
            the most common one.
          season: time steps of a season; by default that of the frequency (12 for months, 4 for
            quarters, 24 for hours, 7 for days, 52 for weeks), else 1.

        Raises:
          ValueError: shapes do not fit, a series has no number, times are unsorted, double or off
            the grid; TypeError: something is not a number.
        """
        if hasattr(values, "columns") or isinstance(values, dict):
            right = (
                "numbers; of a table take Series.from_frame(table, target=..., id=..., time=...)"
            )
            raise TypeError(f"values must be {right}")
        given = _as_list("values", values)
        many = convert.is_ragged(values)
        ids = tuple(range(len(given))) if ids is None else tuple(ids)
        if len(ids) != len(given) or len(set(ids)) != len(ids):
            raise ValueError(f"ids must name each of {len(given)} series once, got {ids!r:.60}")
        beside = {
            name: _beside(name, part, len(given), many)
            for name, part in (("time", time), ("known", known), ("past", past))
        }
        rows = [
            _one(name, given[n], *(part[n] for part in beside.values()))
            for n, name in enumerate(ids)
        ]
        self._lay(ids, rows, static, frequency, season, None)
        parts = {"known": known, "past": past, "static": static}
        names = {name: frames.names_of(name, part) for name, part in parts.items()}
        self._set(names=names, origin=frames.Origin())

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        target: str,
        time: str | None = None,
        id: str | None = None,
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        static: Sequence[str] = (),
        frequency: Any = None,
        season: int | None = None,
    ) -> "Series":
        """Returns the series of a table with one row for each series and time.

        Args:
          frame: of pandas, polars or pyarrow, or a dictionary of columns.
          target: the column of the values. Rows after the last value are the future.
          time: the column of dates or numbers, in increasing order within each series; None where
            rows follow each other without gaps.
          id: the column that names the series; None for one series.
          known: columns of covariates that are known ahead.
          past: columns of covariates that are not.
          static: columns that are the same in all rows of a series.
          frequency: as in `Series`.
          season: as in `Series`.

        Raises:
          ValueError: a column is missing, or as `Series`; the message names series and row.
          TypeError: a column does not hold numbers.
        """
        several = {"known": known, "past": past, "static": static}
        frames.check_uses({"time": time, "id": id, "target": target}, several)
        columns = frames.columns(frame)
        values = frames.numbers(columns, [target])[:, 0]
        names = np.zeros(len(values), int) if id is None else frames.names(columns, id)
        ids, rows_of = frames.members(names)
        ahead, behind = (frames.numbers(columns, part) if part else None for part in (known, past))
        when = None if time is None else times.as_times(frames.column(columns, time))
        rows = [
            _One(values[r], *(None if part is None else part[r] for part in (ahead, behind, when)))
            for r in rows_of
        ]
        fixed = None
        if static:
            fixed = frames.constant(frames.numbers(columns, static), static, ids, rows_of)
        series = cls.__new__(cls)
        series._lay(ids, rows, fixed, frequency, season, rows_of)
        names = {argument: tuple(part) for argument, part in several.items()}
        series._set(names=names, origin=frames.origin(frame, id, time))
        return series

    def _set(self, **fields: Any) -> None:
        """Sets fields while the series are built."""
        for name, value in fields.items():
            object.__setattr__(self, name, convert.read_only(value))

    def _lay(
        self,
        ids: tuple[Any, ...],
        rows: list[_One],
        static: Any,
        frequency: Any,
        season: int | None,
        rows_of: list[np.ndarray] | None,
    ) -> None:
        """Puts the rows of each series on its grid, and concatenates the series."""
        frequency, start = times.parse(frequency), None
        if rows[0].time is not None:
            numbered = rows_of or [np.arange(len(one.values)) for one in rows]
            hint = "; a table of several series needs id=" if rows_of and len(ids) == 1 else ""
            for name, one, places in zip(ids, rows, numbered, strict=True):
                times.check_order(f"series {name!r}", one.time, places, hint, rows_of is not None)
            frequency = frequency or times.infer([one.time for one in rows])  # pyright: ignore
            start = np.array([one.time[0] for one in rows])  # pyright: ignore
            rows = [_on_grid(name, one, frequency) for name, one in zip(ids, rows, strict=True)]
        self._set(
            ids=ids,
            values=np.concatenate([one.values for one in rows]),
            offsets=np.cumsum([0, *(len(one.values) for one in rows)]),
            lengths=np.array([_length(n, r.values) for n, r in zip(ids, rows, strict=True)]),
            known=_joined("known", ids, [one.known for one in rows]),
            past=_joined("past", ids, [one.past for one in rows]),
            static=None if static is None else _static(static, len(ids)),
            season=_season(season, frequency),
            start=start,
            frequency=frequency if start is not None else None,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, n: int) -> np.ndarray:
        """Returns the values [T] of one series, up to its last number."""
        n = range(len(self))[n]
        return self.values[self.offsets[n] : self.offsets[n] + self.lengths[n]]

    def __repr__(self) -> str:
        every = "" if self.frequency is None else f" every {self.frequency}"
        steps = f"{self.lengths.min()} to {self.lengths.max()} time steps{every}"
        return f"Series({len(self)} series, {steps}, season {self.season})"

    @property
    def digest(self) -> str:
        """The hash of the contents."""
        names = ("values", "offsets", "known", "past", "static")
        return digest({name: getattr(self, name) for name in names} | {"season": self.season})

    def times(self, n: int, steps: Any) -> np.ndarray:
        """Returns the times of these time steps of series n; without times, the steps."""
        steps = np.asarray(steps)
        if self.start is None or self.frequency is None:
            return steps
        return times.after(self.start[n], self.frequency, steps)

    def split(self, horizon: int, validation: int = 1, test: int = 1) -> windows.Windows:
        """Returns windows in time: the last of each series test, those before them validate.

        Args:
          horizon: H, the time steps of a forecast.
          validation: windows of H time steps of each series that validate.
          test: windows of H time steps of each series that test.

        Raises:
          ValueError: a number is out of range, or no series is long enough to train.
        """
        return windows.split(self, horizon, validation, test)


def to_forecast(given: Any, ends: Any = None) -> tuple[Series, np.ndarray]:
    """Returns series and the windows [W, 2] that are to be forecast.

    Args:
      given: a `Series`, or the values of one or several; or `Windows`, those that test.
      ends: [W, 2] windows; by default the one behind the last number of each series.
    """
    if isinstance(given, windows.Windows):
        given, ends = given.series, given.ends["test"] if ends is None else ends
    series = given if isinstance(given, Series) else Series(given)
    if ends is None:
        return series, windows.newest(series)
    ends = np.asarray(ends)
    if ends.dtype.kind not in "iu":
        raise ValueError(f"ends must be integers [W, 2], got {ends.dtype} {list(ends.shape)}")
    return series, ends.astype(np.int32)


def _as_list(name: str, values: Any) -> list[np.ndarray]:
    """Returns the series of one array or of a list of them."""
    if convert.is_ragged(values):
        return [convert.numbers(f"{name}[{n}]", part) for n, part in enumerate(values)]
    return [convert.numbers(name, values)]


def _beside(name: str, part: Any, count: int, many: bool) -> Sequence[Any]:
    """Returns the entry for each of `count` series, None where it has none."""
    if part is None:
        return [None] * count
    parts = list(part) if many else [part]
    if len(parts) != count:
        raise ValueError(f"{name} must have one array for each of {count} series, got {len(parts)}")
    if name == "time":
        return [times.as_times(one) for one in parts]
    return [convert.numbers(f"{name}[{n}]", one) for n, one in enumerate(parts)]


def _one(
    name: Any,
    values: np.ndarray,
    time: np.ndarray | None,
    known: np.ndarray | None,
    past: np.ndarray | None,
) -> _One:
    """Returns one series with everything as long as the longest part."""
    if values.ndim != 1:
        raise ValueError(
            f"values of series {name!r} must be [T], got shape {list(values.shape)}: give a list "
            "of series, or further columns as past="
        )
    longest = max(len(part) for part in (values, time, known) if part is not None)
    short = len(values) if past is None else len(past)
    if short not in (len(values), longest) or (time is not None and len(time) != longest):
        sizes = {"values": values, "time": time, "known": known, "past": past}
        got = ", ".join(f"{k} {len(part)}" for k, part in sizes.items() if part is not None)
        raise ValueError(
            f"series {name!r} must have past as long as values, and time as long as values or known"
            f", got {got}"
        )
    return _One(
        _filled(values, longest),
        None if known is None else _filled(_columns_of("known", known), longest),
        None if past is None else _filled(_columns_of("past", past), longest),
        time,
    )


def _columns_of(name: str, part: np.ndarray) -> np.ndarray:
    if part.ndim not in (1, 2):
        raise ValueError(f"{name} must be [T] or [T, n], got shape {list(part.shape)}")
    return part[:, None] if part.ndim == 1 else part


def _filled(part: np.ndarray, length: int) -> np.ndarray:
    """Returns float64 numbers, padded with NaN."""
    whole = np.full((length, *part.shape[1:]), np.nan)
    whole[: len(part)] = part
    return whole


def _on_grid(name: Any, one: _One, frequency: times.Frequency) -> _One:
    """Returns a series with a row for each time step, NaN where none was given."""
    assert one.time is not None
    place = times.positions(name, one.time, frequency)
    double = np.flatnonzero(np.diff(place) == 0)
    if len(double):
        a, b = one.time[double[0] : double[0] + 2]
        raise ValueError(f"time of series {name!r} has {a} and {b} in one time step of {frequency}")
    steps = int(place[-1]) + 1
    if steps > SPARSE * len(place) + SPARSE:
        raise ValueError(
            f"time of series {name!r} must not be so sparse: {len(place)} rows in {steps} time "
            f"steps of {frequency}; give a longer frequency="
        )

    def spread(part: np.ndarray | None) -> Any:
        if part is None:
            return None
        whole = np.full((steps, *part.shape[1:]), np.nan)
        whole[place] = part
        return whole

    return _One(spread(one.values), spread(one.known), spread(one.past), one.time)


def _length(name: Any, values: np.ndarray) -> int:
    """Returns the time steps up to the last number.

    Raises:
      ValueError: the series has no number, or an infinite one.
    """
    (there,) = np.nonzero(~np.isnan(values))
    if not len(there):
        raise ValueError(f"values of series {name!r} must have a number, got NaN alone")
    if np.isinf(values).any():
        at = int(np.argmax(np.isinf(values)))
        raise ValueError(f"values of series {name!r} must be finite, got {values[at]} at step {at}")
    return int(there[-1]) + 1


def _joined(name: str, ids: tuple, parts: list[np.ndarray | None]) -> np.ndarray | None:
    """Returns the covariates of all series, concatenated."""
    first = parts[0]
    if first is None:
        return None
    for n, part in zip(ids, parts, strict=True):
        if part is None or part.shape[1:] != first.shape[1:]:
            got = "none" if part is None else part.shape[1]
            raise ValueError(
                f"{name} of series {n!r} must have {first.shape[1]} columns, got {got}"
            )
    return np.concatenate(parts)  # pyright: ignore


def _static(static: Any, count: int) -> np.ndarray:
    array = convert.numbers("static", static).astype(np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != count:
        raise ValueError(f"static must be [{count}, n], one row a series, got {list(array.shape)}")
    return array


def _season(season: int | None, frequency: times.Frequency | None) -> int:
    if season is None:
        return 1 if frequency is None else frequency.season
    check_size("season", season)
    return season

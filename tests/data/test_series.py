"""Series: one form of all tables, gaps that stay gaps, splits in time without leakage."""

import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_jax.data import Series
from lstm_jax.data.windows import newest

DAYS = np.datetime64("2024-02-27") + np.array([0, 1, 2, 5, 6])
TABLE = {
    "shop": ["b", "a", "b", "a", "b", "a", "b"],
    "day": [str(day) for day in DAYS[[0, 0, 1, 2, 3, 3, 4]]],
    "sold": [1.0, 10.0, 2.0, None, 3.0, 12.0, None],
    "open": [1, 1, 0, 1, 1, 1, 1],
    "rain": [0.5, 0.0, 0.1, 0.2, 0.3, 0.4, None],
    "size": [7, 5, 7, 5, 7, 5, 7],
}
ROLES: dict[str, Any] = {"id": "shop", "time": "day", "target": "sold"}
BESIDE: dict[str, Any] = {"known": ["open"], "past": ["rain"], "static": ["size"]}


def tables():
    yield "dict", lambda: TABLE
    yield "pandas", lambda: pytest.importorskip("pandas").DataFrame(TABLE)
    yield "polars", lambda: pytest.importorskip("polars").DataFrame(TABLE)
    yield "pyarrow", lambda: pytest.importorskip("pyarrow").table(TABLE)


@pytest.mark.parametrize("make", [make for _, make in tables()], ids=[name for name, _ in tables()])
def test_every_kind_of_table_gives_the_same_series(make):
    series = Series.from_frame(make(), **ROLES, **BESIDE)
    assert series.ids == ("b", "a")  # in the order of their first rows
    nan = np.nan
    np.testing.assert_array_equal(series.values, [1, 2, nan, nan, nan, 3, nan, 10, *[nan] * 4, 12])
    assert series.lengths.tolist() == [6, 6]  # the last row of b is of the future
    assert series.known is not None and series.past is not None
    np.testing.assert_array_equal(series.known[:7, 0], [1, 0, nan, nan, nan, 1, 1])
    np.testing.assert_array_equal(series.past[7:, 0], [0, nan, 0.2, nan, nan, 0.4])
    np.testing.assert_array_equal(series.static, [[7], [5]])
    assert (series.season, str(series.frequency)) == (7, "1D")
    assert series.times(0, [0, 6])[1] == np.datetime64("2024-03-04")


def test_columns_of_dates_are_read_as_they_are():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    dates = [datetime.datetime(2024, 1, 1 + n) for n in (0, 1, 3)]
    columns = {"t": dates, "y": [1.0, 2.0, 3.0]}
    frames = [columns, pandas.DataFrame(columns), polars.DataFrame(columns)]
    frames.append(polars.DataFrame(columns).with_columns(polars.col("t").cast(polars.Date)))
    for frame in frames:
        series = Series.from_frame(frame, time="t", target="y")
        np.testing.assert_array_equal(series.values, [1, 2, np.nan, 3])
    nullable = pandas.DataFrame(columns).assign(y=pandas.array([1, None, 3], "Int64"))
    series = Series.from_frame(nullable, time="t", target="y")
    np.testing.assert_array_equal(series.values, [1, np.nan, np.nan, 3])


@pytest.mark.parametrize(
    ("times", "frequency", "season"),
    [
        (["2023-11-01", "2023-12-01", "2024-02-01"], "1M", 12),
        (["2023-11-30", "2023-12-31", "2024-02-29"], "1M", 12),
        (["2023-09-15", "2023-12-15", "2024-06-15"], "3M", 4),
        (["2021-01-01", "2022-01-01", "2024-01-01"], "12M", 1),
        (["2024-01-01", "2024-01-08", "2024-01-22"], "1W", 52),
        (["2024-01-01T00", "2024-01-01T01", "2024-01-01T03"], "1h", 24),
        (["2024-01-01T00:00", "2024-01-01T00:15", "2024-01-01T00:45"], "15min", 1),
        ([1990, 1991, 1993], "1", 1),
        ([0.0, 0.1, 0.30000000000000004], "0.1", 1),
    ],
)
def test_frequencies_are_found_and_times_left_out_are_gaps(times, frequency, season):
    series = Series([1.0, 2.0, 3.0], time=times)
    np.testing.assert_array_equal(series.values, [1, 2, np.nan, 3])
    assert (str(series.frequency), series.season) == (frequency, season)
    back = series.times(0, [0, 1, 3])
    assert np.array_equal(back, np.array(times, back.dtype)) or np.allclose(back, times)
    again = Series([1.0, 2.0, 3.0], time=times, frequency=series.frequency)
    assert again.digest == series.digest


def test_series_of_arrays_of_different_lengths_lie_behind_each_other():
    series = Series([[1, 2, 3], np.array([4.5]), [np.nan, 6]], season=2)
    assert len(series) == 3
    np.testing.assert_array_equal(series.offsets, [0, 3, 4, 6])
    np.testing.assert_array_equal(series[2], [np.nan, 6])
    np.testing.assert_array_equal(series[0], [1, 2, 3])
    assert Series([1.0, 2.0]).ids == (0,)


def test_known_covariates_may_reach_into_the_future():
    series = Series([1.0, 2.0], known=[1, 2, 3, 4], past=[5, 6])
    np.testing.assert_array_equal(series.values, [1, 2, np.nan, np.nan])
    assert series.lengths.tolist() == [2]
    assert series.known is not None and series.known.shape == (4, 1)
    assert newest(series).tolist() == [[0, 2]]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_windows_that_train_never_touch_times_that_validate_or_test(lengths, horizon, val, test):
    series = Series([np.arange(1.0, n + 1) for n in lengths])
    if max(lengths) < 1 + horizon * (1 + val + test):
        with pytest.raises(ValueError, match=r"series must have \d+ time steps or more to train"):
            series.split(horizon, val, test)
        return
    ends = series.split(horizon, val, test).ends
    assert all((part[:, 1] > 0).all() for part in ends.values())  # something to forecast from
    for n, length in enumerate(lengths):
        own = {name: part[part[:, 0] == n, 1] for name, part in ends.items()}
        times = {name: [set(range(e, e + horizon)) for e in part] for name, part in own.items()}
        held = set().union(*times["validation"], *times["test"])
        trained = set().union(*times["train"], *(range(e) for e in own["train"]))
        assert not held & trained
        assert held == set(range(min(held, default=length), length))  # the last ones, side by side
        assert sum(map(len, times["validation"] + times["test"])) == len(held)
        assert not set().union(*times["test"]) & set().union(*times["validation"])
        assert len(own["train"]) == max(0, length - horizon * (1 + val + test))
        if length > horizon * (val + test):
            assert (len(own["validation"]), len(own["test"])) == (val, test)


def frame(**changes):
    return {"id": ["a", "a", "b"], "t": [1, 2, 1], "y": [1.0, 2.0, 3.0]} | changes


def read(**changes):
    return Series.from_frame(frame(**changes), id="id", time="t", target="y")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: read(t=[2, 1, 1]),
            r"series 'a': 1.0 in row 1 comes after 2.0; sort the table by id and time$",
        ),
        (lambda: read(t=[1, 1, 1]), r"series 'a': 1.0 in row 1 is there twice$"),
        (lambda: Series([1.0, 2.0], time=[2, 1]), r"1.0 in row 1 comes after 2.0$"),
        (lambda: read(t=[1, np.inf, 1]), "time must be finite, got inf in row 1"),
        *[
            (
                lambda gap=gap, t=t: read(t=[t, gap, t]),
                "time must have no missing value, got one in",
            )
            for gap, t in (
                (np.nan, 1),
                (None, 1),
                (None, "2024-01-01"),
                (np.datetime64("NaT"), DAYS[0]),
            )
        ],
        (lambda: read(id=[], t=[], y=[]), "frame must have rows, got none"),
        (lambda: read(id=["a"]), "columns of frame must have the same length, got id 1, t 3, y 3"),
        (lambda: read(t=["2024-01-01", "soon", "2024-01-01"]), "time must be a date .* in row 1"),
        (lambda: read(id=["a", None, "b"]), "column 'id' must have no gap, got one in row 1"),
        (lambda: read(y=[1.0, 2.0, None]), "series 'b' must have a number, got NaN alone"),
        (
            lambda: read(y=[1.0, np.inf, 3.0]),
            "column 'y' must hold finite numbers, got inf in row 1",
        ),
        (
            lambda: Series.from_frame(frame(), target="z"),
            "frame has no column 'z', but id, t, y",
        ),
        (
            lambda: Series.from_frame(frame(), id="id", target="y", static=["t"]),
            "static column 't' must not change within series 'a', got 2.0 in row 1",
        ),
        (lambda: Series([]), "values of series 0 must have a number"),
        (lambda: Series(np.ones((4, 2))), r"must be \[T\], got shape \[4, 2\]"),
        (lambda: Series([[1.0], [2.0]], ids=["a", "a"]), "ids must name each of 2 series once"),
        (lambda: Series([1.0], season=0), "season must be an integer of at least 1, got 0"),
        (lambda: Series([1.0, 2.0], time=[1]), "time as long as values or known"),
        (lambda: Series([1.0, 2.0], past=[1.0]), "past as long as values"),
        (lambda: Series([[1.0], [2.0]], known=[[1.0]]), "known must have one array for each of 2"),
        (lambda: Series([[1.0], [2.0]], static=[1.0]), r"static must be \[2, n\]"),
        (lambda: Series([1.0, 2.0], time=[0, 1], frequency="x"), "frequency must be such as '15m"),
        (lambda: Series([1.0, 2.0], time=[0, 1], frequency="D"), "frequency must fit the times"),
        (
            lambda: Series([1.0, 2.0, 3.0], time=[0, 1, 2.5], frequency=1),
            "series 0 must lie on its grid of 1 from 0.0, got 2.5",
        ),
        (lambda: Series([1.0, 2.0], time=[0, 1e6], frequency=1), "must not be so sparse: 2 rows"),
        (
            lambda: Series([1.0, 2.0], time=["2024-01-01", "2024-01-20"], frequency="M"),
            "has 2024-01-01T00:00:00 and 2024-01-20T00:00:00 in one time step of 1M",
        ),
        (lambda: Series([1.0], time=[0]), "frequency must be given where no series has two times"),
        (lambda: Series([1.0, 2.0]).split(0), "horizon must be an integer of at least 1, got 0"),
        (lambda: Series([1.0, 2.0]).split(1, -1), "validation must be .* at least 0, got -1"),
    ],
)
def test_bad_series_are_refused_by_name_and_place(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: read(y=["many", "few", "none"]),
            "column 'y' must hold numbers, got 'many' in row 0",
        ),
        (lambda: Series.from_frame([1, 2], target="y"), "frame must be a table .* got list"),
        (lambda: Series(frame()), "values must be numbers; of a table take Series.from_frame"),
        (lambda: Series([1.0], time=[True]), "time must hold dates or numbers, got bool"),
        (
            lambda: Series.from_frame(frame(), target="y", known="t"),
            r"known must be a list of columns, such as \['t'\], got 't'",
        ),
    ],
)
def test_what_is_no_number_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_times_with_a_zone_are_refused():
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2024-01-01", periods=3, tz="Europe/Vienna")
    with pytest.raises(ValueError, match="time must have no time zone"):
        Series([1.0, 2.0, 3.0], time=times)

"""Forecast: forecasts in the units of the series, as quantiles, tables and counts; refusals."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.data import Series
from lstm_jax.tasks import heads
from lstm_jax.tasks.forecast import Forecast
from tests.tasks.short_series import (
    COUNTS,
    KNOWN,
    RNG,
    SIZES,
    VALUES,
    C,
    H,
    batch_of,
    counts,
    series_of,
    task_of,
)


def test_a_distribution_of_counts_has_the_level_of_its_window():
    stats = pytest.importorskip("scipy.stats")
    series = counts()
    task = task_of(series, COUNTS)
    batch, arrays = batch_of(task), task.rows("train")
    drawn = RNG.normal(size=(len(arrays["windows"]), task.output_size))
    outputs = jnp.asarray(drawn, jnp.float32)
    assert task.scale == "ratio"
    mean, a = np.moveaxis(np.logaddexp(0, outputs.reshape(-1, H, 2)) + heads.LEAST_SCALE, -1, 0)
    ends = arrays["windows"]
    level = np.array([series[n][max(0, end - C) : end].mean() for n, end in ends])
    assert (level == 0).any() and (level > 300).any()
    level = np.where(level > 0, level, arrays["unit"][ends[:, 0]])
    r, mean = 1 / a.astype(float), level[:, None] * mean
    scipy = stats.nbinom(r, r / (r + mean))
    y = np.stack([series[n][end : end + H] for n, end in ends])
    np.testing.assert_allclose(task.loss(outputs, batch), -scipy.logpmf(y).mean(), rtol=1e-4)
    np.testing.assert_allclose(task.point(outputs, arrays), mean, rtol=1e-4, atol=2e-4)
    exact = scipy.ppf(0.9)
    found = task.decode(outputs, arrays, levels=[0.9])[..., 0]
    close = np.abs(found - exact) <= 1e-3 * exact + 1e-6  # float32, or the count beside it
    assert close.mean() > 0.95 and np.abs(found - exact).max() <= 1 + 1e-3 * exact.max()
    moved = task.loss(outputs + 1, batch)
    assert np.isfinite(moved) and moved != task.loss(outputs, batch)


@pytest.mark.slow
def test_counts_are_forecast_with_their_own_spread(standard_promotion):
    """Poisson rates that gamma noise of shape 4 multiplies: variance m + m^2 / 4."""
    rates = np.random.default_rng(2).gamma(1, 8, 40)
    task = task_of(counts(rates, 40), COUNTS)
    result = lj.fit(
        task, lj.nn.SequenceSpec(lj.cells.LSTM(4)), steps=150, learning_rate=3e-2, batch_size=32,
        progress=False,
    )  # fmt: skip
    best = result.best(by="train")
    scores, outputs = best.evaluate(), best._outputs(task.rows("test"))[0]
    _, r = task.head.parameters(task.head.split(jnp.asarray(outputs)))  # pyright: ignore
    assert 0.7 < scores["coverage"] < 0.92  # of bands that should hold 0.8, counts a little more
    assert 2 < np.median(r) < 8 and scores["MASE"] < task.seasonal_naive("test")


@pytest.mark.parametrize("head", [heads.Gaussian(), heads.StudentT(), heads.Quantiles((0.1, 0.9))])
def test_a_forecast_is_quantiles_in_the_units_of_the_series(head):
    task = task_of(head=head)
    arrays = task.encode(series_of())
    outputs = jax.random.normal(jax.random.key(0), (3, task.output_size))
    levels = [0.1, 0.25, 0.9]
    forecast = task.decode(outputs, arrays, levels)
    assert forecast.shape == (3, H, 3)
    assert np.all(np.diff(forecast) >= 0) and np.all(forecast > 0)
    default = task.decode(outputs, arrays)
    np.testing.assert_allclose(default[..., [0, -1]], forecast[..., [0, -1]], rtol=1e-4)


@pytest.mark.parametrize("library", ["pandas", "polars", ""])
@pytest.mark.parametrize("head", [None, heads.Absolute()])
def test_a_table_of_forecasts_has_the_names_and_the_kind_of_the_table_of_series(head, library):
    days = np.datetime64("2024-01-30") + np.arange(20)
    columns = {
        "shop": np.repeat(["b", "a"], 20),
        "day": np.tile(days, 2).astype("datetime64[ms]"),
        "sold": np.exp(RNG.normal(size=40)),
    }
    frames = pytest.importorskip(library) if library else None
    frame = columns if frames is None else frames.DataFrame(columns)
    series = Series.from_frame(frame, id="shop", time="day", target="sold")
    task = task_of(series, head)
    ends = np.array([[1, 18], [0, 20]])
    values = RNG.normal(size=(2, H, 3) if head is None else (2, H)).astype(np.float32)
    table = task.table(values, series, ends=ends)
    assert type(table) is type(frame)
    found = {name: list(np.asarray(table[name])) for name in getattr(table, "columns", table)}
    names = ["prediction"] if head else ["q0.1", "q0.5", "q0.9"]
    assert list(found) == ["shop", "day", "ahead", *names]
    assert found["shop"] == ["a"] * H + ["b"] * H
    when = [days[17] + h for h in range(1, H + 1)] + [days[19] + h for h in range(1, H + 1)]
    assert [np.datetime64(day, "D") for day in found["day"]] == when
    assert found["ahead"] == [1, 2, 3] * 2
    np.testing.assert_array_equal(found[names[-1]], values.reshape(2 * H, -1)[:, -1])


def test_a_task_is_described_without_its_data_and_made_again():
    task = task_of()
    description, arrays = task.state()
    again = Forecast.restore(description, arrays)
    assert hash(task.static) == hash(again.static)
    assert task.static == again.static and task.static == task_of().static
    assert (again.chance, again.digest) == (task.chance, task.digest)
    assert not any(
        isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(dataclasses.asdict(task.static))
    )
    encoded = [t.encode(series_of()) for t in (task, again)]
    jax.tree.map(np.testing.assert_array_equal, *encoded)
    with pytest.raises(ValueError, match="a static task has no data"):
        task.static.arrays()


COLUMNS: dict[str, Any] = {
    "known": ["rain", "price"], "past": ["sick", "late"], "static": ["size", "age"]
}  # fmt: skip


def named(uses=COLUMNS, days=1, **times):
    rows = {name: np.arange(20.0) for names in COLUMNS.values() for name in names}
    rows |= dict.fromkeys(("size", "age", "area"), np.ones(20)) | {"wind": np.arange(20.0)}
    rows["y"] = VALUES[0][:20]
    times = times or {"day": np.datetime64("2024-01-31") + days * np.arange(20)}
    return Series.from_frame(rows | times, target="y", time=next(iter(times)), **uses)


def restored(task):
    description, arrays = task.state()
    return Forecast.restore(json.loads(json.dumps(description)), arrays)


@pytest.mark.parametrize("part", ["known", "past", "static"])
def test_covariates_of_other_names_are_refused(part):
    task = Forecast(named(), horizon=H, context=C)
    a, b = COLUMNS[part]
    ends = [(0, 9)]
    for known in (task, restored(task)):
        known.encode(named(), ends=ends)
        for names in ([b, a], [a, "area" if part == "static" else "wind"]):
            with pytest.raises(ValueError, match=f"{part} must be {a}, {b} in this order, got "):
                known.encode(named(COLUMNS | {part: names}), ends=ends)


def test_series_of_another_time_step_are_refused():
    months = np.datetime64("2024-01") + np.arange(20)
    others = {"1W": {"days": 7}, "1M": {"month": months.astype("M8[D]")}, "1": {"n": range(20)}}
    task = Forecast(named(), horizon=H, context=C)
    for known in (task, restored(task)):
        known.encode(named(), ends=[(0, 9)])
        known.encode(Series(VALUES[0], known=np.ones((33, 2)), past=np.ones((30, 2)),
                            static=np.ones((1, 2))))  # fmt: skip
        for step, times in others.items():
            with pytest.raises(ValueError, match=f"time step of training, 1D, got {step};"):
                known.encode(named(**times), ends=[(0, 9)])


def test_scales_and_contexts_have_defaults_that_fit():
    assert task_of().scale == "log_ratio"
    zeros = [np.where(np.arange(n) == 2, 0, v) for n, v in zip(SIZES, VALUES, strict=True)]
    assert task_of(series_of(zeros)).scale == "standard"
    assert Forecast(series_of(), horizon=H).form.context == 2 * H
    short = Series(np.arange(1.0, 9), season=4)
    assert [Forecast(short, horizon=2, patch=p).form.context for p in (1, 3, 5)] == [4, 3, 5]
    constant = task_of(Series(np.ones(20)))
    assert np.isfinite(constant.loss(jnp.ones((1, 9)), batch_of(constant, "test")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Forecast(Series(np.arange(9.0))), r"horizon must be given .* series.split\("),
        (
            lambda: Forecast(Series(np.arange(100.0)).split(H), context=500),
            "context must be at most 94, the longest part of a series that trains, got 500",
        ),
        (
            lambda: task_of().encode(series_of(), ends=[20, 20]),
            r"ends must be \[W, 2\], pairs of .*, got shape \[2\]",
        ),
        (
            lambda: task_of().encode(series_of(), ends=[[0, 20.5]]),
            r"ends must be integers \[W, 2\], got float64 \[1, 2\]",
        ),
        (
            lambda: task_of().encode(series_of(), ends=[[3, 20]]),
            "ends must name series 0 to 2, got 3",
        ),
        (lambda: Forecast(series_of().split(H), horizon=2), "horizon must be that of data, 3, got"),
        (
            lambda: Forecast(series_of().split(H), context=0),
            "context must be an integer of at leas",
        ),
        (lambda: task_of(patch=3), "context must be a multiple of patch 3, got 4"),
        (lambda: task_of(patch=0), "patch must be an integer of at least 1, got 0"),
        (lambda: task_of(Series(-np.arange(20.0)), scale="log_ratio"), "scale must be 'standard'"),
        (
            lambda: task_of(scale="log"),
            "scale must be one of log_ratio, ratio, standard, got 'log'",
        ),
        (lambda: task_of(Series(-np.arange(20.0)), scale="ratio"), "scale must be 'standard'"),
        (
            lambda: task_of(counts(), COUNTS, "log_ratio"),
            r"scale must be 'ratio' for NegativeBinomial\(\), got 'log_ratio'",
        ),
        (
            lambda: task_of(counts(), COUNTS, seasonal=True),
            r"seasonal must be False for NegativeBinomial\(\): differences are no counts",
        ),
        (
            lambda: task_of(Series([np.arange(20), [4, np.nan, 1.5]]), COUNTS),
            "values must be counts 0, 1, 2, ... for .*, got 1.5 in series 1 at step 2",
        ),
        (
            lambda: task_of(Series([1.0] + [np.nan] * 20 + [1.0])),
            "data must have a window to train on, got gaps",
        ),
        (lambda: task_of().encode(VALUES), "known must have 2 columns, as in training, got 0"),
        (lambda: task_of().encode(series_of(known=None)), "known must have 2 columns"),
        (
            lambda: task_of().encode(series_of(known=[k[:-1] for k in KNOWN])),
            "known of series 0 must reach 3 time steps beyond the window, got 2",
        ),
        (
            lambda: task_of().encode(series_of(), ends=[[1, 19]]),
            "ends must be 1 to the 18 time ste",
        ),
        (lambda: task_of(Series(VALUES)).encode([[-1.0, 2.0]]), "values must not be negative"),
        (
            lambda: task_of(Series(VALUES)).encode([[1.0, *[np.nan] * 9, 2.0]][0:1], ends=[[0, 8]]),
            "series 0 must have a number to forecast from, got none in 4 time steps",
        ),
    ],
)
def test_what_cannot_be_forecast_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_data_and_heads_are_refused():
    with pytest.raises(TypeError, match=r"data must be windows, .* got ndarray"):
        Forecast(np.ones(9))  # pyright: ignore
    point = task_of(head=heads.Absolute())
    with pytest.raises(TypeError, match="Absolute predicts no quantiles"):
        point.decode(jnp.zeros((1, point.output_size)), point.rows("train"), levels=[0.5])
    with pytest.raises(TypeError, match=r"head must be one of numbers, .* got CrossEntropy"):
        task_of(head=heads.CrossEntropy(2))

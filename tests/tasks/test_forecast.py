"""Forecast: windows are read where they lie, normalised and back, and nothing leaks."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax import metrics
from lstm_jax.data import Series
from lstm_jax.tasks import heads, windowing
from lstm_jax.tasks.forecast import Forecast

H, C = 3, 4
RNG = np.random.default_rng(0)
SIZES = (30, 18, 7)
VALUES = [np.exp(RNG.normal(size=n)).round(2) + 1 for n in SIZES]
KNOWN = [RNG.normal(size=(n + H, 2)) for n in SIZES]
PAST = [RNG.normal(size=(n, 1)) for n in SIZES]
STATIC = RNG.normal(size=(3, 1))


def series_of(values=VALUES, known=KNOWN, past=PAST):
    return Series(values, known=known, past=past, static=STATIC, season=2)


def gappy():
    values = [part.copy() for part in VALUES]
    values[0][[3, 10, 11, 12, 13, 20]] = np.nan
    return values


def task_of(series=None, head=None, scale=None, seasonal=False, patch=1):
    series = series_of() if series is None else series
    options: dict[str, Any] = dict(head=head, scale=scale, seasonal=seasonal, patch=patch)
    return Forecast(series.split(H), context=C, **options)


def batch_of(task, split="train", arrays=None):
    arrays = task.arrays() if arrays is None else arrays
    index = arrays["splits"][split] if "splits" in arrays else np.arange(len(arrays["windows"]))
    index = jnp.asarray(index, jnp.int32)
    return jax.jit(task.static.batch)(arrays, index, jnp.ones(len(index)))


def truth(task, batch):
    """Returns the outputs whose forecasts are the targets, [B, V]."""
    target = batch.y.value
    z = windowing.normalise(task.scale, target.value, target.window)
    return jnp.repeat(z, task.head.size, axis=1)


def test_a_window_is_read_where_it_lies():
    task = task_of(series_of(gappy()))
    spread = task.arrays()["fitted"]["spread"]
    for split in ("train", "validation", "test"):
        batch = batch_of(task, split)
        windows = task.arrays()["windows"][task.arrays()["splits"][split]]
        assert batch.x.shape == (C, len(windows), task.input_size)
        assert len(windows)
        for b, (n, end) in enumerate(windows):
            steps = np.arange(end - C, end)
            inside = steps >= 0
            np.testing.assert_array_equal(batch.mask[:, b], inside)
            read = gappy()[n][steps[inside]]
            level, there = np.nanmean(read), ~np.isnan(read)
            z, flags = np.asarray(batch.x[:, b, :2])[inside].T
            np.testing.assert_array_equal(flags, there)
            expected = np.where(there, np.log(read / level) / spread, 0)
            np.testing.assert_allclose(z, expected, atol=1e-6)
            target = gappy()[n][end : end + H]
            np.testing.assert_array_equal(batch.y.value.there[b], ~np.isnan(target))
            np.testing.assert_allclose(batch.y.value.value[b], np.nan_to_num(target), rtol=1e-6)


def test_covariates_stand_beside_the_values_and_known_ones_reach_ahead():
    task = task_of()
    batch, (windows, fitted) = batch_of(task), (task.arrays()[k] for k in ("windows", "fitted"))
    b = 12
    n, end = windows[b]
    scaled = {
        name: (np.asarray(part, float) - fitted[name].mean) / fitted[name].scale
        for name, part in {"known": KNOWN[n], "past": PAST[n], "static": STATIC[n]}.items()
    }
    x = np.asarray(batch.x[:, b])
    assert end >= C
    np.testing.assert_allclose(x[:, 2:4], scaled["known"][end - C : end], atol=1e-5)
    np.testing.assert_allclose(x[:, 4:5], scaled["past"][end - C : end], atol=1e-5)
    ahead = np.tile(scaled["known"][end : end + H].reshape(-1), (C, 1))
    np.testing.assert_allclose(x[:, 5:11], ahead, atol=1e-5)
    np.testing.assert_allclose(x[:, 11:], np.tile(scaled["static"], (C, 1)), atol=1e-5)


def test_a_patch_holds_the_time_steps_of_a_window_side_by_side():
    task, single = task_of(series_of(gappy()), patch=2), task_of(series_of(gappy()))
    batch, each = batch_of(task), batch_of(single)
    assert batch.x.shape == (task.length, len(batch.y.weight), task.input_size) == (2, 27, 17)
    own, fixed = np.split(np.asarray(each.x), [5], axis=-1)  # 5 numbers differ between time steps
    pairs = np.concatenate([own[::2], own[1::2], fixed[1::2]], axis=-1)
    np.testing.assert_array_equal(batch.x, pairs)
    np.testing.assert_array_equal(batch.mask, each.mask[::2] | each.mask[1::2])


@pytest.mark.parametrize("scale", ["log_ratio", "standard"])
@pytest.mark.parametrize("head", [heads.Absolute(), heads.Quantiles((0.2, 0.5, 0.8))])
@pytest.mark.parametrize("seasonal", [False, True])
def test_perfect_outputs_cost_nothing_and_decode_to_the_targets(scale, head, seasonal):
    task = task_of(head=head, scale=scale, seasonal=seasonal)
    batch = batch_of(task, "test")
    outputs = truth(task, batch)
    assert task.loss(outputs, batch) == pytest.approx(0, abs=1e-5)
    assert task.metric(outputs, batch) == pytest.approx(0, abs=1e-5)
    assert task.correct(outputs, batch).tolist() == [1, 1, 1]
    arrays = task.encode(series_of().split(H))  # those that test
    expected = np.stack([values[-H:] for values in VALUES])
    np.testing.assert_allclose(task.point(outputs, arrays), expected, rtol=1e-5)
    forecast = task.decode(outputs, arrays)
    levels = forecast if head.size > 1 else forecast[..., None]
    np.testing.assert_allclose(levels, np.repeat(expected[..., None], head.size, 2), rtol=1e-5)


def test_the_loss_and_the_metric_are_scaled_errors():
    task = task_of(head=heads.Absolute())
    batch = batch_of(task, "test")
    outputs = jnp.zeros((3, task.output_size))  # a forecast of each window's mean
    history = [values[: len(values) - 2 * H] for values in VALUES]
    means = [np.mean(values[-H - C : -H]) for values in VALUES]
    targets = [values[-H:] for values in VALUES]
    expected = metrics.mase(targets, np.repeat(means, H).reshape(3, H), [*history[:2], [0, 1]], 2)
    each = [task.metric(outputs, only(batch, n)) for n in range(3)]
    np.testing.assert_allclose(each[:2], expected[:2], rtol=1e-5)
    assert task.metric(outputs, batch) == pytest.approx(np.mean(each), rel=1e-5)
    assert task.loss(outputs, batch) == pytest.approx(np.mean(each), rel=1e-5)


def only(batch, n):
    weight = jnp.zeros_like(batch.y.weight).at[n].set(1)
    return batch._replace(y=batch.y._replace(weight=weight))


def test_the_median_alone_costs_what_its_absolute_error_does():
    batch = batch_of(task_of(), "train")
    outputs = jax.random.normal(jax.random.key(0), (batch.x.shape[1], H))
    losses = [
        task_of(head=head).loss(outputs, batch)
        for head in (heads.Absolute(), heads.Quantiles((0.5,)))
    ]
    assert losses[0] == losses[1]


def test_chance_is_the_error_of_the_seasonal_naive_forecast():
    task = task_of()
    history = [values[: len(values) - 2 * H] for values in VALUES[:2]]
    targets = [values[-2 * H : -H] for values in VALUES[:2]]
    naive = [np.tile(values[-2:], 2)[:H] for values in history]
    expected = metrics.mase(targets, naive, history, 2)
    two = Forecast(Series(VALUES[:2], season=2).split(H), context=C)
    assert two.chance == pytest.approx(expected.mean(), rel=1e-5)
    assert two.chance == two.seasonal_naive("validation")
    latest = [values[-H:] for values in VALUES[:2]]
    naive = [np.tile(values[-H - 2 : -H], 2)[:H] for values in VALUES[:2]]
    expected = metrics.mase(latest, naive, history, 2)
    assert two.seasonal_naive("test") == pytest.approx(expected.mean(), rel=1e-5)
    assert task.static.form == task.form


@pytest.mark.parametrize("scale", ["log_ratio", "standard"])
def test_seasonal_outputs_of_zero_are_the_seasonal_naive_forecast(scale):
    task = Forecast(Series(VALUES[:2], season=2).split(H), context=C, scale=scale, seasonal=True)
    zeros = jnp.zeros((2, task.output_size))
    assert task.metric(zeros, batch_of(task, "validation")) == pytest.approx(task.chance, rel=1e-5)
    forecast = task.point(zeros[:1], task.encode([np.arange(1.0, 9)]))
    np.testing.assert_allclose(forecast, [[7, 8, 7]], rtol=1e-6)


def test_a_log_ratio_bears_zeros_and_windows_of_nothing_else():
    values = [part.copy() for part in VALUES]
    values[0][-3 * H :] = 0
    values[1][2] = 0
    task = task_of(series_of(values), scale="log_ratio")
    batch = batch_of(task, "test")
    assert np.isfinite(batch.x).all()
    assert np.isfinite(task.loss(jnp.zeros((3, task.output_size)), batch))


@pytest.mark.parametrize("scale", ["log_ratio", "standard"])
def test_the_unit_of_a_series_does_not_matter(scale):
    one, other = task_of(scale=scale), task_of(series_of([v * 1000 for v in VALUES]), scale=scale)
    batches = batch_of(one), batch_of(other)
    np.testing.assert_allclose(batches[0].x, batches[1].x, atol=1e-5)
    outputs = jax.random.normal(jax.random.key(0), (len(batches[0].y.weight), one.output_size))
    a, b = (task.loss(outputs, batch) for task, batch in zip((one, other), batches, strict=True))
    assert a == pytest.approx(float(b), rel=1e-4)
    newest = [
        task.encode(s)
        for task, s in ((one, series_of()), (other, series_of([v * 1000 for v in VALUES])))
    ]
    small, large = (
        task.decode(outputs[:3], arrays) for task, arrays in zip((one, other), newest, strict=True)
    )
    np.testing.assert_allclose(large, 1000 * small, rtol=1e-4)


def test_what_comes_after_the_context_does_not_enter():
    task, late = task_of(), 20
    values, past = [[part.copy() for part in parts] for parts in (VALUES, PAST)]
    values[0][late:] = 9.0
    past[0][late:] = 9.0
    ends = np.array([[0, late]])
    x = [
        batch_of(task, arrays=task.encode(s, ends=ends)).x
        for s in (series_of(), series_of(values, past=past))
    ]
    np.testing.assert_array_equal(*x)


def test_nothing_that_is_fitted_or_trained_on_knows_what_validates_or_tests():
    changed = [[part.copy() for part in parts] for parts in (VALUES, KNOWN, PAST)]
    for values, known, past in zip(*changed, strict=True):
        values[-2 * H :] = 77.0
        known[-3 * H :] = 77.0
        past[-2 * H :] = 77.0
    one, other = task_of(), task_of(series_of(*changed))
    assert one.digest != other.digest
    jax.tree.map(np.testing.assert_array_equal, one.arrays()["fitted"], other.arrays()["fitted"])
    np.testing.assert_array_equal(one.arrays()["unit"][:2], other.arrays()["unit"][:2])
    x = [batch_of(task) for task in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *x)


def counts(rates=(0.02, 3.0, 500.0), steps=30):
    """Series of counts, of which the first has windows of zeros alone."""
    rng = np.random.default_rng(1)
    return Series([rng.poisson(rate * rng.gamma(4, 1 / 4, steps)) for rate in rates], season=2)


COUNTS = heads.NegativeBinomial()


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


@pytest.mark.parametrize("head", [heads.Quantiles(), heads.Gaussian(), heads.StudentT()])
def test_missing_targets_change_no_loss_and_no_gradient(head):
    task = task_of(series_of(gappy()), head=head)
    batch = batch_of(task)
    target = batch.y.value
    assert not bool(target.there.all())
    value = jnp.where(target.there, target.value, 1e30)
    hidden = batch._replace(y=batch.y._replace(value=target._replace(value=value)))
    outputs = jax.random.normal(jax.random.key(0), (len(value), task.output_size))
    step = jax.jit(jax.value_and_grad(task.loss))
    (loss, gradient), (other, same) = step(outputs, batch), step(outputs, hidden)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert loss == other
    np.testing.assert_array_equal(gradient, same)


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
    rows |= {"wind": np.arange(20.0), "size": np.ones(20), "age": np.ones(20), "y": VALUES[0][:20]}
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
        for names in ([b, a], [a, "size" if part == "static" else "wind"]):
            names = [b, b] if names == [a, a] else names
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


def test_targets_that_train_have_mean_magnitude_one():
    task = task_of(series_of(gappy()))
    target = batch_of(task).y.value
    z = jnp.abs(windowing.normalise(task.scale, target.value, target.window))
    assert jnp.mean(z, where=target.there) == pytest.approx(1, rel=1e-5)


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

"""Forecast: windows are read where they lie, normalised and back, and nothing leaks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import metrics
from lstm_jax.data import Series
from lstm_jax.tasks import heads, windowing
from lstm_jax.tasks.forecast import Forecast
from tests.products import mostly_slow
from tests.tasks.short_series import (
    KNOWN,
    PAST,
    POINT,
    STATIC,
    THREE,
    VALUES,
    C,
    H,
    batch_of,
    gappy,
    series_of,
    task_of,
)


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


@pytest.mark.parametrize(
    ("scale", "head", "seasonal"),
    mostly_slow(
        itertools.product(["log_ratio", "standard"], (POINT, THREE), [False, True]),
        [("log_ratio", THREE, False), ("standard", POINT, True), ("log_ratio", POINT, True)],
    ),
)
def test_perfect_outputs_cost_nothing_and_decode_to_the_targets(scale, head, seasonal):
    task = task_of(head=head, scale=scale, seasonal=seasonal)
    batch = batch_of(task, "test")
    outputs = truth(task, batch)
    assert task.loss(outputs, batch) == pytest.approx(0, abs=1e-5)
    assert task.metric(outputs, batch) == pytest.approx(0, abs=1e-5)
    assert task.correct(outputs, batch).tolist() == [1, 1, 0]  # one value trains: no naive error
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
    each = [task.loss(outputs, only(batch, n)) for n in range(3)]
    np.testing.assert_allclose(each[:2], expected[:2], rtol=1e-5)
    assert task.metric(outputs, batch) == pytest.approx(np.mean(expected[:2]), rel=1e-5)
    assert task.loss(outputs, batch) == pytest.approx(np.mean(each), rel=1e-5)


def test_a_series_that_is_constant_in_training_has_no_mase():
    """A mean over windows is that over the others; without others it is nan."""
    flat = np.full(30, 7.0)
    flat[-H:] = [8, 9, 10]  # it changes in the test alone
    one, two, none = (
        Forecast(Series(values, season=2).split(H, 1, 2), context=C, scale="standard")
        for values in (VALUES[:1], [flat, VALUES[0], flat], [flat, flat])
    )
    assert two.seasonal_naive() == one.seasonal_naive() and two.chance == one.chance
    found = []
    for task in (one, two, none):
        batch = batch_of(task, "test")
        outputs = jnp.ones((1, batch.x.shape[1], task.output_size))
        metric = float(task.metric(outputs[0], batch))
        assert np.isfinite(task.loss(outputs[0], batch))
        found.append((metric, task.scores(np.asarray(outputs), task.rows("test"))["MASE"]))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][0] == pytest.approx(found[0][1], rel=1e-5)
    assert np.isnan(found[2]).all() and np.isnan([none.chance, none.seasonal_naive()]).all()


def test_windows_are_scored_in_the_unit_of_their_training_part_and_of_the_season_in_training():
    task, series = task_of(), series_of()
    own, given = task.rows("test"), task.encode(series.split(H))
    for name in ("unit", "scored", "windows"):
        np.testing.assert_array_equal(own[name], given[name])
    plain = Series(VALUES, known=KNOWN, past=PAST, static=STATIC)  # without a season
    np.testing.assert_array_equal(task.encode(series)["unit"], task.encode(plain)["unit"])


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


def test_targets_that_train_have_mean_magnitude_one():
    task = task_of(series_of(gappy()))
    target = batch_of(task).y.value
    z = jnp.abs(windowing.normalise(task.scale, target.value, target.window))
    assert jnp.mean(z, where=target.there) == pytest.approx(1, rel=1e-5)

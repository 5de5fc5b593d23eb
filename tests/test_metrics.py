"""Metrics: equal to scikit-learn's where it has them, to their definitions elsewhere."""

import numpy as np
import pytest

from lstm_jax import metrics

RNG = np.random.default_rng(0)
LABELS, GUESSES = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
SCORES = np.round(RNG.normal(size=(200, 4)), 1)  # with ties
Y, PREDICTED = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 3))


def test_metrics_of_classes_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.metrics")
    assert metrics.accuracy(LABELS, GUESSES) == theirs.accuracy_score(LABELS, GUESSES)
    few = np.minimum(GUESSES, 1)  # two classes are never predicted
    for guesses in (GUESSES, few):
        expected = theirs.f1_score(LABELS, guesses, average="macro")
        assert metrics.macro_f1(LABELS, guesses) == pytest.approx(expected, rel=1e-12)
    p = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
    expected = theirs.roc_auc_score(LABELS, p, multi_class="ovr")
    assert metrics.auc(LABELS, p) == pytest.approx(expected, rel=1e-12)
    binary = LABELS % 2
    expected = theirs.roc_auc_score(binary, SCORES[:, 0])
    assert metrics.auc(binary, SCORES[:, 0]) == pytest.approx(expected, rel=1e-12)


def test_metrics_of_numbers_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.metrics")
    for y, guess in ((Y, PREDICTED), (Y[:, 0], PREDICTED[:, 0])):
        assert metrics.r2(y, guess) == pytest.approx(theirs.r2_score(y, guess), rel=1e-12)
        expected = theirs.mean_absolute_error(y, guess)
        assert metrics.mae(y, guess) == pytest.approx(expected, rel=1e-12)
        expected = theirs.root_mean_squared_error(y, guess)
        flat = theirs.root_mean_squared_error(y.ravel(), guess.ravel())
        assert metrics.rmse(y, guess) == pytest.approx(flat if y.ndim > 1 else expected, rel=1e-12)
    levels = (0.1, 0.5, 0.9)
    each = [
        theirs.mean_pinball_loss(Y[:, 0], PREDICTED[:, n], alpha=level)
        for n, level in enumerate(levels)
    ]
    expected = pytest.approx(np.mean(each), rel=1e-12)
    assert metrics.pinball(Y[:, 0], PREDICTED, levels) == expected


def test_the_crps_of_a_gaussian_is_its_closed_form():
    stats = pytest.importorskip("scipy.stats")
    y = np.array([-1.0, 0.3, 2.0])
    exact = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    levels = (np.arange(1000) + 0.5) / 1000
    quantiles = np.tile(stats.norm.ppf(levels), (3, 1))
    ours = 2 * metrics.pinball(y, quantiles, levels.tolist())
    assert ours == pytest.approx(exact.mean(), rel=1e-3)
    few = np.random.default_rng(1).normal(size=(20_000, 3, 4)).swapaxes(1, 2)  # unbiased by S = 4
    targets = np.tile(y, (20_000, 1))
    drawn = np.moveaxis(few, 1, -1)
    assert metrics.crps(targets, drawn) == pytest.approx(exact.mean(), abs=0.01)


def test_mase_scales_by_the_seasonal_naive_error_of_the_history():
    history = [np.array([1.0, 5.0, 2.0, 8.0]), np.array([3.0, np.nan, 4.0, 4.0, 8.0])]
    targets, forecasts = [[4.0, 6.0], [np.nan, 5.0]], [[3.0, 9.0], [1.0, 7.0]]
    np.testing.assert_allclose(metrics.mase(targets, forecasts, history, 2), [2 / 2, 2 / 2.5])
    np.testing.assert_allclose(metrics.mase(targets, forecasts, history), [2 / (13 / 3), 2 / 2])
    assert np.isinf(metrics.mase([[1.0]], [[2.0]], [np.ones(4)])[0])
    assert np.isnan(metrics.mase([[1.0]], [[2.0]], [np.ones(1)])[0])


def test_coverage_counts_ends_and_bits_are_nats_by_log_two():
    assert metrics.coverage([1.0, 2.0, 3.0, 4.0], [1.0] * 4, [3.0] * 4) == 0.75
    assert metrics.bits_per_character(np.log([2.0, 8.0])) == pytest.approx(2)
    assert metrics.accuracy(["a", "b"], ["a", "c"]) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy([1, 2], [[1], [2]]), r"predictions .* \[2\], .* got \[2, 1\]"),
        (lambda: metrics.mae([], []), "not be empty"),
        (
            lambda: metrics.mae([1.0, 2.0], [1.0, np.nan]),
            r"predictions must be finite, .* at \[1\]",
        ),
        (lambda: metrics.rmse([np.inf], [1.0]), r"targets must be finite, got inf at \[0\]"),
        (lambda: metrics.r2([1.0, 1.0], [1.0, 2.0]), "targets must differ"),
        (lambda: metrics.auc([1, 1], [0.1, 0.2]), "rows of class 1 and of others"),
        (lambda: metrics.auc([0, 1], [[0.1]]), r"scores \[N\] or"),
        (
            lambda: metrics.pinball([1.0], [[1.0]], [0.1, 0.9]),
            r"quantiles must have shape \[1, 2\]",
        ),
        (lambda: metrics.crps([1.0], [[1.0]]), "at least 2 draws"),
        (lambda: metrics.coverage([1.0], [0.0], [1.0, 2.0]), "upper must have the shape"),
        (lambda: metrics.mase([1.0], [1.0], [[1.0, 2.0]]), r"targets must be \[series, horizon\]"),
        (lambda: metrics.naive_error([1.0, 2.0], 0), "season at least 1"),
    ],
)
def test_bad_shapes_and_numbers_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()

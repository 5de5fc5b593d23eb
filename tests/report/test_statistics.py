"""Comparisons of samples against scipy's, and rules against what they say."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lstm_jax.report import statistics
from lstm_jax.report.statistics import Estimate


def samples(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 12, 3)
    return [rng.normal(rng.normal(), rng.uniform(0.1, 3), n).tolist() for n in sizes]


@pytest.mark.parametrize("seed", range(5))
def test_welch_is_scipys(seed):
    one, other, _ = samples(seed)
    got = statistics.welch("a", one, other)
    expected: Any = stats.ttest_ind(one, other, equal_var=False)
    np.testing.assert_allclose(
        (got.t, got.p, got.freedom), (expected.statistic, expected.pvalue, expected.df), rtol=1e-10
    )
    low, high = expected.confidence_interval(0.95)
    np.testing.assert_allclose(got.difference[1:], (low, high), rtol=1e-10)
    assert got.difference.value == np.mean(one) - np.mean(other)


def test_samples_without_spread_are_equal_or_not():
    assert statistics.welch("a", [1, 1, 1], [1, 1]).p == 1.0
    apart = statistics.welch("a", [1, 1, 1], [2, 2])
    assert (apart.p, apart.t, apart.difference) == (0.0, -math.inf, Estimate(-1, -1, -1))
    with pytest.raises(ValueError, match="a: 1 and 2 values, a test needs two"):
        statistics.welch("a", [1], [1, 2])


def test_holm_is_its_definition():
    # Holm 1979: p_(1) m, p_(2) (m - 1), ..., never falling, 1 at most
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.5]) == [1.0, 1.0]
    assert statistics.holm([0.3]) == [0.3] and statistics.holm([]) == []
    with pytest.raises(ValueError, match=r"p=\[1.2\]"):
        statistics.holm([1.2])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_steps_reject(seed):
    """Compare the smallest with level/m, the next with level/(m - 1), until one fails."""
    rng = np.random.default_rng(seed)
    p = (rng.random(8) ** 4).tolist()
    for level in (0.01, 0.05, 0.2):
        order, rejected = np.argsort(p), set()
        for left, place in zip(range(8, 0, -1), order, strict=True):
            if p[place] > level / left:
                break
            rejected.add(int(place))
        corrected = statistics.holm(p)
        assert {i for i in range(8) if corrected[i] <= level} == rejected


def test_every_sample_is_compared_with_the_baseline_and_corrected():
    one, other, third = samples(0)
    tests = statistics.against({"a": one, "base": other, "b": third}, "base")
    assert [test.name for test in tests] == ["a", "b"]
    ttest: Any = stats.ttest_ind
    p = [ttest(s, other, equal_var=False).pvalue for s in (one, third)]
    np.testing.assert_allclose([test.p for test in tests], p, rtol=1e-10)
    assert [test.corrected for test in tests] == statistics.holm([test.p for test in tests])
    with pytest.raises(ValueError, match=r"baseline='c' is none of \['a'\]"):
        statistics.against({"a": one}, "c")


def test_marks_are_by_the_corrected_p():
    test = statistics.welch("a", [0.0, 1.0], [0.0, 1.0])._replace(p=0.0)
    marks = [test._replace(corrected=p).mark for p in (0.06, 0.05, 0.049, 0.009, 0.0009)]
    assert marks == ["n.s.", "n.s.", "*", "**", "***"]


def test_the_best_tenth():
    values = list(np.random.default_rng(0).permutation(200) / 10)
    assert statistics.best_share(values) == [i / 10 for i in range(20)]
    counts = [len(statistics.best_share([0.0] * n)) for n in (1, 10, 24, 30)]
    assert counts == [1, 1, 3, 3]
    assert len(statistics.best_share([0.0] * 100, 0.07)) == 7
    with pytest.raises(ValueError, match="share=0"):
        statistics.best_share(values, 0)
    with pytest.raises(ValueError, match="2 values"):
        statistics.best_share([1.0, math.nan])


def test_diverged_trials_count_as_the_worst_of_the_others():
    loss = [0.5, None, 0.2, math.inf, 0.9, math.nan, 0.2]
    assert statistics.impute(loss).tolist() == [0.5, 0.9, 0.2, 0.9, 0.9, 0.9, 0.2]
    with pytest.raises(ValueError, match="none of 2 responses"):
        statistics.impute([None, math.nan])


def test_an_interval_is_of_the_finite_values_and_nan_for_too_few():
    assert statistics.interval([1.0, None, 2.0, math.inf]) == statistics.t_interval([1.0, 2.0])
    assert statistics.interval([0.9, 1.0], (0, 1)).high == 1
    one, none = statistics.interval([3.0, None]), statistics.interval([])
    assert one.value == 3 and math.isnan(one.low) and math.isnan(one.high)
    assert all(map(math.isnan, none))


def test_an_estimate_is_told_with_its_interval_if_it_has_one():
    assert str(Estimate(1.5, 1.0, 2.0)) == "1.500 [1.000, 2.000]"
    assert str(Estimate(1.5, math.nan, math.nan)) == "1.500"

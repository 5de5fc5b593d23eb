"""Statistics against their definitions; tables, figures and pages as their readers see them."""

import csv
import io
from html.parser import HTMLParser
from typing import cast

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from matplotlib.container import ErrorbarContainer
from scipy import special, stats

from lstm_jax.report import figures, html, statistics, tables
from lstm_jax.report.statistics import Estimate, Median, Share

counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@hypothesis.given(counts)
def test_wilson_bounds_solve_the_score_equation(case):
    count, total = case
    share = statistics.wilson(count, total)
    z = special.ndtri(0.975)
    for bound in (share.low, share.high):
        score = (share.value - bound) ** 2 - z**2 * bound * (1 - bound) / total
        assert abs(score) < 1e-12
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_wilson_of_ten_in_ten_is_the_published_interval():
    share = statistics.wilson(10, 10)
    assert (round(share.low, 4), share.high) == (0.7225, 1.0)


@pytest.mark.parametrize("count, total", [(3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses_impossible_counts(count, total):
    with pytest.raises(ValueError, match=f"count={count} of total={total}"):
        statistics.wilson(count, total)


def test_t_interval_is_students():
    values = np.random.default_rng(0).normal(3.0, 2.0, 10)
    got = statistics.t_interval(values.tolist())
    low, high = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(got, (values.mean(), low, high), rtol=1e-12)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="1 values"):
        statistics.t_interval([0.5])


@hypothesis.given(st.lists(st.one_of(st.just(-1), st.integers(0, 1000)), min_size=1, max_size=20))
def test_by_the_median_step_half_had_succeeded_and_not_before(solved_at):
    median = statistics.median_steps(solved_at)
    assert median.censored == solved_at.count(-1)

    def succeeded(step):
        return sum(0 <= s <= step for s in solved_at)

    if median.value is None:
        assert 2 * succeeded(1000) < len(solved_at)
    else:
        assert 2 * succeeded(median.value) >= len(solved_at) > 2 * succeeded(median.value - 1)


def test_no_trials_have_no_median():
    with pytest.raises(ValueError, match="no trials"):
        statistics.median_steps([])


def test_chance_is_three_standard_errors_and_solved_is_95_percent():
    # 2,000 sequences at p = 1/8: three standard errors are 44.37 sequences around 250
    assert [statistics.is_chance(c, 2000, 0.125) for c in (205, 206, 294, 295)] == [0, 1, 1, 0]
    assert [statistics.is_solved(c, 2000) for c in (1899, 1900)] == [False, True]


ROWS = [
    {"model": "a", "share": Share(1, 4, 0.1, 0.6), "steps": Median(None, 3), "rate": 1e-3},
    {"model": "long", "share": Share(4, 4, 0.5, 1.0), "steps": Median(120, 0), "rate": None},
]


def test_text_aligns_columns():
    lines = tables.text(ROWS).splitlines()
    assert lines[0].split() == ["model", "share", "steps", "rate"]
    assert lines[2] == "a      1/4 [0.10, 0.60]  - (3 censored)  0.001"
    assert lines[3] == "long   4/4 [0.50, 1.00]             120      -"


def test_csv_keeps_every_digit_and_spreads_statistics():
    exact = [{"estimate": Estimate(1 / 3, 0.1, 0.7), "steps": Median(None, 3)}]
    (row,) = csv.DictReader(io.StringIO(tables.csv(exact)))
    assert float(row["estimate_value"]) == 1 / 3
    assert list(row) == [
        "estimate_value", "estimate_low", "estimate_high", "steps_value", "steps_censored",
    ]  # fmt: skip
    assert row["steps_value"] == ""


def draw():
    with figures.look():
        figure, axes = figures.canvas(1, 2)
        looks = figures.styles(["a", "b"])
        for name, style in looks.items():
            estimates = [Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.9)]
            figures.points(axes[0, 0], [1, 2], estimates, style, name)
            figures.band(axes[0, 1], [1, 2], estimates, style, name)
        figures.level(axes[0, 0], 0.125, "chance")
        figures.legend(figure, axes[0, 0])
    return figure


def test_a_figure_gives_the_same_png_twice():
    first = figures.png(draw())
    assert first.startswith(b"\x89PNG") and first == figures.png(draw())


def test_intervals_are_drawn_where_they_are():
    axes = draw().axes
    (bars,) = cast(ErrorbarContainer, axes[0].containers[0]).lines[2]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [(0.4, 0.6), (0.6, 0.9)])
    band = np.asarray(axes[1].collections[0].get_paths()[0].vertices)
    assert {tuple(v) for v in band.tolist()} >= {(1, 0.4), (1, 0.6), (2, 0.6), (2, 0.9)}


def test_series_differ_in_colour_and_marker_and_dash():
    looks = figures.styles([str(i) for i in range(7)]).values()
    for part in ("color", "marker", "linestyle"):
        assert len({str(look[part]) for look in looks}) == 7
    with pytest.raises(ValueError, match="8 series"):
        figures.styles([str(i) for i in range(8)])


class Outside(HTMLParser):
    """Collects whatever a page would fetch, and checks that its elements close in order."""

    void = {"meta", "img"}

    def __init__(self):
        super().__init__()
        self.fetched, self.open, self.seen = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        links = [value or "" for name, value in attrs if name in ("src", "href")]
        self.fetched += [link for link in links if not link.startswith("data:")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_fetches_nothing():
    picture = html.picture(figures.png(draw()), 'a < b & "c"')
    settings = html.listing("config", {"flag": "</pre><script>"})
    page = html.page("Title <1>", html.prose("one\n\ntwo"), html.table(ROWS), picture, settings)
    reader = Outside()
    reader.feed(page)
    assert reader.fetched == [] and reader.open == [] and "script" not in reader.seen
    assert reader.seen.count("p") == 2 and reader.seen.count("tr") == 3
    assert "url(" not in page and "@import" not in page

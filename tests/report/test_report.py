"""Statistics against their definitions; tables, figures and pages as their readers see them."""

import csv
import io
from html.parser import HTMLParser
from typing import cast

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from scipy import special, stats

from lstm_jax.report import figures, html, ledger, statistics, tables
from lstm_jax.report.statistics import Estimate, Median, Share


def test_wilson_bounds_solve_the_score_equation():
    z = special.ndtri(0.975)
    for total in (1, 2, 3, 10, 57, 2000):
        for count in {0, 1, total // 3, total // 2, total - 1, total}:
            share = statistics.wilson(count, total)
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
    cut = statistics.t_interval(values.tolist(), within=(low + 0.1, 100))
    np.testing.assert_allclose(cut, (values.mean(), low + 0.1, high), rtol=1e-12)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="1 values"):
        statistics.t_interval([0.5])


def test_by_the_median_step_half_had_succeeded_and_not_before():
    rng = np.random.default_rng(0)
    for trials in [*range(1, 12)] * 20:
        steps = np.where(rng.random(trials) < rng.random(), -1, rng.integers(0, 9, trials))
        median = statistics.median_steps(steps.tolist())
        assert median.censored == np.sum(steps == -1)
        step = np.inf if median.value is None else median.value
        before, by = (np.sum((steps >= 0) & (steps <= s)) for s in (step - 1, step))
        assert 2 * by < trials if median.value is None else 2 * by >= trials > 2 * before


def test_no_trials_have_no_median():
    with pytest.raises(ValueError, match="no trials"):
        statistics.median_steps([])


def test_chance_is_three_standard_errors_and_solved_is_95_percent():
    # 2,000 sequences at p = 1/8: three standard errors are 44.37 sequences around 250
    assert [statistics.is_chance(c, 2000, 0.125) for c in (205, 206, 294, 295)] == [0, 1, 1, 0]
    assert [statistics.is_solved(c, 2000) for c in (1899, 1900)] == [False, True]


def line(kind: str, trial: int, step: int, value: float | None) -> dict:
    return {"kind": kind, "group": "g", "trial": trial, "step": step, "value": value}


LEDGER = [
    line("progress", 0, 10, 0.1),
    line("progress", 1, 10, 0.3),
    line("progress", 2, 10, 0.2),
    line("progress", 0, 20, 0.5),
    line("result", 0, 30, 0.9),
    line("result", 1, 15, 1.0),  # done between two progress records
    line("result", 2, 12, None),  # diverged
    {"kind": "finished", "group": "g", "trials": 3},
]


def test_a_curve_is_the_mean_of_all_trials_at_every_step():
    steps, estimates = ledger.curve(LEDGER, "value")
    assert steps == [10, 20, 30]
    expected = [[0.1, 0.3, 0.2], [0.5, 1.0], [0.9, 1.0]]
    assert estimates == [statistics.t_interval(values) for values in expected]
    _, bounded = ledger.curve(LEDGER, "value", within=(0, 1))
    assert max(e.high for e in estimates) > 1 == max(e.high for e in bounded)


def test_first_steps_are_those_on_record_or_the_last():
    assert ledger.first_steps(LEDGER, "value", 0.5) == [20, 15, 12]
    assert ledger.first_steps(LEDGER, "value", 0.2) == [20, 10, 10]


def test_a_group_has_its_own_records():
    other = [{**record, "group": "h"} for record in LEDGER]
    assert ledger.group([*other, *LEDGER], "g") == LEDGER
    assert [r["trial"] for r in ledger.results(LEDGER)] == [0, 1, 2]


ROWS = [
    {"model": "a", "share": Share(1, 4, 0.1, 0.6), "steps": Median(None, 3), "rate": 1e-3},
    {"model": "long", "share": Share(4, 4, 0.5, 1.0), "steps": Median(120, 0), "rate": None},
]


def test_text_aligns_columns():
    lines = tables.text(ROWS).splitlines()
    assert lines[0].split() == ["model", "share", "steps", "rate"]
    assert lines[2] == "a      1/4 [0.10, 0.60]  - (3 censored)  0.001"
    assert lines[3] == "long   4/4 [0.50, 1.00]             120      -"


CLAIM = {
    "claim": "Successive halving finds a loss at most 1.1 times that of random search with 4 times",
    "ours": "1.00 times, medians of 10 repeats (at most 1.1 times in 9 of them), 0.0000074",
    "published": "- (Li et al. 2018, figure 3, for other tasks and networks than ours)",
    "steps_to_success": 120,
    "verdict": "does not reproduce",
}


@pytest.mark.parametrize("width", [70, 90, 120, 300])
def test_text_is_as_wide_as_a_terminal_and_keeps_every_word(width):
    lines = tables.text([CLAIM, CLAIM], width).splitlines()
    assert max(map(len, lines)) <= width
    (under,) = [n for n, line in enumerate(lines) if set(line) == {" ", "-"}]
    widths = [len(part) for part in lines[under].split("  ")]
    at = np.cumsum([0, *(w + 2 for w in widths)])
    for first, last, wanted in ((0, under, CLAIM), (under + 1, len(lines), CLAIM.values())):
        for n, whole in enumerate(wanted):
            column = " ".join(line[at[n] : at[n] + widths[n]].strip() for line in lines[first:last])
            assert column.replace(" ", "").startswith(str(whole).replace(" ", ""))


def test_a_table_that_cannot_be_narrow_keeps_its_words():
    assert tables.text([{"name": "x" * 50}], width=20).splitlines()[2] == "x" * 50


def test_markdown_is_one_line_a_row_whatever_it_says():
    rows = [{"claim": "a | b\nc", "ours": 0.12345}, {"claim": "d", "ours": None}]
    expected = ["| claim | ours |", "| --- | --- |", "| a \\| b c | 0.123 |", "| d | - |"]
    assert tables.markdown(rows).splitlines() == expected


def test_csv_keeps_every_digit_and_spreads_statistics():
    exact = [{"estimate": Estimate(1 / 3, 0.1, 0.7), "steps": Median(None, 3)}]
    (row,) = csv.DictReader(io.StringIO(tables.csv(exact)))
    assert float(row["estimate_value"]) == 1 / 3
    assert list(row) == [
        "estimate_value", "estimate_low", "estimate_high", "steps_value", "steps_censored",
    ]  # fmt: skip
    assert row["steps_value"] == ""
    for rows in ([{"estimate": None}, *exact], [*exact, {"estimate": None}]):  # in any order
        read = list(csv.DictReader(io.StringIO(tables.csv([{"steps": None, **r} for r in rows]))))
        (none,) = [row for row in read if not row["estimate_low"]]
        assert set(none) == set(row) and set(none.values()) == {""}


def test_every_trial_is_one_row_with_the_columns_of_all():
    records = [
        {"kind": "progress", "group": "g", "trial": 0, "step": 10, "loss": 0.5},
        {"kind": "result", "group": "g", "trial": 0, "seed": 3, "loss": 0.25},
        {"kind": "finished", "group": "g", "trials": 1},
        {"kind": "result", "group": "h", "trial": 0, "seed": 4, "gate_bias_f": 1.0, "loss": None},
    ]
    rows = tables.trials(records)
    assert rows == [
        {"group": "g", "trial": 0, "seed": 3, "loss": 0.25, "gate_bias_f": None},
        {"group": "h", "trial": 0, "seed": 4, "loss": None, "gate_bias_f": 1.0},
    ]
    assert tables.csv(rows).splitlines()[2] == "h,0,4,,1.0"
    assert tables.trials([]) == []


def draw():
    with figures.theme():
        figure, axes = figures.canvas(1, 2)
        looks = figures.styles(["a", "b"])
        for name, style in looks.items():
            estimates = [Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.9)]
            figures.error_bars(axes[0, 0], [1, 2], estimates, style, name)
            figures.band(axes[0, 1], [1, 2], estimates, style, name)
        figures.level(axes[0, 0], 0.125, "chance")
        figures.legend(figure, axes[0, 0])
    return figure


def test_a_figure_gives_the_same_png_twice():
    first = figures.png(draw())
    assert first.startswith(b"\x89PNG") and first == figures.png(draw())


@pytest.mark.parametrize(("y", "side"), [(0.02, 1), (0.5, -1), (1.0, -1)])
def test_the_name_of_a_line_stays_within_the_panel(y, side):
    _, ((axes,),) = figures.canvas(1, 1)
    axes.plot([0, 1], [0, 1])
    figures.level(axes, y, "chance")
    assert np.sign(axes.texts[0].xyann[1]) == side


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

    void = {"meta", "img", "wbr"}

    def __init__(self):
        super().__init__()
        self.fetched, self.open, self.seen, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.words += [value for name, value in attrs if name == "alt"]
        links = [value or "" for name, value in attrs if name in ("src", "href")]
        self.fetched += [link for link in links if not link.startswith("data:")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_fetches_nothing():
    picture = html.picture(figures.png(draw()), '`a` < b & "c"')
    settings = html.listing("config", {"flag": "</pre><script>"})
    page = html.page(
        "Title <1>", html.prose("one\n\nthe `x_h` of"), html.table(ROWS), picture, settings
    )
    reader = Outside()
    reader.feed(page)
    assert reader.words == ['a < b & "c"']
    assert reader.fetched == [] and reader.open == [] and "script" not in reader.seen
    assert "`" not in page and "the <code>x_h</code> of" in page
    assert reader.seen.count("p") == 2 and reader.seen.count("tr") == 3
    assert "url(" not in page and "@import" not in page


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_text_that_begins_a_formula_is_inert_in_csv(text):
    (row,) = csv.DictReader(io.StringIO(tables.csv([{"name": text, "loss": -1.0}]), newline=""))
    assert row == {"name": f"'{text}", "loss": "-1.0"}

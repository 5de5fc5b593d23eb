"""A page to touch, in a real browser without a network: what it shows is what was chosen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lstm_jax.report import figures, html, interactive
from lstm_jax.report.claims import FAILS, REPRODUCES, Claim
from lstm_jax.report.traces import Panel

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
UNITS, STEPS = 3, 5
FLAT = ("gate i", "gate f", "cell c")


def sequence(seed: int) -> list[Panel]:
    values = np.random.default_rng(seed).uniform(0.1, 0.9, (4, UNITS, STEPS)).round(3).tolist()
    below = [[2 * v - 1 for v in row] for row in values[3]]
    named = Panel("input", values[0][:2], 0, ["value", "</script> & mark"])
    return [named, Panel(FLAT[0], values[1]), Panel(FLAT[1], values[2]), Panel(FLAT[2], below, -1)]


VIEWS = {
    "one": {"first": sequence(0), "second": sequence(1)},
    "other": {"first": sequence(2), "third": sequence(3)},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    reason = "playwright is not installed: pip install playwright"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    with api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(
                "no browser is installed: install chromium, or: playwright install chromium"
            )
        launched = playwright.chromium.launch(executable_path=found)
        yield launched
        launched.close()


@pytest.fixture
def page(browser, tmp_path) -> Iterator[Any]:
    """The page, opened from the disk; whatever goes wrong in it fails the test."""
    chart = interactive.traces("traces", VIEWS, "what to see")
    path = tmp_path / "report.html"
    path.write_text(html.page("gates", interactive.script(), chart), encoding="utf-8")
    assert path.stat().st_size < 8e6
    wrong: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 1400})
    opened = context.new_page()
    opened.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url)
    )
    opened.goto(path.as_uri())
    opened.wait_for_selector("#traces .heatmaplayer image")
    opened.wait_for_selector("#traces-lines .scatterlayer .js-line")
    yield opened
    context.close()
    assert wrong == []


def maps(page) -> dict[str, list]:
    """The values in the heat maps, by what stands beside them."""
    script = "d => d.data.map((t, n) => [d.layout['yaxis' + (n ? n + 1 : '')].title.text, t.z])"
    return dict(page.eval_on_selector("#traces", script))


def lines(page) -> dict[str, list]:
    return dict(page.eval_on_selector("#traces-lines", "d => d.data.map(t => [t.name, t.y])"))


def place(page, chart: str, axis: str, x: float, y: Any) -> tuple[float, float]:
    """Where on the screen a chart has (x, y)."""
    script = """(d, [axis, x, y]) => {
      const l = d._fullLayout, box = d.getBoundingClientRect(), up = l[axis];
      return [box.x + l.xaxis._offset + l.xaxis.d2p(x), box.y + up._offset + up.d2p(y)];
    }"""
    return tuple(page.eval_on_selector(chart, script, [axis, x, y]))


def check(page, view: str, title: str, unit: int) -> None:
    """What is drawn are the values of this network, sequence and unit."""
    panels = VIEWS[view][title]
    shown = maps(page)
    assert list(shown) == [panel.name for panel in panels]
    for panel in panels:
        assert_allclose(shown[panel.name], panel.values)
    drawn = lines(page)
    assert list(drawn) == list(FLAT)
    for panel in panels[1:]:
        assert_allclose(drawn[panel.name], panel.values[unit])


def test_everything_is_drawn(page):
    assert page.locator("#traces .heatmaplayer image").count() == 4
    assert page.locator("#traces-lines .scatterlayer .js-line").count() == 3
    assert page.locator("figcaption").inner_text() == "what to see"
    check(page, "one", "first", 0)


def test_another_sequence_network_and_unit_are_shown_when_chosen(page):
    image = "#traces .heatmaplayer image"
    before = page.locator(image).nth(1).get_attribute("href")
    page.select_option("#traces-sequence", "second")
    check(page, "one", "second", 0)
    assert page.locator(image).nth(1).get_attribute("href") != before
    line = "#traces-lines .scatterlayer .js-line"
    before = page.locator(line).first.get_attribute("d")
    page.select_option("#traces-unit", "unit 2")
    check(page, "one", "second", 2)
    page.wait_for_function(
        "([line, was]) => document.querySelector(line).getAttribute('d') !== was",
        arg=[line, before],
    )
    page.select_option("#traces-view", "other")  # it has no second sequence, but a unit 2
    check(page, "other", "first", 2)
    words = page.eval_on_selector_all("#traces-sequence option", "all => all.map(o => o.value)")
    assert words == ["first", "third"]
    page.select_option("#traces-sequence", "third")
    check(page, "other", "third", 2)


def test_values_are_told_where_one_points(page):
    page.mouse.move(*place(page, "#traces", "yaxis3", 2, "unit 1"))
    text = page.locator("#traces .hoverlayer .hovertext")
    text.wait_for()
    value = VIEWS["one"]["first"][2].values[1][2]
    assert (text.text_content() or "").strip() == f"gate f, unit 1, step 2: {value:.3f}"
    page.mouse.move(*place(page, "#traces", "yaxis", 4, "</script> & mark"))
    value = VIEWS["one"]["first"][0].values[1][4]
    told = f"mark, step 4: {value:.3f}"
    page.locator("#traces .hovertext", has_text=told).wait_for()
    value = VIEWS["one"]["first"][3].values[0][3]
    page.mouse.move(*place(page, "#traces-lines", "yaxis", 3, value))
    text = page.locator("#traces-lines .hoverlayer .hovertext")
    text.wait_for()
    assert f"cell c, step 3: {value:.3f}".replace("-", "−") in (text.text_content() or "").replace(
        "-", "−"
    )


def test_a_click_on_a_heat_map_chooses_the_unit(page):
    page.mouse.click(*place(page, "#traces", "yaxis4", 1, "unit 2"))
    page.wait_for_function("() => document.getElementById('traces-unit').value === 'unit 2'")
    check(page, "one", "first", 2)
    page.mouse.click(*place(page, "#traces", "yaxis", 1, "value"))  # the input has no units
    page.wait_for_timeout(200)
    check(page, "one", "first", 2)


@pytest.mark.parametrize("width", [390, 1280])
def test_verdicts_come_first_and_nothing_is_cut_off(width, browser, tmp_path):
    """Long claims go on in new lines; tables fold; a wide figure scrolls within itself."""
    words = "A claim of several words and a number. " * 4
    claims = [Claim(words, words, words, verdict) for verdict in (FAILS, REPRODUCES)]
    with figures.theme():
        pictures = [figures.png(figures.canvas(1, n)[0]) for n in (1, 3)]
    rows = [{f"column_{n}": "several words" for n in range(30)}] * 50
    path = tmp_path / "report.html"
    parts = [html.verdicts(claims), *(html.picture(png, words) for png in pictures)]
    parts.append(html.folded("Table, 50 rows", html.table(rows)))
    path.write_text(html.page("claims", *parts), encoding="utf-8")
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto(path.as_uri())
    first = opened.locator("h2").first.inner_text()
    assert first == "1 of 2 claims reproduce, 1 does not reproduce"
    for verdict in opened.locator("li").all():
        box = verdict.bounding_box()
        assert box["x"] + box["width"] <= width
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert not opened.locator("table").is_visible()
    scale = [image.bounding_box()["width"] / (672 * n) for n, image in
             zip((1, 3), opened.locator("img").all(), strict=True)]  # fmt: skip
    assert scale[0] == pytest.approx(scale[1], rel=0.01), "texts of all figures are of equal size"
    opened.locator("summary").first.click()
    assert opened.locator("table").is_visible()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()

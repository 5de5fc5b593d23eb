"""Charts show the numbers they are given where they are; so do interactive ones, and the tab."""

import json
import re
import sys
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto import plugin_hparams_pb2

from lstm_jax.report import (
    charts,
    figures,
    hparams,
    html,
    importance,
    interactive,
    statistics,
)
from lstm_jax.report import space as spaces
from lstm_jax.report.importance import Curve, Effect
from lstm_jax.report.space import Parameter
from lstm_jax.report.statistics import Estimate
from lstm_jax.search.space import Choice, Int, Log
from tests.report.test_report import Outside
from tests.runs.test_curves import events

messages: Any = plugin_hparams_pb2
HParamsPluginData = messages.HParamsPluginData

RATE = Parameter("learning_rate", Log(1e-4, 1e-1))
WIDTH = Parameter("width", Int(1, 3))
CELL = Parameter("cell", Choice(("lstm", "<gru>")))
SPACE = (RATE, WIDTH, CELL)


def trials(n=24):
    rng = np.random.default_rng(0)
    at = [p.values(rng.random(n)) for p in SPACE]
    rows = zip(*at, range(n), strict=True)
    return [
        {"kind": "result", "group": "g", "trial": i, "learning_rate": r, "width": w, "cell": c}
        | {"step": 10, "loss": None if i == 3 else w + 0.01 * i}
        for r, w, c, i in rows
    ]


@pytest.fixture
def axes():
    figure, panels = figures.canvas(1, 1)
    return figure, panels[0, 0]


def drawn(figure):
    return figures.png(figure).startswith(b"\x89PNG")


def test_a_surface_and_its_trials_share_their_colours(axes):
    records = trials()
    forest = importance.fit(SPACE, records, "loss", trees=4, resamples=2)
    loss = statistics.impute([record["loss"] for record in records])
    points = spaces.points((WIDTH, CELL), records)
    marginal = importance.surface(forest, "width", "cell")
    charts.surface(axes[0], axes[1], marginal, points, loss, "loss, nats")
    mesh, dots = axes[1].collections
    np.testing.assert_array_equal(mesh.get_array(), marginal.response.T)
    np.testing.assert_array_equal(dots.get_array(), loss)
    assert mesh.get_clim() == dots.get_clim() == tuple(np.quantile(loss, (0.05, 0.95)))
    x, y = np.asarray(dots.get_offsets()).T
    np.testing.assert_allclose(x, [record["width"] for record in records])
    np.testing.assert_array_equal(
        np.round(y), [CELL.choices.index(record["cell"]) for record in records]
    )
    assert drawn(axes[0])


def test_importance_bars_stand_in_order_with_their_intervals(axes):
    effects = [
        Effect(("width",), Estimate(0.1, 0.05, 0.2)),
        Effect(("learning_rate",), Estimate(0.6, 0.5, 0.7)),
        Effect(("learning_rate", "width"), Estimate(0.2, 0.1, 0.3)),
    ]
    charts.importance_bars(axes[1], effects, most=2)
    names = [label.get_text() for label in axes[1].get_yticklabels()]
    assert names == ["learning rate", "learning rate × width"]
    assert [round(bar.get_width()) for bar in axes[1].patches] == [60, 20]
    segments = [c.get_segments()[0][:, 0] for c in axes[1].collections]
    np.testing.assert_allclose(segments, [[50, 70], [10, 30]])
    assert axes[1].yaxis_inverted() and drawn(axes[0])


def test_a_marginal_is_a_band_or_points(axes):
    style = figures.styles(["a"])["a"]
    estimates = [Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.9)]
    charts.marginal_curve(axes[1], Curve(RATE, [1e-3, 1e-2], estimates), "loss, nats", style)
    band = {tuple(v) for v in axes[1].collections[0].get_paths()[0].vertices.round(6).tolist()}
    assert band >= {(1e-3, 0.4), (1e-3, 0.6), (1e-2, 0.6), (1e-2, 0.9)}
    figure, panels = figures.canvas(1, 1)
    charts.marginal_curve(panels[0, 0], Curve(CELL, list(CELL.choices), estimates), "loss", style)
    (line, *_), *_ = [c.lines for c in panels[0, 0].containers]
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0.5], [1, 0.7]])
    assert drawn(axes[0]) and drawn(figure)


def test_boxes_are_marked_by_their_tests(axes):
    samples = {"vanilla": [1.0, 2, 3, 4, 5], "np": [1.5, 2, 3, 4, 5], "nfg": [91.0, 92, 93, 94, 95]}
    charts.boxes(axes[1], samples, statistics.against(samples, "vanilla"), "error, %")
    assert [text.get_text() for text in axes[1].texts] == ["", "n.s.", "***"]
    hatches = [patch.get_hatch() for patch in axes[1].patches]
    assert [bool(hatch) for hatch in hatches] == [False, False, True]
    baseline = [line for line in axes[1].lines if line.get_linestyle() == "--"]
    assert {tuple(line.get_ydata()) for line in baseline} == {(3.0, 3.0)}
    assert drawn(axes[0])


# The page. ----------------------------------------------------------------------------------------


def test_the_page_holds_its_script_and_fetches_nothing():
    page = html.page("Sweep", interactive.script(), touchable())
    reader = Outside()
    reader.void = {*reader.void, "path"}
    reader.feed(page)
    assert reader.fetched == [] and reader.open == []
    assert page.count("window.PlotlyConfig") <= 1 and len(page) < 6e6
    assert "<gru>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def touchable():
    return interactive.scatter("each", SPACE, trials(), "loss", "losses < 1")


def charts_of(page):
    """What each chart was given: its name and its traces."""
    decoder, found = json.JSONDecoder(), {}
    for match in re.finditer(r'Plotly\.newPlot\(\s*"(\w+)",\s*', page):
        found[match[1]], _ = decoder.raw_decode(page, match.end())
    return found


def test_charts_to_touch_hold_every_trial():
    fine, diverged = charts_of(touchable())["each"]
    known = [trial["loss"] for trial in trials() if trial["loss"] is not None]
    assert fine["y"] == known and len(diverged["y"]) == 1
    assert diverged["y"][0] > max(known)
    assert "loss: -" in diverged["text"][0] and "cell: " in diverged["text"][0]
    assert not any("<gru>" in text for text in fine["text"])  # plotly would read it as a tag


def test_no_chart_offers_to_send_its_data_away():
    page = touchable()
    assert page.count('"showSendToCloud": false') == page.count("Plotly.newPlot") == 1


# TensorBoard. -------------------------------------------------------------------------------------


def session(directory):
    """Settings and metrics of one trial, as the tab puts them together."""
    settings, metrics, announced = {}, {}, set()
    for value in (value for event in events(directory) for value in event.summary.value):
        data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for name, setting in data.session_start_info.hparams.items():
            settings[name] = getattr(setting, setting.WhichOneof("kind"))
        announced |= {metric.name.tag for metric in data.experiment.metric_infos}
        if not value.tag.startswith("_hparams_/"):
            metrics[value.tag] = value.simple_value
    return settings, metrics, announced


def test_the_tab_is_told_every_trial(tmp_path):
    records = trials(5)
    for _ in range(2):  # what was there is replaced
        hparams.write(tmp_path / "hparams", records, ["learning_rate", "width", "cell"], ["loss"])
    assert len(list((tmp_path / "hparams").iterdir())) == 5
    for record in records:
        settings, metrics, announced = session(tmp_path / "hparams" / str(record["trial"]))
        assert settings == {name: record[name] for name in ("learning_rate", "width", "cell")}
        assert announced == {"loss"}
        told = {} if record["loss"] is None else {"loss": pytest.approx(record["loss"])}
        assert metrics == told


def test_the_tab_refuses_what_it_could_not_show(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="record 0 has no 'rate'"):
        hparams.write(tmp_path, trials(2), ["rate"], ["loss"])
    with pytest.raises(ValueError, match=r"settings \[\], metrics \['loss'\]"):
        hparams.write(tmp_path, trials(2), [], ["loss"])
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"tensorboardX: pip install 'lstm_jax\[experiments\]'"):
        hparams.write(tmp_path, trials(2), ["width"], ["loss"])

"""Interactive charts of a page: every trial against its settings, and networks over sequences.

Plotly draws them. Its script is in the page itself (4.8 MB), so that a report needs no network.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from lstm_jax.report import html
from lstm_jax.report import space as spaces
from lstm_jax.report.charts import words
from lstm_jax.report.ledger import Record
from lstm_jax.report.space import Parameter
from lstm_jax.report.statistics import impute
from lstm_jax.report.tables import cell
from lstm_jax.report.traces import Panel

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError:
    raise ImportError("charts need plotly: pip install 'lstm_jax[experiments]'") from None

TRACES = Path(__file__).with_name("traces.js")
LAYOUT: dict[str, Any] = {
    "template": "simple_white",
    "font": {"family": "system-ui, sans-serif", "size": 15, "color": "#1a1a1a"},
    "margin": {"l": 80, "r": 40, "t": 60, "b": 60},
}
# nothing leaves the page: no button that sends its data to plotly's server
CONFIG = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": "", "responsive": True}


def script() -> str:
    """Returns the drawing library, once for a page and before the first chart."""
    return f"<script>{get_plotlyjs()}</script>"


def scatter(
    name: str,
    space: Sequence[Parameter],
    records: Sequence[Record],
    response: str,
    caption: str,
) -> str:
    """Returns every trial's response against one parameter at a time, its settings on hover.

    A menu chooses the parameter. Trials that diverged are crosses beyond the worst of the others.

    Args:
      name: unique within the page.
      space: the parameters.
      records: one for each trial.
      response: the field that ranks trials, less is better.
      caption: of the chart.
    """
    y = impute(spaces.column(records, response))
    spaces.points(space, records)  # refuses values that are none of their parameter
    known = np.isfinite(np.array([record[response] for record in records], float))
    y = np.where(known, y, y + 0.06 * float(np.ptp(y)))
    groups = [("trials", "#0072B2", "circle", known), ("diverged", "#D55E00", "x", ~known)]
    groups = [group for group in groups if group[-1].any()]
    columns = [spaces.column(records, parameter.name) for parameter in space]
    notes = [_note(record) for record in records]
    traces = [
        go.Scatter(
            x=_those(columns[0], of),
            y=_those(y.tolist(), of),
            text=_those(notes, of),
            name=label,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.65},
            hovertemplate="%{text}<extra></extra>",
        )
        for label, colour, symbol, of in groups
    ]
    buttons = [
        {
            "label": words(parameter.name),
            "method": "update",
            "args": [{"x": [_those(values, of) for *_, of in groups]}, {"xaxis": _axis(parameter)}],
        }
        for parameter, values in zip(space, columns, strict=True)
    ]
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    figure = go.Figure(traces)
    figure.update_layout(
        updatemenus=[menu], xaxis=_axis(space[0]), yaxis={"title": {"text": words(response)}}
    )
    return _part(name, figure, caption)


def traces(name: str, views: Mapping[str, Mapping[str, Sequence[Panel]]], caption: str) -> str:
    """Returns heat maps of networks over sequences, and one unit's values as lines.

    Three menus choose the network, the sequence and the unit; a click on a heat map chooses the
    unit as well.

    Args:
      name: unique within the page.
      views: network -> sequence -> panels; all sequences of a network have panels alike.
      caption: of the chart.
    """
    shown_by = {
        view: {title: [panel._asdict() for panel in panels] for title, panels in shown.items()}
        for view, shown in views.items()
    }
    data = json.dumps(shown_by, separators=(",", ":")).replace("<", "\\u003c")
    menus = " ".join(
        f'<label>{words} <select id="{name}-{what}"></select></label>'
        for what, words in (("view", "network"), ("sequence", "sequence"), ("unit", "unit"))
    )
    return (
        f'<figure><p>{menus}</p><div id="{name}"></div><div id="{name}-lines"></div>'
        f'<script type="application/json" id="{name}-data">{data}</script>'
        f'<script>{TRACES.read_text(encoding="utf-8").strip()}("{name}");</script>'
        f"<figcaption>{html.words(caption)}</figcaption></figure>"
    )


def _part(name: str, figure: Any, caption: str) -> str:
    """Returns a figure of the page, without the library."""
    figure.update_layout(**LAYOUT)
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        default_height="520px",
        config=CONFIG,
    )
    return f"<figure>{drawn}<figcaption>{html.words(caption)}</figcaption></figure>"


def _ticks(parameter: Parameter) -> list[Any]:
    """Returns a few values of a parameter with its bounds; powers of ten on a long axis."""
    if parameter.choices:
        return list(parameter.choices)
    low, high = parameter.low, parameter.high
    if parameter.is_log and not parameter.is_whole and high / low >= 100:
        tens = np.arange(np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9) + 1)
        return [min(max(10.0**ten, low), high) for ten in tens]
    inner = parameter.values(np.linspace(0, 1, 5)[1:-1])
    return list(dict.fromkeys([low, *inner, high]))


def _axis(parameter: Parameter) -> dict[str, Any]:
    kind = "category" if parameter.choices else "log" if parameter.is_log else "linear"
    axis = {"title": {"text": words(parameter.name)}, "type": kind, "autorange": True}
    order = {"categoryorder": "array", "categoryarray": list(parameter.choices)}
    ticks = {"tickvals": _ticks(parameter), "ticktext": [cell(v) for v in _ticks(parameter)]}
    return axis | (order if parameter.choices else ticks)


def _note(record: Record) -> str:
    """Returns every field of a trial, a line each."""
    return "<br>".join(
        f"{escape(words(name))}: {escape(cell(value))}"
        for name, value in record.items()
        if name != "kind"
    )


def _those(values: Sequence[Any], wanted: np.ndarray) -> list[Any]:
    return [value for value, one in zip(values, wanted, strict=True) if one]

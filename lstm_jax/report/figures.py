"""Figures: each series has its own colour, marker and dash, for any colour vision."""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lstm_jax.report.statistics import Estimate, Share

# Okabe & Ito 2008, without the yellow, which is faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)), ":", "--")
DPI = 120
NEAR = 0.1  # of the height of a panel: a name of a line takes as much
THEME: Any = {
    "font.size": 15,
    "axes.titlesize": 15,
    "legend.fontsize": 14,
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}

Style = Mapping[str, Any]


class Picture(NamedTuple):
    """A figure with the name of its file, its caption, and interactive parts of the page."""

    name: str
    caption: str
    figure: Figure
    interactive: tuple[str, ...] = ()


def theme() -> AbstractContextManager[None]:
    """Returns a context with the fonts and lines of all figures: `with theme(): ...`."""
    return matplotlib.rc_context(THEME)


def canvas(rows: int, columns: int, panel: tuple[float, float] = (5.6, 4.6)) -> tuple[Figure, Any]:
    """Returns a figure of panels, each `panel` inches, and its axes [rows, columns]."""
    figure = Figure((panel[0] * columns, panel[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def grid(
    count: int, columns: int, panel: tuple[float, float] = (5, 4)
) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure of `count` panels in rows of at most `columns`, and their axes in order."""
    columns = max(1, min(columns, count))
    figure, panels = canvas(max(1, -(-count // columns)), columns, panel)
    for axes in panels.flat[count:]:
        axes.remove()
    return figure, list(panels.flat[:count])


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Returns a style for each of up to seven series.

    Raises:
      ValueError: for more series.
    """
    if len(names) > len(COLOURS):
        raise ValueError(f"{len(names)} series: need at most {len(COLOURS)}")
    styled = zip(names, COLOURS, MARKERS, DASHES, strict=False)
    return {name: {"color": c, "marker": m, "linestyle": d} for name, c, m, d in styled}


def error_bars(
    axes: Axes, x: Sequence[float], y: Sequence[Estimate | Share], style: Style, label: str
) -> None:
    """Draws estimates over x, each with its interval as a bar."""
    middle = [estimate.value for estimate in y]
    below = [estimate.value - estimate.low for estimate in y]
    above = [estimate.high - estimate.value for estimate in y]
    axes.errorbar(
        x, middle, (below, above), capsize=4, elinewidth=1.4, label=label, clip_on=False, **style
    )


def band(
    axes: Axes, x: Sequence[float], y: Sequence[Estimate | Share], style: Style, label: str
) -> None:
    """Draws a curve of estimates over x, their intervals as a band."""
    low, high = [estimate.low for estimate in y], [estimate.high for estimate in y]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
    middle = [estimate.value for estimate in y]
    axes.plot(x, middle, markevery=max(1, len(x) // 10), label=label, **style)


def level(axes: Axes, y: float, name: str) -> None:
    """Draws a named horizontal line, such as chance or a threshold.

    The name is below the line; above it where the panel ends close below.
    """
    axes.axhline(y, color="0.35", linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
    where = axes.get_yaxis_transform()  # x along the axis from 0 to 1, y in data
    low, high = axes.get_ylim()
    offset = 4 if y - low < NEAR * (high - low) else -14
    axes.annotate(name, (0, y), (4, offset), where, "offset points", fontsize=12, color="0.35")


def named_bars(
    axes: Axes, values: Mapping[str, Estimate | Share], dress: Mapping[str, Style]
) -> None:
    """Draws an estimate with its interval above each name, in the style of the name."""
    for place, (name, value) in enumerate(values.items()):
        error_bars(axes, [place], [value], dress[name], name)
    axes.set_xticks(range(len(values)), [name.replace(" ", "\n") for name in values])
    axes.set_xlim(-0.5, len(values) - 0.5)


def log_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    """Marks the given sizes on a logarithmic x axis."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()


def legend(figure: Figure, *panels: Axes, columns: int | None = None) -> None:
    """Draws one legend above all panels, from the labels of the given ones."""
    found = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    columns = min(columns or len(found), len(found)) or 1
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=columns)


def png(figure: Figure) -> bytes:
    """Returns a figure as PNG; equal figures give equal bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()

"""Charts of a sweep: response against settings, importance of settings, comparison of variants."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lstm_jax.report.figures import COLOURS, Style, band, error_bars
from lstm_jax.report.importance import Curve, Effect, Surface
from lstm_jax.report.space import Parameter
from lstm_jax.report.statistics import Comparison

COLOUR_MAP = "viridis"  # even in lightness, for any colour vision and in grey
FEW = 8  # whole numbers of an axis that all get a tick
MAIN, PAIR = COLOURS[0], COLOURS[5]


def words(name: str) -> str:
    """Returns the name of a field as a label: `learning_rate` becomes "learning rate"."""
    return name.replace("_", " ")


def surface(
    figure: Figure,
    axes: Axes,
    marginal: Surface,
    trials: np.ndarray,
    response: Sequence[float] | np.ndarray,
    label: str,
) -> Colorbar:
    """Draws the marginal surface of two parameters, the trials on it as dots of the same colours.

    Colours reach from the 5th to the 95th percentile of the responses: a few bad trials do not
    darken the rest.

    Args:
      figure: for the colour bar.
      axes: to draw in.
      marginal: the surface.
      trials: their positions, [n, 2], as `space.points` gives them.
      response: [n], all finite (`statistics.impute`).
      label: what the colours mean, with its unit.
    """
    low, high = np.quantile(np.asarray(response, float), (0.05, 0.95))
    style: dict[str, Any] = dict(cmap=COLOUR_MAP, vmin=low, vmax=high)
    edges = [_around(at) for at in marginal.positions]
    x, y = (_coordinates(p, at) for p, at in zip(marginal.parameters, edges, strict=True))
    mesh = axes.pcolormesh(x, y, marginal.response.T, **style)
    x, y = (_scattered(p, at) for p, at in zip(marginal.parameters, trials.T, strict=True))
    axes.scatter(x, y, c=response, s=26, edgecolors="white", linewidths=0.8, **style)
    _two_axes(axes, marginal.parameters)
    return figure.colorbar(mesh, ax=axes, label=label, extend="both")


def importance_bars(axes: Axes, effects: Sequence[Effect], most: int = 8) -> None:
    """Draws the greatest effects as bars, in percent of the variance, with their intervals."""
    shown = sorted(effects, key=lambda effect: -effect.share.value)[:most]
    for place, effect in enumerate(shown):
        share = effect.share
        pair = len(effect.parameters) > 1
        style: Any = {"color": PAIR, "hatch": "//"} if pair else {"color": MAIN}
        kind = "two together" if pair else "one alone"
        axes.barh(place, 100 * share.value, height=0.66, edgecolor="white", label=kind, **style)
        reach = [[100 * (share.value - share.low)], [100 * (share.high - share.value)]]
        axes.errorbar(100 * share.value, place, xerr=reach, color="black", capsize=4, linewidth=1.4)
    names = [" × ".join(map(words, effect.parameters)) for effect in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.set_xlabel("share of the variance, %")
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    known = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(known.values(), known.keys(), loc="lower right")


def marginal_curve(axes: Axes, curve: Curve, label: str, style: Style) -> None:
    """Draws the marginal of one parameter: a curve with its band, for a choice points."""
    x = _coordinates(curve.parameter, curve.parameter.positions(curve.values))
    if curve.parameter.choices:
        error_bars(axes, x.tolist(), curve.response, {**style, "linestyle": "none"}, "")
    else:
        band(axes, x.tolist(), curve.response, {**style, "marker": ""}, "")
    _axis(axes, curve.parameter, "x")
    axes.set_ylabel(label)


def boxes(
    axes: Axes,
    samples: Mapping[str, Sequence[float]],
    tests: Sequence[Comparison],
    label: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draws a box plot and the values of each sample, with the mark of its test above.

    The baseline, which has no test, is grey, its median a dashed line; samples that differ from it
    significantly are orange and hatched.
    """
    marks = {test.name: test.mark for test in tests}
    top = axes.get_xaxis_transform()  # x in data, y along the axis from 0 to 1
    for place, (name, values) in enumerate(samples.items()):
        mark = marks.get(name)
        differs = mark not in (None, "n.s.")
        colour = "0.8" if mark is None else COLOURS[5] if differs else COLOURS[6]
        drawn = axes.boxplot(
            [values], positions=[place], widths=0.6, patch_artist=True, showfliers=False
        )
        drawn["boxes"][0].set(facecolor=colour, alpha=0.75, hatch="//" if differs else "")
        drawn["medians"][0].set(color="black", linewidth=2.2)
        jitter = np.random.default_rng(place).uniform(-0.16, 0.16, len(values))
        axes.plot(place + jitter, values, "o", color="black", markersize=3.5, alpha=0.6)
        axes.text(place, 1.0, mark or "", transform=top, ha="center", va="bottom", fontsize=14)
        if mark is None:
            median = float(np.median(values))
            axes.axhline(median, color="0.35", linestyle=(0, (4, 3)), linewidth=1.2, zorder=0)
    shown = [(names or {}).get(name, words(name)) for name in samples]
    axes.set_xticks(range(len(shown)), shown, rotation=30 if len(shown) > 4 else 0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(label)


def _two_axes(axes: Axes, parameters: tuple[Parameter, Parameter]) -> None:
    for parameter, which in zip(parameters, "xy", strict=True):
        _axis(axes, parameter, which)
    axes.grid(visible=False)


def _axis(axes: Axes, parameter: Parameter, which: str) -> None:
    """Sets label, scale and ticks of an axis for a parameter."""
    axes.set(**{f"{which}label": words(parameter.name)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    if parameter.is_log:
        axes.set(**{f"{which}scale": "log"})
    if parameter.choices:
        axis.set_ticks(range(len(parameter.choices)), [str(c) for c in parameter.choices])
        axes.set(**{f"{which}lim": (-0.5, len(parameter.choices) - 0.5)})
    elif parameter.is_whole:
        axis.set_major_locator(FixedLocator(_whole_ticks(parameter)))
        axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axis.set_minor_locator(NullLocator())


def _whole_ticks(parameter: Parameter) -> list[Any]:
    """Returns all whole numbers of a narrow range, some of a wide one, evenly along the axis."""
    if parameter.high - parameter.low < FEW:
        return parameter.values(parameter.grid(FEW))
    return sorted({*parameter.values(np.linspace(0, 1, 5)[1:-1]), parameter.low, parameter.high})


def _around(at: np.ndarray) -> np.ndarray:
    """Returns the edges of cells around positions, from 0 to 1."""
    return np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [1.0]])


def _coordinates(parameter: Parameter, positions: np.ndarray) -> np.ndarray:
    """Returns positions as coordinates of an axis: numbers themselves, choices by their index."""
    if parameter.choices:
        return positions * len(parameter.choices) - 0.5
    return parameter.numbers(positions)


def _scattered(parameter: Parameter, positions: np.ndarray) -> np.ndarray:
    """Returns the coordinates of trials; those of one choice are spread so that none is hidden."""
    apart = np.random.default_rng(0).uniform(-0.35, 0.35, len(positions))
    return _coordinates(parameter, positions) + (apart if parameter.choices else 0.0)

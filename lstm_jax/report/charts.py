"""Charts of a sweep: where it succeeds, what matters, how it got there, which variant is better."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lstm_jax.report.figures import COLOURS, Style, error_bars
from lstm_jax.report.importance import Curve, Effect, Surface
from lstm_jax.report.space import Parameter
from lstm_jax.report.statistics import Comparison, box

COLOUR_MAP = "viridis"  # even in lightness, for any colour vision and in grey
FEW = 8  # whole numbers up to which each has a tick of its own
MAIN, PAIR = COLOURS[0], COLOURS[5]


def words(name: str) -> str:
    """The name of a field as a label: `learning_rate` becomes "learning rate"."""
    return name.replace("_", " ")


def heat_map(
    figure: Figure,
    axes: Axes,
    parameters: tuple[Parameter, Parameter],
    trials: np.ndarray,
    response: Sequence[float] | np.ndarray,
    label: str,
    bins: int = 6,
    limits: tuple[float, float] | None = None,
) -> Colorbar:
    """Mean response of the trials in each cell of two parameters, with how many there are.

    Args:
      figure: for the colour bar.
      axes: to draw in.
      parameters: along x and y.
      trials: their positions, [n, 2], as `space.points` gives them.
      response: [n], all finite (`statistics.impute`).
      label: what the colours mean, with its unit.
      bins: cells along a continuous parameter.
      limits: of the colours; by default the least and greatest mean.
    """
    edges = [_edges(parameter, bins) for parameter in parameters]
    count, *_ = np.histogram2d(*trials.T, bins=edges)
    total, *_ = np.histogram2d(*trials.T, bins=edges, weights=np.asarray(response, float))
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    low, high = limits or (np.nanmin(mean), np.nanmax(mean))
    x, y = (_places(p, at) for p, at in zip(parameters, edges, strict=True))
    mesh = axes.pcolormesh(x, y, mean.T, cmap=COLOUR_MAP, vmin=low, vmax=high)
    centres = [(at[1:] + at[:-1]) / 2 for at in edges]
    x, y = (_places(p, at) for p, at in zip(parameters, centres, strict=True))
    columns, rows = x.tolist(), y.tolist()
    for (i, j), number in np.ndenumerate(count):
        dark = mean[i, j] < (low + high) / 2
        ink = "0.5" if number == 0 else "white" if dark else "black"
        axes.text(
            columns[i], rows[j], f"{number:.0f}", color=ink, fontsize=12, ha="center", va="center"
        )
    _two_axes(axes, parameters)
    return figure.colorbar(mesh, ax=axes, label=label)


def surface(
    figure: Figure,
    axes: Axes,
    marginal: Surface,
    trials: np.ndarray,
    response: Sequence[float] | np.ndarray,
    label: str,
) -> Colorbar:
    """The marginal surface of two parameters, the trials on it as dots of the same colours.

    Colours reach from the 5th to the 95th percentile of the responses: a few bad trials do not
    darken the rest. `trials` and `response` are those of `heat_map`.
    """
    low, high = np.quantile(np.asarray(response, float), (0.05, 0.95))
    style: dict[str, Any] = dict(cmap=COLOUR_MAP, vmin=low, vmax=high)
    edges = [_around(at) for at in marginal.positions]
    x, y = (_places(p, at) for p, at in zip(marginal.parameters, edges, strict=True))
    mesh = axes.pcolormesh(x, y, marginal.response.T, **style)
    x, y = (_scattered(p, at) for p, at in zip(marginal.parameters, trials.T, strict=True))
    axes.scatter(x, y, c=response, s=26, edgecolors="white", linewidths=0.8, **style)
    _two_axes(axes, marginal.parameters)
    return figure.colorbar(mesh, ax=axes, label=label, extend="both")


def importance_bars(axes: Axes, effects: Sequence[Effect], most: int = 8) -> None:
    """The greatest effects from the top down, in percent of the variance, with their intervals."""
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


def marginal_curve(axes: Axes, curve: Curve, label: str, style: Style, name: str = "") -> None:
    """The marginal of one parameter with its band; for a choice, a point for each value."""
    x = _places(curve.parameter, curve.parameter.positions(curve.values))
    if curve.parameter.choices:
        error_bars(axes, x.tolist(), curve.response, {**style, "linestyle": "none"}, name)
    else:
        low, high = [e.low for e in curve.response], [e.high for e in curve.response]
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        middle = [e.value for e in curve.response]
        axes.plot(x, middle, label=name, color=style["color"], linestyle=style["linestyle"])
    _axis(axes, curve.parameter, "x")
    axes.set_ylabel(label)


def boxes(
    axes: Axes,
    samples: Mapping[str, Sequence[float]],
    tests: Sequence[Comparison],
    label: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """A box and the values themselves for each sample, above it what its test says.

    The baseline, which has no test, is grey, its median a dashed line; samples that differ from it
    significantly are orange and hatched.
    """
    marks = {test.name: test.mark for test in tests}
    top = axes.get_xaxis_transform()  # x in data, y along the axis from 0 to 1
    for place, (name, values) in enumerate(samples.items()):
        numbers, mark = box(list(values)), marks.get(name)
        differs = mark not in (None, "n.s.")
        colour = "0.8" if mark is None else COLOURS[5] if differs else COLOURS[6]
        drawn = axes.bxp(
            [_drawn(numbers)], [place], widths=0.6, patch_artist=True, showfliers=False
        )
        drawn["boxes"][0].set(facecolor=colour, alpha=0.75, hatch="//" if differs else "")
        drawn["medians"][0].set(color="black", linewidth=2.2)
        jitter = np.random.default_rng(place).uniform(-0.16, 0.16, len(values))
        axes.plot(place + jitter, values, "o", color="black", markersize=3.5, alpha=0.6)
        axes.text(place, 1.0, mark or "", transform=top, ha="center", va="bottom", fontsize=14)
        if mark is None:
            axes.axhline(
                numbers.median, color="0.35", linestyle=(0, (4, 3)), linewidth=1.2, zorder=0
            )
    shown = [(names or {}).get(name, words(name)) for name in samples]
    axes.set_xticks(range(len(shown)), shown, rotation=30 if len(shown) > 4 else 0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(label)


def _drawn(numbers: Any) -> dict[str, Any]:
    """The numbers of a box by matplotlib's names."""
    return {
        "med": numbers.median, "q1": numbers.first_quartile, "q3": numbers.third_quartile,
        "whislo": numbers.low, "whishi": numbers.high,
    }  # fmt: skip


def _two_axes(axes: Axes, parameters: tuple[Parameter, Parameter]) -> None:
    for parameter, which in zip(parameters, "xy", strict=True):
        _axis(axes, parameter, which)
    axes.grid(visible=False)


def _axis(axes: Axes, parameter: Parameter, which: str) -> None:
    """Label, scale and ticks of a parameter along an axis."""
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
    """Every whole number of a few, else some of them, evenly along the axis."""
    if parameter.high - parameter.low < FEW:
        return parameter.values(parameter.grid(FEW))
    return sorted({*parameter.values(np.linspace(0, 1, 5)[1:-1]), parameter.low, parameter.high})


def _edges(parameter: Parameter, bins: int) -> np.ndarray:
    """Positions between the cells: of whole numbers and choices that are few, one a cell each."""
    if parameter.choices:
        return np.linspace(0, 1, len(parameter.choices) + 1)
    if parameter.is_whole and parameter.high - parameter.low < bins:
        return np.concatenate([[0.0], parameter.measure_below(parameter.grid(bins))])
    return np.linspace(0, 1, bins + 1)


def _around(at: np.ndarray) -> np.ndarray:
    """Edges between positions, from 0 to 1."""
    return np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [1.0]])


def _places(parameter: Parameter, positions: np.ndarray) -> np.ndarray:
    """Positions as places on a drawn axis: numbers themselves, choices by their index."""
    if parameter.choices:
        return positions * len(parameter.choices) - 0.5
    return parameter.numbers(positions)


def _scattered(parameter: Parameter, positions: np.ndarray) -> np.ndarray:
    """Places of trials; those of one choice beside each other, so that none hides the next."""
    apart = np.random.default_rng(0).uniform(-0.35, 0.35, len(positions))
    return _places(parameter, positions) + (apart if parameter.choices else 0.0)

"""Heat maps of a network over one sequence: units by time, in rows of panels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

COLOURS = {0: "viridis", -1: "RdBu_r"}  # by the least value


class Panel(NamedTuple):
    """Values over time.

    Attributes:
      name: what it shows.
      values: [rows, T].
      low: 0 for values in [0, 1], -1 for those in [-1, 1]; what leaves the range saturates.
      rows: names of the rows; None where they are the units, the same in all panels without names.
    """

    name: str
    values: Any
    low: int = 0
    rows: Sequence[str] | None = None


def rounded(values: Any) -> list[list[float]]:
    """Returns an array as lists of three digits, for records."""
    return np.round(np.asarray(values, np.float64), 3).tolist()


def heat_maps(panels: Sequence[Panel]) -> Figure:
    """Draws panels one above the other, those of named rows smaller, with a bar for each range."""
    figure = Figure((9.5, 2 * len(panels)), layout="constrained")
    heights = [4 if panel.rows is not None else 8 for panel in panels]
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        ax.imshow(panel.values, COLOURS[panel.low], aspect="auto", interpolation="nearest",
                  vmin=panel.low, vmax=1)  # fmt: skip
        ax.set(ylabel=panel.name, yticks=())
        ax.grid(False)
        if panel.rows is not None:
            ax.set_yticks(range(len(panel.rows)), panel.rows)
    for low in sorted({panel.low for panel in panels}, reverse=True):
        mine = [ax for ax, panel in zip(axes, panels, strict=True) if panel.low == low]
        extend: Any = "neither" if low == 0 else "both"
        figure.colorbar(mine[-1].images[0], ax=mine, aspect=40, extend=extend)
    axes[-1].set_xlabel("step")
    return figure

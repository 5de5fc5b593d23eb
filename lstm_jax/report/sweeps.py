"""Figures of a search: scores against parameters, the best so far, and what matters."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from lstm_jax.report import charts, figures, importance, interactive, statistics
from lstm_jax.report.figures import Picture
from lstm_jax.report.importance import Effect, Forest, Searched
from lstm_jax.report.space import Parameter, column, points


def pictures(
    searched: Searched, best: Collection[int], so_far: tuple[Sequence[float], Sequence[float]]
) -> list[Picture]:
    """Draws scores against parameters, the best score so far, and importances.

    Args:
      searched: the trials.
      best: the best configurations.
      so_far: total updates, and the best response so far.
    """
    first = responses(searched, best)._replace(interactive=charts_of(searched))
    return [first, progress(*so_far, searched.response), *importances(searched)]


def responses(searched: Searched, best: Collection[int]) -> Picture:
    """Draws every trial's response against each parameter, a panel for each."""
    y = _finite(column(searched.trials, searched.response))
    chosen = np.array([trial["configuration"] in best for trial in searched.trials], bool)
    figure, panels = figures.grid(len(searched.parameters), 3, panel=(5, 4))
    for axes, parameter in zip(panels, searched.parameters, strict=True):
        x = np.array([_place(parameter, t[parameter.name]) for t in searched.trials], float)
        for some, colour, size, marker, label in (
            (~chosen, figures.COLOURS[0], 26, "o", "tried"),
            (chosen, figures.COLOURS[1], 90, "D", f"best {len(best)}"),
        ):
            axes.scatter(x[some], y[some], size, colour, marker=marker, alpha=0.7, label=label)
        axes.set(xlabel=parameter.name, ylabel=charts.words(searched.response))
        if parameter.choices:
            axes.set_xticks(range(len(parameter.choices)), map(str, parameter.choices))
        elif parameter.is_log:
            axes.set_xscale("log")
    if len(panels):
        figures.legend(figure, panels[0])
    caption = (
        f"{charts.words(searched.response).capitalize()} of every trial, as far as it was trained, "
        "against each parameter. Diverged trials count as the worst of the others; diamonds are "
        "the best configurations."
    )
    return Picture("responses", caption, figure)


def progress(updates: Sequence[float], best: Sequence[float], response: str) -> Picture:
    """Draws the best response so far against the total updates of all trials."""
    figure, ((axes,),) = figures.canvas(1, 1, panel=(8, 4.6))
    axes.step(updates, best, where="post", color=figures.COLOURS[0])
    axes.set(xlabel="updates of all trials together", ylabel=f"{charts.words(response)}, best")
    caption = "The best trial so far, against the updates of all trials of the search together."
    return Picture("search", caption, figure)


def charts_of(searched: Searched) -> tuple[str, ...]:
    """Returns an interactive chart of every trial."""
    space, trials, name = searched
    if not space or all(trial[name] is None for trial in trials):
        return ()
    about: Any = {"space": space, "records": trials, "response": name}
    return (
        interactive.script(),
        interactive.scatter("trials", **about, caption="Every trial; point at one to read it."),
    )


def importances(searched: Searched) -> list[Picture]:
    """Draws the importance of parameters and pairs, and the effect of the top two."""
    forest = searched.forest
    if forest is None:
        return []
    effects = importance.effects(forest)
    figure, ((axes,),) = figures.canvas(1, 1, panel=(9, 1.6 + 0.5 * min(len(effects), 8)))
    charts.importance_bars(axes, effects)
    shares = sorted((-e.share.value, charts.words(e.parameters[0])) for e in effects if _alone(e))
    named = ", ".join(f"{name} {-share:.0%}" for share, name in shares)
    caption = (
        f"Importance for {charts.words(searched.response)}: {named}. Functional ANOVA of a random "
        f"forest on {len(searched.trials)} trials, with 95 % intervals. The forest explains "
        f"{forest.explained:.0%} of the variance of new trials. Diverged trials count as the worst "
        "of the others."
    )
    bars = Picture("importance", caption, figure)
    return [bars, _surface(forest, effects, searched)] if len(searched.parameters) > 1 else [bars]


def _alone(effect: Effect) -> bool:
    """Returns whether an effect is that of one parameter."""
    return len(effect.parameters) == 1


def _surface(forest: Forest, effects: Sequence[Effect], searched: Searched) -> Picture:
    name, trials = searched.response, searched.trials
    first, second, *_ = (e.parameters[0] for e in effects if _alone(e))
    over = importance.surface(forest, first, second)
    y = statistics.impute(column(trials, name))
    at = points(over.parameters, trials)
    figure, ((axes,),) = figures.canvas(1, 1, panel=(8, 5))
    charts.surface(figure, axes, over, at, y, charts.words(name))
    caption = (
        f"Mean {charts.words(name)} over the two parameters that matter most, by the forest: the "
        "mean over all others. Dots are the trials, in the same colours."
    )
    return Picture("two_that_matter", caption, figure)


def _finite(values: Sequence[float | None]) -> np.ndarray:
    """Returns the values, the worst of them in the place of None; zeros where all are None."""
    if all(value is None or not math.isfinite(value) for value in values):
        return np.zeros(len(values))
    return statistics.impute(values)


def _place(parameter: Parameter, value: Any) -> Any:
    """Returns a value's position on its axis: a choice by its index."""
    return parameter.choices.index(value) if parameter.choices else value

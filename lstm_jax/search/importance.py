"""Importance of hyperparameters: the trials of a search as points of a space of `report`."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lstm_jax.search import plans
from lstm_jax.search.groups import Record
from lstm_jax.search.space import Space

if TYPE_CHECKING:
    from lstm_jax.report.importance import Searched


def searched(space: Space, metric: str, records: Iterable[Record]) -> "Searched":
    """Returns the free parameters, a record for each trial of the search, and the score's name.

    Args:
      space: the searched space.
      metric: the ranking metric; a loss is given by its logarithm.
      records: of the run.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    report: Any = _report()
    score = "log10_validation_loss" if metric == "loss" else "share_wrong"
    trials = []
    for result in plans.tried(records):
        values = {name: result["values"][name] for name in space.free}
        known = {n: result[n] for n in ("configuration", "seed", "status", "step")}
        trials.append({**values, **known, score: response(plans.score(result, metric), metric)})
    parameters = [report.Parameter(name, space[name]) for name in space.free]
    return report.Searched(parameters, trials, score)


def response(score: float, metric: str) -> float | None:
    """Returns a score for figures, a loss by its logarithm; None if the trial diverged."""
    if not math.isfinite(score):
        return None
    return math.log10(max(score, 1e-12)) if metric == "loss" else score


def shares(found: "Searched") -> dict[str, float]:
    """Returns hyperparameter -> its share of the variance of the score, the greatest first.

    Raises:
      ValueError: the trials are too few, or a forest on them does not predict new ones.
    """
    forest = found.forest
    if forest is None:
        least = _report().LEAST_TRIALS
        right = f"{least} or more trials, and a score that the hyperparameters explain"
        raise ValueError(f"importance needs {right}, got {len(found.trials)} trials")
    effects = _report().effects(forest)
    return {e.parameters[0]: e.share.value for e in effects if len(e.parameters) == 1}


def _report() -> Any:
    """Returns the module of forests, which needs an extra."""
    try:
        from lstm_jax.report import importance
    except ImportError as error:
        message = "importance needs scikit-learn: pip install 'lstm_jax[experiments]'"
        raise ImportError(message) from error
    return importance

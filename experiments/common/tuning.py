"""The choice of a learning rate on tuning seeds."""

import itertools
from collections.abc import Sequence

from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import is_solved
from lstm_jax.training.trials import Trials, make_trials


def trials(seeds: Sequence[int], rates: Sequence[float], clip: float) -> Trials:
    """Returns every learning rate with every seed, all seeds of the first rate first."""
    rate, seed = zip(*itertools.product(rates, seeds), strict=True)
    return make_trials(seed=seed, learning_rate=rate, clip=clip)


def chosen(rates: Sequence[float], results: Sequence[Record]) -> float | None:
    """Returns the middle learning rate of those that solve most seeds on validation.

    If none solves any, the most accurate is returned; a diverged seed counts as accuracy 0. Few
    seeds cannot rank learning rates that all work: the middle is farthest from those that fail.

    Args:
      rates: as given to `trials`; a single rate needs no results.
      results: of those trials in their order, on validation; empty while unfinished.

    Returns:
      One of the rates (the lower of two in the middle, the first of equals), or None without
      results.
    """
    if len(rates) == 1:
        return rates[0]
    if not results:
        return None
    seeds = len(results) // len(rates)
    groups = [results[i * seeds : (i + 1) * seeds] for i in range(len(rates))]
    solved = [sum(is_solved(_right(r), r["validation_n"]) for r in group) for group in groups]
    if max(solved):
        working = [rate for rate, count in zip(rates, solved, strict=True) if count == max(solved)]
        return sorted(working)[(len(working) - 1) // 2]
    right = [sum(map(_right, group)) for group in groups]
    return rates[right.index(max(right))]


def _right(result: Record) -> int:
    return 0 if result["status"] == "diverged" else result["validation_correct"]

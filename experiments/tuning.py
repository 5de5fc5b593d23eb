"""Choosing a learning rate on seeds that are not reported."""

import itertools
from collections.abc import Sequence

from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import is_solved
from lstm_jax.trials import Trials, make_trials


def trials(seeds: Sequence[int], rates: Sequence[float], clip: float) -> Trials:
    """Every rate with every seed: all seeds of the first rate, then all of the second."""
    rate, seed = zip(*itertools.product(rates, seeds), strict=True)
    return make_trials(seed=seed, learning_rate=rate, clip=clip)


def chosen(rates: Sequence[float], results: Sequence[Record]) -> float | None:
    """The rate that solves most seeds on validation; of such the soonest, then the most accurate.

    A seed that diverged has nothing right.

    Args:
      rates: as given to `trials`; where there is one, it is chosen without results.
      results: of those trials in their order, asked about validation; empty while unfinished.

    Returns:
      One of the rates, the first of equals, or None while there are no results.
    """
    if len(rates) == 1:
        return rates[0]
    if not results:
        return None
    seeds = len(results) // len(rates)
    merits = [_merit(results[i * seeds : (i + 1) * seeds]) for i in range(len(rates))]
    return rates[merits.index(max(merits))]


def _merit(results: Sequence[Record]) -> tuple[int, ...]:
    sound = [r for r in results if r["status"] != "diverged"]
    solved = [r for r in sound if is_solved(r["validation_correct"], r["validation_n"])]
    right = sum(r["validation_correct"] for r in sound)
    return len(solved), -sum(r["step"] for r in solved), right

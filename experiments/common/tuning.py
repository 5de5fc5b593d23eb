"""The choice of a learning rate on tuning seeds, before other seeds are reported."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.common.flags import Config
from lstm_jax.report import ledger
from lstm_jax.report.ledger import Record
from lstm_jax.report.statistics import is_solved
from lstm_jax.search import Group
from lstm_jax.training import Trials, make_trials

CLIP = 1.0  # of the gradient's norm

Choose = Callable[[Sequence[float], Sequence[Record]], float | None]


def tune_then_report(
    config: Config,
    rates: Sequence[float],
    records: Sequence[Record],
    group: Group,
    *,
    choose: Choose | None = None,
    measure_tuning: bool = False,
    **hyperparameters: Any,
) -> list[Group]:
    """Returns the tuning group, if several learning rates are given, and the reported group.

    Args:
      config: has `tuned` and `reported` seeds.
      rates: the learning rates to choose from.
      records: of the finished groups.
      group: the group to train, with the prefix of both names; its trials are ignored.
      choose: (learning rates, results of tuning) -> one of the rates, or None without results;
        `chosen` by default.
      measure_tuning: whether `measure` of the group is also for tuning.
      hyperparameters: of all trials, as in `trials`.
    """
    every = trials(config.tuned, rates, **hyperparameters)
    tuning = group._replace(name=f"{group.name}-tuning", trials=every, split="validation")
    if not measure_tuning:
        tuning = tuning._replace(measure=None, measured=(), save_model=False)
    rate = rates[0]
    if len(rates) > 1:
        rate = (choose or chosen)(rates, ledger.results(records, tuning.name))
    best = None if rate is None else trials(config.reported, [rate], **hyperparameters)
    reported = group._replace(name=f"{group.name}-reported", trials=best, split="test")
    return [tuning, reported] if len(rates) > 1 else [reported]


def trials(
    seeds: Sequence[int], rates: Sequence[float], clip: float = CLIP, **hyperparameters: Any
) -> Trials:
    """Returns every learning rate with every seed, all seeds of the first rate first."""
    rate, seed = zip(*itertools.product(rates, seeds), strict=True)
    return make_trials(seed=seed, learning_rate=rate, clip=clip, **hyperparameters)


def chosen(rates: Sequence[float], results: Sequence[Record]) -> float | None:
    """Returns the middle learning rate of those that solve most seeds on validation.

    If none solves any, the most accurate is returned; a diverged seed counts as accuracy 0. Few
    seeds cannot rank learning rates that all work: the middle is farthest from those that fail.

    Args:
      rates: as given to `trials`.
      results: of those trials in their order, on validation; empty while unfinished.

    Returns:
      One of the rates (the lower of two in the middle, the first of equals), or None without
      results.
    """
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


def least(score: Callable[[Record], float]) -> Choose:
    """Returns the choice of the learning rate with the least mean score; a diverged seed has none.

    Args:
      score: a finished result on validation -> a number.
    """

    def choose(rates: Sequence[float], results: Sequence[Record]) -> float | None:
        if not results:
            return None
        scores = [np.inf if r["status"] == "diverged" else score(r) for r in results]
        finite = np.nan_to_num(scores, nan=np.inf, posinf=np.inf)
        return rates[int(np.argmin(np.reshape(finite, (len(rates), -1)).mean(1)))]

    return choose


lowest_loss = least(lambda result: result["validation_loss"])


def _right(result: Record) -> int:
    return 0 if result["status"] == "diverged" else result["validation_correct"]

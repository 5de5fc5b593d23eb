"""Statistics of repeated trials, and the two rules by which a trial is judged."""

from collections.abc import Sequence
from math import inf, sqrt
from typing import NamedTuple

import numpy as np
from scipy import special

SOLVED = 0.95  # share of the test sequences that must be right
CHANCE_ERRORS = 3.0  # binomial standard errors around chance that still are chance
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A number between the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Share(NamedTuple):
    """`count` of `total` trials, the interval of their probability between `low` and `high`."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.total

    def __str__(self) -> str:
        return f"{self.count}/{self.total} [{self.low:.2f}, {self.high:.2f}]"


class Median(NamedTuple):
    """The step by which half of the trials succeeded, None if fewer did; how many never did."""

    value: int | None
    censored: int

    def __str__(self) -> str:
        steps = "-" if self.value is None else str(self.value)
        return f"{steps} ({self.censored} censored)" if self.censored else steps


def is_solved(correct: int, total: int) -> bool:
    """Whether at least `SOLVED` of `total` test sequences are right."""
    return correct >= SOLVED * total


def is_chance(correct: int, total: int, chance: float) -> bool:
    """Whether it may be guessing: |correct/total - p| <= 3 sqrt(p (1 - p) / total), p = chance."""
    error = sqrt(chance * (1.0 - chance) / total)
    return abs(correct / total - chance) <= CHANCE_ERRORS * error


def wilson(count: int, total: int, confidence: float = CONFIDENCE) -> Share:
    """Share of successes with Wilson's score interval (1927).

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), p = count/total, n = total.

    Raises ValueError unless 0 <= count <= total and total >= 1.
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count={count} of total={total}: need 0 <= count <= total, total >= 1")
    p, z = count / total, float(special.ndtri(0.5 + confidence / 2))
    middle = p + z**2 / (2 * total)
    spread = z * sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    low, high = ((middle + sign * spread) / (1 + z**2 / total) for sign in (-1, 1))
    return Share(count, total, low if count else 0.0, high if count < total else 1.0)


def t_interval(
    values: Sequence[float],
    within: tuple[float, float] = (-inf, inf),
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean of independent values with Student's interval, mean -+ t s / sqrt(n).

    The interval is cut where the mean cannot be, outside of `within`.

    Raises ValueError for fewer than two values, which have no spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} values: an interval needs two or more")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / sqrt(n)
    reach = float(special.stdtrit(n - 1, 0.5 + confidence / 2)) * error
    return Estimate(mean, max(mean - reach, within[0]), min(mean + reach, within[1]))


def median_steps(solved_at: Sequence[int]) -> Median:
    """Steps to success: the least step by which half of the trials had succeeded.

    This is the Kaplan-Meier median when every failure (-1) is censored after the last success.

    Raises ValueError when there is no trial.
    """
    if not solved_at:
        raise ValueError("no trials: a median needs one or more")
    successes = sorted(step for step in solved_at if step >= 0)
    half = (len(solved_at) + 1) // 2
    steps = successes[half - 1] if len(successes) >= half else None
    return Median(steps, len(solved_at) - len(successes))

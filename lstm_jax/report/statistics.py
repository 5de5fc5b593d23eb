"""Statistics of repeated trials, and the rules for a solved trial and for chance."""

from collections.abc import Mapping, Sequence
from math import ceil, inf, isfinite, isnan, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy import special

SOLVED = 0.95  # share of the test sequences that must be right
CHANCE_ERRORS = 3.0  # binomial standard errors around chance that still are chance
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A number and the ends of its confidence interval, NaN if it has none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if isnan(self.low):
            return f"{self.value:.3f}"
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
    """First step by which half of the trials succeeded, None if fewer did, and the failures."""

    value: int | None
    censored: int

    def __str__(self) -> str:
        steps = "-" if self.value is None else str(self.value)
        return f"{steps} ({self.censored} censored)" if self.censored else steps


class Comparison(NamedTuple):
    """A test of two means: their difference, t, p, and p corrected for the other tests."""

    name: str
    difference: Estimate
    t: float
    freedom: float
    p: float
    corrected: float

    @property
    def mark(self) -> str:
        """A star each for a corrected p below 0.05, 0.01, 0.001; "n.s." for none."""
        stars = "*" * sum(self.corrected < level for level in (0.05, 0.01, 0.001))
        return stars or "n.s."


def is_solved(correct: int, total: int) -> bool:
    """Returns whether at least `SOLVED` of `total` test sequences are right."""
    return correct >= SOLVED * total


def is_chance(correct: int, total: int, chance: float) -> bool:
    """Returns whether |correct/total - p| <= 3 sqrt(p (1 - p) / total), p = chance."""
    error = sqrt(chance * (1.0 - chance) / total)
    return abs(correct / total - chance) <= CHANCE_ERRORS * error


def wilson(count: int, total: int) -> Share:
    """Returns a share of successes with Wilson's score interval (1927).

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), p = count/total, n = total.

    Raises ValueError unless 0 <= count <= total and total >= 1.
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count={count} of total={total}: need 0 <= count <= total, total >= 1")
    p, z = count / total, float(special.ndtri(0.5 + CONFIDENCE / 2))
    middle = p + z**2 / (2 * total)
    spread = z * sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    low, high = ((middle + sign * spread) / (1 + z**2 / total) for sign in (-1, 1))
    return Share(count, total, low if count else 0.0, high if count < total else 1.0)


def t_interval(values: Sequence[float], within: tuple[float, float] = (-inf, inf)) -> Estimate:
    """Returns the mean of independent values with Student's interval, mean -+ t s / sqrt(n).

    The interval is cut where the mean cannot be, outside of `within`.

    Raises ValueError for fewer than two values, which have no spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} values: an interval needs two or more")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / sqrt(n)
    reach = float(special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
    return Estimate(mean, max(mean - reach, within[0]), min(mean + reach, within[1]))


def interval(values: Sequence[float | None], within: tuple[float, float] = (-inf, inf)) -> Estimate:
    """Returns the mean and Student's interval of the finite values; nan if they are too few."""
    finite = [value for value in values if value is not None and isfinite(value)]
    if len(finite) >= 2:
        return t_interval(finite, within)
    return Estimate(finite[0] if finite else nan, nan, nan)


def median_steps(solved_at: Sequence[int]) -> Median:
    """Returns the first step by which half of the trials had succeeded.

    This is the Kaplan-Meier median if every failure (-1) is censored after the last success.

    Raises ValueError when there is no trial.
    """
    if not solved_at:
        raise ValueError("no trials: a median needs one or more")
    successes = sorted(step for step in solved_at if step >= 0)
    half = (len(solved_at) + 1) // 2
    steps = successes[half - 1] if len(successes) >= half else None
    return Median(steps, len(solved_at) - len(successes))


def impute(responses: Sequence[float | None]) -> np.ndarray:
    """Returns the responses [n], a diverged trial's (null, nan, infinite) as the greatest other.

    Raises:
      ValueError: every trial diverged.
    """
    values = np.array([np.nan if value is None else value for value in responses], float)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"none of {len(values)} responses is a number: nothing to judge by")
    return np.where(finite, values, values[finite].max())


def best_share(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Returns the least of finite values in ascending order: `share` of them, rounded up.

    Greff et al. 2017 compare the best 10 % of the random trials of each variant.

    Raises:
      ValueError: no values, one that is not finite, or a share that is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: need a number in (0, 1]")
    if not values or not all(map(isfinite, values)):
        raise ValueError(f"{len(values)} values, need one or more, all finite")
    return sorted(values)[: ceil(share * len(values) - 1e-9)]  # 0.07 * 100 is a little above 7


def welch(name: str, one: Sequence[float], other: Sequence[float]) -> Comparison:
    """Returns Welch's t-test (1947) of two means, two-sided; the variances may differ.

    Without any spread p is 1 for equal means, else 0.

    Raises:
      ValueError: fewer than two values in a sample.
    """
    from scipy import stats  # late, as it takes a second

    if min(len(one), len(other)) < 2:
        raise ValueError(f"{name}: {len(one)} and {len(other)} values, a test needs two or more")
    difference = float(np.mean(one)) - float(np.mean(other))
    if np.ptp(one) == np.ptp(other) == 0:
        p, t = (1.0, 0.0) if difference == 0 else (0.0, float(np.copysign(inf, difference)))
        return Comparison(name, Estimate(difference, difference, difference), t, inf, p, p)
    test: Any = stats.ttest_ind(one, other, equal_var=False)
    low, high = map(float, test.confidence_interval(CONFIDENCE))
    t, freedom, p = float(test.statistic), float(test.df), float(test.pvalue)
    return Comparison(name, Estimate(difference, low, high), t, freedom, p, p)


def holm(p: Sequence[float]) -> list[float]:
    """Returns p-values corrected for the number of tests (Holm 1979), in the given order.

    The k-th smallest of m becomes the greatest of (m - j + 1) p_(j) for j <= k, 1 at most. The
    probability that chance alone puts any of them below a level is then at most that level.

    Raises:
      ValueError: a p that is not in [0, 1].
    """
    if not all(0 <= value <= 1 for value in p):
        raise ValueError(f"p={list(p)}: need numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


def against(samples: Mapping[str, Sequence[float]], baseline: str) -> list[Comparison]:
    """Returns Welch's test of every sample against the baseline, with Holm's correction.

    Raises:
      ValueError: no sample of that name, or one of fewer than two values.
    """
    if baseline not in samples:
        raise ValueError(f"baseline={baseline!r} is none of {list(samples)}")
    tests = [
        welch(name, sample, samples[baseline])
        for name, sample in samples.items()
        if name != baseline
    ]
    corrected = holm([test.p for test in tests])
    return [test._replace(corrected=p) for test, p in zip(tests, corrected, strict=True)]

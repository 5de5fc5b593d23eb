"""Verdicts on the findings of the search space odyssey, from results of trials.

The rules were fixed before the reported run, after small trial runs. A task counts if vanilla
learns it: the median loss of its best tenth is at most `LEARNT` of the constant answer's. Each
finding has parts on every task that counts. A finding reproduces if all its parts hold, partly if
some hold. A finding without parts is undecided.

  1  No variant is significantly better than vanilla: one part a task.
  2  Forget gate and output activation are critical: NFG and NOAF are significantly worse, one part
     each and task. A difference gives no part if it is not significant and its 95 % interval still
     includes a harm above a share `LARGE` of vanilla's gain on the constant answer.
  3  Coupled gates and no peepholes do no harm: CIFG and NP are not significantly worse, one part
     each and task.
  4  The learning rate explains more than 2/3 of the variance, the width is second, the momentum
     explains less than 1 %: three parts a task.
  5  The hyperparameters are nearly independent: all pairs explain less than `PAIRS` of the
     variance, one part a task.

Significant means p < 0.05 in Welch's test of the best tenths, with Holm's correction for the eight
tests of a task. Findings 4 and 5 have no parts on a task where the forest explains less than
`KNOWN` of the variance of new trials.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lstm_jax.report.claims import UNDECIDED, of_parts
from lstm_jax.report.importance import Effect
from lstm_jax.report.statistics import Comparison

LEARNT = 0.85
SIGNIFICANT = 0.05
LARGE = 0.1
MOST, LITTLE, PAIRS = 2 / 3, 0.01, 0.2  # shares of the variance
KNOWN = 0.5

CLAIMS = {
    1: "no variant significantly better than vanilla",
    2: "forget gate and output activation critical (NFG, NOAF significantly worse)",
    3: "CIFG and NP not significantly worse than vanilla",
    4: "learning rate above 2/3 of the variance, width second, momentum below 1 %",
    5: "hyperparameters nearly independent",
}
CRITICAL, HARMLESS = ("NFG", "NOAF"), ("CIFG", "NP")
RATE, WIDTH, MOMENTUM = "learning_rate", "hidden", "one_minus_momentum"


class TaskResults(NamedTuple):
    """The results of one task."""

    # the median of vanilla's best tenth as a share of the loss of the constant answer
    learnt: float
    gain: float  # the constant answer's loss minus the mean of vanilla's best tenth
    tests: Sequence[Comparison]  # of every other variant against vanilla
    # main effects and pairs, as shares of the variance; empty if there are too few trials
    effects: Sequence[Effect]
    explained: float  # the share of the variance of new trials that the forest explains

    @property
    def reached(self) -> bool:
        """Whether vanilla learned the task."""
        return self.learnt <= LEARNT

    @property
    def explains(self) -> bool:
        """Whether the shares of the variance are meaningful."""
        return self.reached and bool(self.effects) and self.explained >= KNOWN


def verdicts(results: Mapping[str, TaskResults]) -> dict[int, str]:
    """Returns the verdict on each of the five findings, from the results of all tasks."""
    found: dict[int, list[bool]] = {number: [] for number in CLAIMS}
    for task in results.values():
        for number, parts in of_task(task).items():
            found[number] += parts
    return {n: of_parts(parts) if parts else UNDECIDED for n, parts in found.items()}


def of_task(results: TaskResults) -> dict[int, list[bool]]:
    """Returns the parts of each finding on one task."""
    if not results.reached:
        return {}
    parts = of_variants(results.tests, results.gain)
    return parts | of_shares(results.effects) if results.explains else parts


def of_variants(tests: Sequence[Comparison], gain: float) -> dict[int, list[bool]]:
    """Returns the parts of findings 1 to 3, from the tests; less is better."""
    worse = {test.name: significant(test) and test.difference.value > 0 for test in tests}
    clear = {t.name for t in tests if significant(t) or t.difference.high <= LARGE * gain}
    better = [significant(test) and test.difference.value < 0 for test in tests]
    return {
        1: [not any(better)],
        2: [worse[name] for name in CRITICAL if name in clear],
        3: [not worse[name] for name in HARMLESS if name in worse],
    }


def of_shares(effects: Sequence[Effect]) -> dict[int, list[bool]]:
    """Returns the parts of findings 4 and 5, from shares of the variance."""
    main = {e.parameters[0]: e.share.value for e in effects if len(e.parameters) == 1}
    pairs = sum(e.share.value for e in effects if len(e.parameters) == 2)
    second = sorted(main, key=main.__getitem__, reverse=True)[1]
    order = [main[RATE] > MOST, second == WIDTH, main[MOMENTUM] < LITTLE]
    return {4: order, 5: [pairs < PAIRS]}


def significant(test: Comparison) -> bool:
    """Returns whether a difference is significant after Holm's correction."""
    return test.corrected < SIGNIFICANT

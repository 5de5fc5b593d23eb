"""Claims: a sentence, the result here, the published result, and a verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lstm_jax.report.statistics import Estimate, Share

Interval = Estimate | Share

REPRODUCES, PARTLY, FAILS = "reproduces", "reproduces partly", "does not reproduce"
UNDECIDED = "undecided"  # the run cannot tell: too few trials, or nothing learned in the budget
NOT_RUN = "not run"
TOO_SMALL = "too small to judge"  # every verdict at the quick scale
VERDICTS = (REPRODUCES, PARTLY, FAILS, UNDECIDED, NOT_RUN, TOO_SMALL)


class Claim(NamedTuple):
    """One line of the results.

    Attributes:
      claim: a falsifiable sentence.
      ours: the result of the records, with its interval.
      published: the published result with its source, or a dash.
      verdict: one of `VERDICTS`.
    """

    claim: str
    ours: str
    published: str
    verdict: str


def at_scale(lines: Sequence[Mapping[str, Any]], scale: str) -> list[Mapping[str, Any]]:
    """Returns table lines for display; the quick scale replaces every verdict by `TOO_SMALL`."""
    judged = scale != "quick"
    return [line if judged or not line.get("verdict") else {**line, "verdict": TOO_SMALL}
            for line in lines]  # fmt: skip


def headline(claims: Sequence[Claim]) -> str:
    """Returns the number of claims that reproduce, then those of every other verdict."""
    found = Counter(claim.verdict for claim in claims)
    noun = "claim" if len(claims) == 1 else "claims"
    if found[TOO_SMALL] == len(claims):
        return f"{len(claims)} {noun}, {TOO_SMALL}"
    first = f"{found[REPRODUCES]} of {len(claims)} {noun} {_counted(REPRODUCES, len(claims))}"
    others = [f"{n} {_counted(v, n)}" for v in VERDICTS[1:] if (n := found[v])]
    return ", ".join([first, *others])


def of_parts(held: Sequence[bool]) -> str:
    """Returns the verdict on a claim of several parts, of which all, some or none hold.

    Raises:
      ValueError: if `held` is empty.
    """
    if not held:
        raise ValueError("held=[] has no parts; a verdict needs at least one")
    return REPRODUCES if all(held) else PARTLY if any(held) else FAILS


def above(value: Interval, bar: float) -> str:
    """Returns the verdict on "the value is at least `bar`", from its interval."""
    if value.low >= bar:
        return REPRODUCES
    return FAILS if value.high < bar else UNDECIDED


def below(value: Interval, bar: float) -> str:
    """Returns the verdict on "the value is at most `bar`", from its interval."""
    if value.high <= bar:
        return REPRODUCES
    return FAILS if value.low > bar else UNDECIDED


def exceeds(one: Interval | float, other: Interval | float) -> str:
    """Returns the verdict on "one is greater than the other", undecided if intervals overlap."""
    (low, high), (other_low, other_high) = _ends(one), _ends(other)
    if low > other_high:
        return REPRODUCES
    return FAILS if high < other_low else UNDECIDED


def _ends(value: Interval | float) -> tuple[float, float]:
    return (value, value) if isinstance(value, int | float) else (value.low, value.high)


def _counted(verdict: str, count: int) -> str:
    """Returns a verdict as the verb of `count` claims."""
    plural = verdict.replace(REPRODUCES, "reproduce").replace("does", "do")
    return verdict if count == 1 else plural

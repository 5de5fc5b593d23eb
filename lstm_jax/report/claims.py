"""Claims: what is said of a network, what came out here, what was published, and a verdict."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

HOLDS, PARTLY, FAILS = "holds", "holds partly", "does not hold"
NOT_REACHED = "not reached"  # an open question: the run was too small to tell
TOO_SMALL = "too small to judge"  # whatever came out
VERDICTS = (HOLDS, PARTLY, FAILS, NOT_REACHED, TOO_SMALL)


class Claim(NamedTuple):
    """One line of the results.

    Attributes:
      claim: a sentence that can be wrong.
      ours: what the records say, with its interval.
      published: the published figure with its source; a dash where there is none.
      verdict: one of `VERDICTS`.
    """

    claim: str
    ours: str
    published: str
    verdict: str


def at_scale(lines: Sequence[Mapping[str, Any]], scale: str) -> list[Mapping[str, Any]]:
    """Returns lines of a table as they are shown: at the quick scale no verdict stands."""
    judged = scale != "quick"
    return [line if judged or not line.get("verdict") else {**line, "verdict": TOO_SMALL}
            for line in lines]  # fmt: skip


def of_parts(held: Sequence[bool]) -> str:
    """The verdict on a claim of several parts: all of them held, some, or none.

    Raises ValueError where there are no parts.
    """
    if not held:
        raise ValueError("held=[]: a verdict needs a part or more")
    return HOLDS if all(held) else PARTLY if any(held) else FAILS


def above(low: float, high: float, bar: float) -> str:
    """The verdict on a claim that something is `bar` or more, from the interval of what it is."""
    if low >= bar:
        return HOLDS
    return FAILS if high < bar else NOT_REACHED


def markdown(claims: Sequence[Claim]) -> str:
    """Claims as a table in Markdown."""
    lines = [Claim._fields, ["---"] * len(Claim._fields), *claims]
    return "\n".join(f"| {' | '.join(_cell(words) for words in line)} |" for line in lines)


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")

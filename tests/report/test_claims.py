"""Verdicts follow from intervals, and a claim is one line of a table."""

import pytest

from lstm_jax.report.claims import (
    FAILS,
    PARTLY,
    REPRODUCES,
    TOO_SMALL,
    UNDECIDED,
    Claim,
    above,
    below,
    exceeds,
    headline,
    of_parts,
)
from lstm_jax.report.statistics import Estimate


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.5, 0.9, REPRODUCES),
        (0.51, 1.0, REPRODUCES),
        (0.1, 0.49, FAILS),
        (0.4, 0.5, UNDECIDED),
        (0.4, 0.6, UNDECIDED),
    ],
)
def test_an_interval_is_above_a_bar_below_it_or_undecided(low, high, verdict):
    assert above(Estimate(0, low, high), 0.5) == verdict
    assert below(Estimate(0, 1 - high, 1 - low), 0.5) == verdict


def test_one_exceeds_another_where_their_intervals_do_not_meet():
    one, two = Estimate(1.0, 0.8, 1.2), Estimate(2.0, 1.3, 2.4)
    found = [exceeds(a, b) for a, b in ((two, one), (one, two), (one, one), (one, 0.0))]
    assert found == [REPRODUCES, FAILS, UNDECIDED, REPRODUCES]


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ([True], REPRODUCES),
        ([True, True], REPRODUCES),
        ([True, False], PARTLY),
        ([False, False], FAILS),
    ],
)
def test_a_claim_of_parts_reproduces_in_all_some_or_none(held, verdict):
    assert of_parts(held) == verdict


def test_no_parts_are_no_verdict():
    with pytest.raises(ValueError, match="at least one"):
        of_parts([])


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ([REPRODUCES] * 3, "3 of 3 claims reproduce"),
        ([REPRODUCES], "1 of 1 claim reproduces"),
        (
            [PARTLY, REPRODUCES, UNDECIDED],
            "1 of 3 claims reproduce, 1 reproduces partly, 1 undecided",
        ),
        ([FAILS, FAILS], "0 of 2 claims reproduce, 2 do not reproduce"),
        ([TOO_SMALL] * 2, "2 claims, too small to judge"),
    ],
)
def test_the_headline_counts_the_claims_of_each_verdict(verdicts, words):
    assert headline([Claim("a", "b", "c", verdict) for verdict in verdicts]) == words

"""halving: both strategies from one plan, and the numbers and curves from records."""

import dataclasses

import numpy as np
import pytest

from experiments import halving
from experiments.halving import HALVING, RANDOM, Halving
from lstm_jax.report import figures

CONFIG = Halving(seeds=2, trials=9, eta=3, rungs=3, steps=90, lag=4, hidden=4, batch=20)


def trained() -> list[dict]:
    """Records of a whole run: of configuration n the loss is 1 + n % 7 after 90 updates or less."""
    records: list[dict] = []
    while True:
        done = {r["group"] for r in records}
        left = [group for group in halving.plan(CONFIG, records) if group.name not in done]
        if not left:
            return records
        group = left[0]
        assert group.trials is not None
        records += [
            {
                "kind": "result", "group": group.name, "trial": i, "seed": int(seed), **label,
                "status": "finished", "step": group.steps,
                "validation_loss": 1.0 + label["configuration"] % 7,
            }
            for i, (seed, label) in enumerate(zip(group.trials.seed, group.labels, strict=True))
        ]  # fmt: skip


RECORDS = trained()


def test_random_search_has_so_many_times_the_updates():
    both = halving.contenders(CONFIG)
    assert halving.updates(CONFIG) == 9 * 10 + 3 * 20 + 60  # 210
    assert len(both[HALVING]) == 2 * 9 and len(both[RANDOM]) == 2 * (4 * 210 // 90)
    numbers = [c.configuration for some in both.values() for c in some]
    assert len(set(numbers)) == len(numbers)
    assert {c.values["decay"] for some in both.values() for c in some} == {90}
    assert {(c.bracket, c.seeds) for some in both.values() for c in some} == {(0, (0,)), (1, (1,))}


def test_in_a_repeat_both_begin_with_the_same_configurations_and_no_repeat_has_anothers():
    drawn = {
        (strategy, repeat): [c.values for c in some if c.bracket == repeat]
        for strategy, some in halving.contenders(CONFIG).items()
        for repeat in range(2)
    }
    for repeat in range(2):
        shared = zip(drawn[HALVING, repeat], drawn[RANDOM, repeat], strict=False)
        assert all(mine == other for mine, other in shared)
    rates = [p["learning_rate"] for repeat in range(2) for p in drawn[HALVING, repeat]]
    assert len(set(rates)) == len(rates) == 18


def test_the_number_and_the_curves_are_those_of_the_records():
    curves = halving.curves(CONFIG, RECORDS)
    assert [x[-1] for x, _ in curves[HALVING]] == [210, 210]
    assert [x[-1] for x, _ in curves[RANDOM]] == [810, 810]
    assert all(np.all(np.diff(y) <= 0) for repeats in curves.values() for _, y in repeats)
    halved, at_random = halving.summarise(CONFIG, RECORDS)
    best = [min(1 + n % 7 for n in range(r * 9, r * 9 + 9)) for r in range(2)]
    assert halved["median_loss"] == np.median(best) and halved["updates"] == 210
    assert halved["of_random"] == halved["median_loss"] / at_random["median_loss"]
    found = [[y[-1] for _, y in curves[strategy]] for strategy in (HALVING, RANDOM)]
    assert halved["within"] == sum(a <= 1.1 * b for a, b in zip(*found, strict=True))
    assert at_random["within"] == 2


@pytest.mark.parametrize(("ratio", "verdict"), [(1.1, "reproduces"), (1.11, "does not reproduce")])
def test_the_claim_is_a_tenth(ratio, verdict):
    row = {"strategy": halving.HALVING, "of_random": ratio, "within": 7}
    (claim,) = halving.claims(CONFIG, [row])
    assert claim.verdict == verdict and f"{ratio:.2f}" in claim.ours and "in 7 of" in claim.ours


def test_each_repeat_chooses_its_own_survivors():
    last = [r for r in RECORDS if r["group"].startswith("rung 2")]
    assert sorted(r["bracket"] for r in last) == [0, 1]
    for record in last:
        own = range(record["bracket"] * 9, record["bracket"] * 9 + 9)
        assert record["configuration"] == min(own, key=lambda n: (n % 7, n))


def test_both_curves_are_drawn():
    with figures.theme():
        (picture,) = halving.draw(CONFIG, [], RECORDS)
        assert figures.png(picture.figure).startswith(b"\x89PNG")
    assert {t.get_text() for t in picture.figure.legends[0].get_texts()} == {HALVING, RANDOM}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"trials": 3}, "--trials=3: --rungs=3 by --eta=3 need 9 or more"),
        ({"eta": 1}, "--eta=1: need 2 to 20000"),
        ({"space": "cell=lstm"}, "--space: cell is unknown"),
        ({"batch": 0}, "--batch=0: need 1 to 20000"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **wrong)

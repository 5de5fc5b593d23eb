"""hmm: plan, table, claims and figures from records; a tiny run, killed and resumed."""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest

from experiments import hmm
from experiments.common import markov, runner
from experiments.common.plan import Computed
from experiments.hmm import EM, HAND, LSTM, Hmm, Needed, Point
from lstm_jax.report import figures, ledger
from lstm_jax.search import Group
from tests.killing import Killed

CONFIG = Hmm(seeds=3, steps=10, hidden=4, states=8, bits=(1, 2), learnt_bits=1, restarts=2)
GOOD, BAD = (1.0, 0.0), (0.5, math.log(2))  # accuracy and loss


def told(point: Point, works) -> list[dict]:
    """Records of one group, in a world where `works(point, seed)` says who recalls everything."""
    if point.model == HAND:
        return [{"trial": 0, "accuracy": 1.0, "probability": 1.0, "bits": point.bits}]
    records = []
    for seed in range(CONFIG.seeds):
        for luck in (False, True):  # the better try is the later one
            good = luck == works(point, seed)  # a worse one that recalls more does not count
            accuracy, loss = GOOD if good else BAD
            if point.model == EM:
                mine = {"log_likelihood": -10.0 + luck, "accuracy": accuracy,
                        "bits": point.bits * float(good)}  # fmt: skip
            else:
                mine = {"loss": 2.0 - luck, "status": "finished", "test_metric": accuracy,
                        "test_loss": loss}  # fmt: skip
            records.append({"trial": len(records), "seed": seed, **mine})
    return records


def world(works=lambda point, seed: point.size >= 2 * point.bits) -> list[dict]:
    return [
        {"kind": "result", "group": point.group, **record}
        for point in hmm.sizes(CONFIG)
        for record in told(point, works)
    ]


ROWS = {(row["bits"], row["model"]): row for row in hmm.summarise(CONFIG, world())}


def test_every_size_is_a_group_and_both_have_their_tries():
    groups = hmm.plan(CONFIG, [])
    assert [group.name for group in groups] == [
        f"{bits} bits, {model}, {size}"
        for bits, model, many in (
            (1, HAND, (6,)), (1, EM, (2, 4, 8)), (1, LSTM, (1, 2, 4)),
            (2, HAND, (16,)), (2, LSTM, (1, 2, 4)),
        )
        for size in many
    ]  # fmt: skip
    for group in groups:
        if isinstance(group, Group):
            assert group.trials is not None
            assert group.trials.seed.tolist() == [0, 1, 2] * 3
            assert sorted(set(group.trials.learning_rate.tolist())) == pytest.approx(
                [3e-3, 1e-2, 3e-2]
            )
            assert (group.task.name, group.split, group.steps) == ("bits", "test", 10)
            assert f"LSTM, {group.model.cell.hidden}" in group.name


def test_the_try_that_was_best_in_training_counts_for_each_seed():
    assert ROWS[1, EM]["needed"] == Needed(2, 2, 2, 8)
    assert ROWS[2, LSTM]["needed"] == Needed(4, 4, 4, 4)
    assert ROWS[2, HAND]["needed"] == Needed(16, 16, 16, 16)
    assert ROWS[2, LSTM]["accuracy"].value == 1 and ROWS[2, LSTM]["bits_recalled"].value == 2


def test_a_diverged_lstm_never_counts():
    records = world(lambda point, seed: True)
    for record in records:
        if LSTM in record["group"] and record["loss"] == 1.0:
            record |= {"status": "diverged", "loss": None, "test_metric": None, "test_loss": None}
    rows = {(row["bits"], row["model"]): row for row in hmm.summarise(CONFIG, records)}
    assert rows[1, LSTM]["needed"] == Needed(None, None, None, 4)


def test_what_is_needed_is_a_median_with_its_range_and_knows_what_was_not_reached():
    def tried(*accuracies):
        return [Point(2, EM, 2 << n, a, a) for n, a in enumerate(accuracies)]

    assert hmm.needed(tried((0.99, 0.5, 0.5), (1.0, 0.98, 1.0))) == Needed(4, 2, None, 4)
    assert hmm.needed(tried((0.5, 0.5, 0.5), (0.9, 0.5, 1.0))) == Needed(None, 4, None, 4)
    half = hmm.needed(tried((1.0, 0.5, 0.5, 0.5), (1.0, 1.0, 0.5, 0.5)))
    assert half == Needed(4, 2, None, 4), "two of four came to have enough"
    assert str(Needed(4, 2, None, 4)) == "4 [2, >4]"


def test_claims_take_the_records_at_their_word():
    def verdicts(records):
        rows = hmm.summarise(CONFIG, records)
        return [claim.verdict for claim in hmm.claims(CONFIG, rows)]

    good = world(lambda point, seed: point.size >= point.bits)
    assert verdicts(good) == ["reproduces", "reproduces", "reproduces"]
    assert verdicts(world()) == ["reproduces", "undecided", "reproduces"]
    some = world(lambda point, seed: point.size >= (1 if point.bits == 1 else 4))
    assert verdicts(some) == ["reproduces", "reproduces partly", "reproduces"]
    none = world(lambda point, seed: point.model != EM and point.size >= point.bits)
    assert verdicts(none) == ["reproduces", "reproduces", "does not reproduce"]
    impossible = [
        r | {"bits": 1.5} if EM in r["group"] and r["group"].endswith(" 2") else r for r in good
    ]
    assert verdicts(impossible)[0] == "reproduces partly"
    assert hmm.summarise(CONFIG, impossible)[1]["beyond_log_K"] == 3


def test_figures_show_what_is_needed_and_what_is_recalled():
    records = world()
    rows = hmm.summarise(CONFIG, records)
    with figures.theme():
        pictures = hmm.draw(CONFIG, rows, records)
    assert [picture.name for picture in pictures] == ["needed", "information"]
    axes: Any = pictures[0].figure.axes[0]
    series = {c.get_label(): c.lines[0].get_ydata().tolist() for c in axes.containers}
    assert series == {HAND: [6, 16], EM: [2], LSTM: [2, 4]}
    assert [axes.get_title() for axes in pictures[1].figure.axes] == ["1 bit", "2 bits"]


def test_every_size_has_a_line_in_the_summary():
    lines = hmm.every(CONFIG, world())
    assert len(lines) == len(hmm.plan(CONFIG, []))
    assert {line["size"] for line in lines if line["model"] == EM} == {2, 4, 8}
    recalled = [line["bits_recalled"].value for line in lines if line["model"] == LSTM]
    assert recalled == [0, 1, 1, 0, 0, 2]  # log 2 nats a bit is no bit at all


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bits": (1, 9)}, "--bits=9: need 1 to 8"),
        ({"bits": (0,)}, "--bits=0: need 1 to 8"),
        ({"states": 1}, "--states=1: need 2 to 4096"),
        ({"restarts": 0}, "--restarts=0: need 1 to 1000"),
        ({"learnt_bits": -1}, "--learnt_bits=-1: need 0 to 8"),
        ({"learning_rates": (0.0,)}, "--learning_rates=0: need 1e-30 to 1e+30"),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Hmm(**given)


def test_em_gives_a_result_for_every_start_and_the_same_again():
    pytest.importorskip("hmmlearn")
    config = dataclasses.replace(CONFIG, iterations=5)
    results, models = hmm.by_em(config, 1, 4)
    assert [(r["seed"], r["restart"]) for r in results] == [
        (s, n) for s in range(3) for n in (0, 1)
    ]
    assert len({r["log_likelihood"] for r in results}) == 6
    assert models.transition.shape == (6, 4, 4)
    again, same = hmm.by_em(config, 1, 4)
    assert again == results and np.array_equal(same.transition, models.transition)


def test_a_tiny_run_killed_and_resumed_leaves_the_same_bytes(
    tmp_path, monkeypatch, standard_promotion
):
    pytest.importorskip("hmmlearn")
    monkeypatch.setattr(runner, "start", lambda platform: None)
    flags = ["--seeds=2", "--steps=6", "--hidden=1", "--states=4", "--bits=1", "--restarts=1",
             "--iterations=3", "--learning_rates=1e-2", "--batch_size=4"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert runner.main(hmm.EXPERIMENT, ["hmm", *flags, f"--workdir={whole}"]) == 0
    learn, calls = markov.learn, []

    def mortal(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise Killed
        return learn(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(markov, "learn", mortal)
        with pytest.raises(Killed):
            runner.main(hmm.EXPERIMENT, ["hmm", *flags, f"--workdir={killed}"])
    assert runner.main(hmm.EXPERIMENT, ["hmm", f"--resume={killed}"]) == 0
    names = [
        "records.jsonl",
        "summary.csv",
        *(str(p.relative_to(whole)) for p in whole.glob("params/*")),
    ]
    assert len(names) == 2 + 4
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    by_hand = ledger.results(ledger.group(records, f"1 bits, {HAND}, 6"))
    assert by_hand[0]["bits"] == 1
    engines = json.loads((whole / "config.json").read_text())["about"]["engines"]
    assert list(engines) == [f"1 bits, {LSTM}, 1"]
    assert isinstance(hmm.plan(CONFIG, [])[0], Computed)

"""gates: plan, looks, table, claims and figures as functions of records; one tiny run."""

import csv
import itertools
import json
import re
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lstm_jax as lj
from experiments import gates
from experiments.common import gate_use, networks, runner
from experiments.gates import FATES, HELD, MORE, SELECTORS, Gates
from lstm_jax.report import figures, ledger
from lstm_jax.training.trials import make_trials

CONFIG = Gates(tasks=("recall", "adding"), seeds=4, lag=6, hidden=3)
STEPS = {"recall": 7, "adding": 6}


def told(left=lambda gate: 0.5, marked=(0.2, 0.5, 0, 0.1, 0.2)) -> list[dict]:
    """What a finished run leaves on the ledger: three of four seeds solve each task."""
    records = []
    draw = np.random.default_rng(0).uniform
    for task in CONFIG.tasks:
        for trial in range(CONFIG.seeds):
            wobble = 0.01 * trial
            sequence = {
                "answer": 1.0,
                "input": draw(size=(len(gates.ROWS[task]), STEPS[task])).tolist(),
                **{name: draw(size=(3, STEPS[task])).tolist() for name in "ifgohc"},
            }
            sequence["input"][-1] = [1.0] + [0.0] * (STEPS[task] - 1)
            records.append(
                {"kind": "result", "group": task, "trial": trial, "seed": trial,
                 "test_correct": 1899 if trial == 3 else 2000, "test_n": 2000,
                 "near_0": dict.fromkeys(SELECTORS, 0.1 + wobble),
                 "near_1": dict.fromkeys(SELECTORS, 0.8 + wobble),
                 "decay": [100.0 + trial, 10.0, None if trial == 1 else 1.0],
                 "fates": {"marked": list(marked), "elsewhere": [0.9, 0.1 - wobble, 0, 0, wobble]},
                 "when": [[0.8, 0.1 + wobble, 0, 0, 0.1 - wobble]] * STEPS[task],
                 "left": {g: dict.fromkeys(HELD, left(g) + wobble) for g in SELECTORS},
                 **({"shown": [sequence] * gate_use.SHOWN} if trial < gates.NETWORKS else {})}
            )  # fmt: skip
    return records


RECORDS = told()
ROWS = gates.summarise(CONFIG, RECORDS)


def at(rows, task: str, quantity: str, case: str):
    wanted = task, quantity, case
    (row,) = (r for r in rows if (r["task"], r["quantity"], r["case"]) == wanted)
    return row["mean"]


def test_each_task_is_one_group():
    recall, adding = gates.plan(CONFIG, [])
    assert (recall.name, adding.name) == ("recall", "adding")
    assert recall.task == lj.tasks.Recall(lag=6, symbols=4)
    assert adding.task.length == 6 and recall.measure is not None
    assert recall.trials is not None and recall.trials.seed.tolist() == [0, 1, 2, 3]


def test_a_position_is_kept_added_to_eliminated_overwritten_or_in_between():
    f = np.array([0.95, 0.95, 0.05, 0.05, 0.5, 0.9, 0.1])
    i = np.array([0.05, 0.5, 0.05, 0.5, 0.5, 0.0, 0.0])
    g = np.array([1.0, -1.0, 1.0, -0.5, 1.0, 1.0, 1.0])
    fate = gate_use.fates(lj.cells.LSTM(7).Gates(i=i, f=f, g=g, o=f))
    assert [FATES[n] for n in fate] == [
        "kept", "added to", "eliminated", "overwritten", "in between", "in between", "in between",
    ]  # fmt: skip
    assert_allclose(gate_use.counts(fate), np.array([1, 1, 1, 1, 3]) / 7)


def test_a_gate_that_is_held_has_its_value_whatever_it_reads_and_the_others_are_as_before():
    task = lj.tasks.Recall(lag=4, symbols=3)
    model = networks.network("lstm_chrono", task, 3, "reference")
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    value = np.array([[0.2, 1.0, 0.0], [0.5, 0.9, 0.7]], np.float32)
    x = task.sample(jax.random.key(1), 5).x

    def trace(params):
        return jax.jit(jax.vmap(lambda p: lj.trace(model.cell, p, x)))(
            networks.recurrent(model, params)
        )

    before, after = trace(params), trace(gate_use.held(params, 1, value))
    assert_allclose(after.gates.f, np.broadcast_to(value[:, None, None], after.gates.f.shape),
                    atol=1e-6)  # fmt: skip
    assert (after.gates.f[0, ..., 1] == 1).all()  # open means open
    for name in ("i", "g", "o"):  # at the first step, where there is no past to differ
        assert_allclose(getattr(after.gates, name)[:, 0], getattr(before.gates, name)[:, 0])


@pytest.fixture(scope="module")
def looked():
    """What is seen of two networks that have learnt nothing, and what they were asked with.

    Of 10 test sequences the second network has one right more, and every call one more.
    """
    task = lj.tasks.Adding(length=5)
    model = networks.network("lstm_chrono", task, 3, "reference")
    params = jax.device_get(jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2)))
    asked = []

    def evaluate(task, model, params, trials, *, sequences, batching):
        asked.append((networks.recurrent(model, params), trials.seed.tolist(), sequences))
        return types.SimpleNamespace(correct=len(asked) + np.arange(2), n=10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_use, "evaluate", evaluate)
        found = gate_use.gate_use(task, model, "auto", params, make_trials(seed=[0, 1]))
    return task, model, params, found, asked


def test_a_network_is_asked_with_each_gate_open_and_at_its_mean(looked):
    task, model, params, found, asked = looked
    x = task.sample(jax.random.key(0), gates.SEQUENCES, "test").x
    trace = jax.jit(jax.vmap(lambda p: lj.trace(model.cell, p, x)))
    seen = trace(networks.recurrent(model, params)).gates
    assert {(*seeds, n) for _, seeds, n in asked} == {(0, 1, gate_use.ASKED)}
    for call, (gate, how) in enumerate(itertools.product(SELECTORS, HELD)):
        values = getattr(trace(asked[call][0]).gates, gate)
        wanted = 1.0 if how == "1" else getattr(seen, gate).mean((1, 2), keepdims=True)
        assert_allclose(values, np.broadcast_to(wanted, values.shape), atol=1e-5)
        assert [one["left"][gate][how] for one in found] == [(call + 1) / 10, (call + 2) / 10]


def test_a_look_is_of_the_traces_of_the_test_sequences(looked):
    task, model, params, found, _ = looked
    batch = task.sample(jax.random.key(0), gates.SEQUENCES, "test")
    for trial, seen in enumerate(found):
        mine = networks.recurrent(model, jax.tree.map(lambda leaf, n=trial: leaf[n], params))
        trace = jax.jit(lambda mine: lj.trace(model.cell, mine, batch.x))(mine)
        f = np.asarray(trace.gates.f)
        assert_allclose(seen["near_1"]["f"], (f > 0.9).mean(), atol=1e-6)
        assert_allclose(seen["near_0"]["i"], (np.asarray(trace.gates.i) < 0.1).mean(), atol=1e-6)
        decay = -1 / np.log(f).mean((0, 1))
        assert_allclose(seen["decay"], np.sort(decay)[::-1], rtol=1e-4)
        assert_allclose(np.sum(seen["when"], axis=1), 1, rtol=1e-6)
        fate = gate_use.fates(jax.device_get(trace.gates))
        marked = np.asarray(batch.x[..., 1] == 1)
        assert_allclose(seen["fates"]["marked"], gate_use.counts(fate[marked]))
        assert_allclose(seen["fates"]["elsewhere"], gate_use.counts(fate[~marked]))
        first = seen["shown"][1]
        by_memory = np.argsort(-decay)
        assert_allclose(first["c"], trace.states.c[:, 1][:, by_memory].T, atol=6e-4)
        assert_allclose(first["input"], batch.x[:, 1].T, atol=6e-4)
        assert_allclose(first["answer"], batch.y[1], atol=6e-4)


def test_numbers_are_of_those_that_solve_the_task():
    assert {str(r["solved"]) for r in ROWS} == {"3/4 [0.30, 0.95]"}
    assert_allclose(at(ROWS, "recall", "accuracy", "intact"), [1, 1, 1])
    assert_allclose(at(ROWS, "adding", "accuracy", "i held at 1").value, 0.51)
    assert_allclose(at(ROWS, "adding", "share of gate values", "f near 0").value, 0.11)
    assert_allclose(at(ROWS, "recall", gates.DECAY, "longest").value, 101)
    assert_allclose(at(ROWS, "recall", gates.DECAY, "median").value, 10)
    shortest = at(ROWS, "recall", gates.DECAY, "shortest")
    assert_allclose(shortest, [1, 1, 1])  # of one network it is infinite
    assert_allclose(at(ROWS, "recall", "share of positions, marked", "overwritten").value, 0.1)
    assert_allclose(at(ROWS, "recall", *MORE).value, 0.6 - 0.09)


def test_claims_take_the_interval_at_its_word():
    found = gates.claims(CONFIG, ROWS)
    assert [claim.verdict for claim in found] == ["reproduces"] * 8
    records = told(lambda gate: 0.99 if gate == "f" else 0.2, (0.9, 0, 0, 0, 0.1))
    found = gates.claims(CONFIG, gates.summarise(CONFIG, records))
    once = [
        "does not reproduce",
        "reproduces",
        "does not reproduce",
        "reproduces",
    ]  # marks, i, f, o
    assert [claim.verdict for claim in found] == once * 2
    records = told(lambda gate: 0.94)  # 0.94, 0.95 and 0.96
    found = gates.claims(CONFIG, gates.summarise(CONFIG, records))
    assert [claim.verdict for claim in found[1:4]] == ["undecided"] * 3
    for record in records:
        record["test_correct"] = 0
    rows = gates.summarise(CONFIG, records)
    assert {claim.verdict for claim in gates.claims(CONFIG, rows)} == {"undecided"}
    with figures.theme():
        assert len(gates.draw(CONFIG, rows, records)) == 3


def test_figures_are_drawn_and_the_page_has_the_numbers():
    with figures.theme():
        numbers, recall, adding = gates.draw(CONFIG, ROWS, RECORDS)
    names = ["gates", "trace-recall", "trace-adding"]
    assert [p.name for p in (numbers, recall, adding)] == names
    shown = RECORDS[0]["shown"][0]
    assert_array_equal(recall.figure.axes[2].images[0].get_array(), shown["f"])
    assert [axes.get_ylabel() for axes in recall.figure.axes[:7]] == [
        "input", "gate i", "gate f", "gate o", "candidate g", "cell c", "hidden h",
    ]  # fmt: skip
    assert not adding.interactive
    _, chart = recall.interactive
    data = re.search(r'<script type="application/json" id="traces-data">(.*?)</script>', chart)
    assert data is not None
    views = json.loads(data[1])
    assert list(views) == [
        f"{task}, seed {seed} (100% right)" for task in CONFIG.tasks for seed in (0, 1)
    ]
    first = views["recall, seed 0 (100% right)"]["sequence 1, answer 1"]
    assert first[2] == {"name": "gate f", "values": shown["f"], "low": 0, "rows": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": ("sums",)}, "--tasks=sums: need one of recall, adding"),
        ({"lag": 1}, "--lag=1: need 2 to 1000000"),
        ({"learning_rate": 0.0}, "--learning_rate=0: need 1e-30 to 1e+30"),
        ({"seed": 2**32 - 1}, "--seed=4294967295: the last one, 4294967304, is beyond 4294967295"),
    ],
)
def test_bad_values_are_refused_by_flag_value_and_what_is_right(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Gates(**given)


def test_a_tiny_run_ends_with_table_figures_and_a_page_to_touch(
    monkeypatch, tmp_path: Path, standard_promotion
):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    tiny = ["--tasks=recall", "--lag=2", "--seeds=3", "--steps=2", "--hidden=2", "--batch_size=2"]
    path = tmp_path / "run"
    arguments = ["gates", *tiny, "--engine=reference", f"--workdir={path}"]
    assert runner.main(gates.EXPERIMENT, arguments) == 0
    rows = list(csv.DictReader((path / "summary.csv").read_text().splitlines()))
    assert {row["solved_count"] for row in rows} == {"0"}
    records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    results = ledger.results(records)
    assert ["shown" in r for r in results] == [True, True, False]
    for r in results:
        assert set(r["left"]) == set(SELECTORS) and set(r["left"]["f"]) == set(HELD)
    assert 'id="traces-data"' in (path / "report.html").read_text(encoding="utf-8")
